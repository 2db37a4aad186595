"""The database of the catalogue: whether it can be used, is this store's, and of this version."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.schema import EarlierCatalogue
from filestored.doctor.findings import Finding, Situation, fault, good
from filestored.doctor.folder import skip_unless_own
from filestored.errors import CatalogueError, CatalogueFull, CatalogueMissing, FilestoredError, StartError
from filestored.extras import explained
from filestored.recovery import STORE_NOTE


def check_catalogue(situation: Situation) -> Iterator[Finding]:
    """Open the catalogue as a daemon would, but for making or changing its tables."""
    where = situation.catalogue
    if isinstance(where, Path) and not where.exists():
        yield _judge_absent(situation, where)
        return
    if isinstance(where, Path) and (not_own := skip_unless_own(situation)) is not None:
        yield not_own
        return
    try:
        yield _judge(situation, where)
    except CatalogueMissing:
        yield good(f"{where} has no tables yet: the first start makes them")
    except CatalogueFull as error:
        yield fault(f"{where}: {error.reason}", "make room on its disk; a delete works meanwhile")
    except CatalogueError as error:
        yield fault(f"{where} cannot be used: {error.reason}", _advice(where))
    except ImportError as error:
        yield fault(str(explained(error) or error), "install what is missing")
    except FilestoredError as error:
        yield fault(str(error), _advice(where))


def _judge_absent(situation: Situation, where: Path) -> Finding:
    if any(situation.path.glob("[0-9a-f][0-9a-f]")):
        return fault(
            f"{where} is not there, and files are: they are served without names and owners",
            "restore it from a backup while no daemon runs, or run 'filestored reindex'",
        )
    return good(f"{where} is not there yet: the first start makes it")


def _judge(situation: Situation, where: Address) -> Finding:
    with closing(Catalogue(where, durable=True)) as rows:
        owner = rows.note(STORE_NOTE)
        usage = rows.usage(None)
        with rows.transaction(flushed=False):
            # whether it can be written to; nothing is
            pass
    noted = situation.folder.private / "store-id"
    if owner is not None and (not noted.exists() or noted.read_text().strip() != owner):
        return fault(
            f"{where} belongs to another store",
            "name a database of its own with --catalogue; where the store was restored see docs/operations.md",
        )
    try:
        Catalogue.prepare(where, may_change=False)
    except EarlierCatalogue:
        if situation.holder is not None:
            return fault(f"{where} is of an earlier version, and so is the daemon that runs", "filestored restart")
        return good(f"{where} is of an earlier version: the next start brings it up to date")
    except StartError as error:
        return fault(str(error), "install the newer version of filestored, or restore the backup of before")
    return good(f"{where} can be read and written: {usage.files} files, {usage.blobs} blobs, {usage.bytes} bytes")


def _advice(where: Address) -> str:
    if isinstance(where, Path):
        return (
            "restore it from a backup; or stop the daemon, move it away and run 'filestored reindex', which loses "
            "names and owners"
        )
    return "see that the database runs, and that address, user, password and rights are right (docs/operations.md)"
