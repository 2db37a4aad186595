"""The database of the catalogue: whether it can be used, is this store's, and of this version."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filestored.catalogue.address import Address, PostgresAddress
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.schema import EarlierCatalogue, require_current
from filestored.catalogue.sqlite import find_damage
from filestored.doctor.cataloguefile import is_empty, judge_damage, judge_failure
from filestored.doctor.findings import Finding, Situation, fault, good, lacking, refused, warning
from filestored.doctor.folder import is_own, skip_unless_own
from filestored.errors import CatalogueError, CatalogueFull, CatalogueMissing, FilestoredError, StartError
from filestored.recovery import LOSS_NOTE, STORE_NOTE

if TYPE_CHECKING:
    from filestored.catalogue.connecting import PostgresConnection

_PATIENCE_SECONDS = 4.0
_LOOKED_AT_SECONDS = 3.0
_RESTORE = "restore it from a backup while no daemon runs; or run 'filestored reindex', and make the tokens anew"

_RIGHTS = """
SELECT string_agg(name, ', ') FROM unnest(ARRAY['files', 'usage', 'totals', 'tokens', 'uploads', 'removals', 'daemons',
'leases', 'notes']) AS name WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE'))
"""


def check_catalogue(situation: Situation) -> Iterator[Finding]:
    """Open the catalogue as a daemon would, but for making or changing its tables."""
    where = situation.catalogue
    if isinstance(where, Path) and (not where.exists() or is_empty(where)):
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
        yield from _judge_failure(where, error.reason)
    except ImportError as error:
        yield lacking(error)
    except FilestoredError as error:
        yield from _judge_failure(where, str(error))


@contextmanager
def opened(situation: Situation) -> Iterator[Catalogue | None]:
    """Open the catalogue for a while; None where there is none yet, or where it is another user's.

    Raises CatalogueError, at once where it could not be read before; LibraryMissing.
    """
    where = situation.catalogue
    if isinstance(where, Path) and not (where.exists() and is_own(situation)):
        yield None
        return
    if situation.failures:
        raise situation.failures[0]
    try:
        _require_answer(where)
        with closing(Catalogue(where, durable=True)) as rows:
            yield rows
    except CatalogueMissing:
        # others find it missing as well, and that quickly
        raise
    except CatalogueError as error:
        situation.failures.append(error)
        raise


def _require_answer(where: Address) -> None:
    """Raise CatalogueError where a server does not answer soon: a daemon would wait for one that starts anew."""
    if isinstance(where, Path):
        return
    from filestored.catalogue.connecting import require_usable

    with connected(where) as connection:
        require_usable(connection)
        connection.execute("SELECT 1")


def connected(where: PostgresAddress) -> "AbstractContextManager[PostgresConnection]":
    """Connect to a PostgreSQL server that has to answer soon. Raises CatalogueError, LibraryMissing."""
    # only here: it brings the database's driver with it
    from filestored.catalogue import connecting

    return connecting.connected(where, _PATIENCE_SECONDS)


def _judge_absent(situation: Situation, where: Path) -> Finding:
    state = "empty" if where.exists() else "not there"
    if situation.settings.bucket is not None or not (situation.path.is_dir() and situation.folder.has_files()):
        return good(f"{where} is {state} yet: the first start makes it")
    if not (situation.folder.private / "format.json").exists():
        return good(
            f"{where} is {state} yet: the first start makes it, and serves the files that are there without names "
            "and owners, until 'filestored reindex' gives them entries"
        )
    return fault(f"{where} is {state}, and files are: their names and owners, and all tokens, are lost", _RESTORE)


def _judge(situation: Situation, where: Address) -> Finding:
    with opened(situation) as rows:
        if rows is None:
            raise CatalogueMissing("it is not there")
        owner = rows.note(STORE_NOTE)
        usage = rows.usage(None)
        if isinstance(where, Path):
            with rows.transaction(flushed=False):
                # whether it can be written to; nothing is
                pass
        loss = rows.note(LOSS_NOTE)
    if isinstance(where, Path) and (damage := find_damage(where, _LOOKED_AT_SECONDS)):
        return judge_damage(where, damage)
    # of a bucket its mark says whose catalogue it is: see there
    if situation.settings.bucket is None and owner is not None and owner != identity(situation):
        return fault(
            f"{where} belongs to another store",
            "name a database of its own with --catalogue; where the store was restored see docs/operations.md",
        )
    try:
        _require_version(where)
    except EarlierCatalogue:
        if situation.holder is not None:
            return fault(f"{where} is of an earlier version, and so is the daemon that runs", "filestored restart")
        return good(f"{where} is of an earlier version: the next start brings it up to date")
    except StartError as error:
        return refused(str(error), "install the newer version of filestored, or restore the backup of before")
    if not isinstance(where, Path) and (closed := _closed_tables(where)):
        return fault(
            f"the user of {where} may not read and write {closed}", "have it own the tables (docs/operations.md)"
        )
    if loss:
        return warning(
            f"{where} was lost, and made anew at {loss}: the files of before have no names and owners", _RESTORE
        )
    return good(f"{where} can be read and written: {usage.files} files, {usage.blobs} blobs, {usage.bytes} bytes")


def identity(situation: Situation) -> str:
    """Return the id of the store's folder, as a daemon has noted it; empty where none has."""
    try:
        return (situation.folder.private / "store-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _require_version(where: Address) -> None:
    """Raise StartError where the tables are of another version. Raises CatalogueError."""
    if isinstance(where, Path):
        Catalogue.prepare(where, may_change=False)
        return
    # preparing it would wait for another program's migration, and clear what such programs have left
    with connected(where) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    require_current(str(row[0]) if row else "", str(where))


def _closed_tables(where: PostgresAddress) -> str:
    """Return the tables that the user of the address may not use, with commas; empty where there are none."""
    with connected(where) as connection:
        row = connection.execute(_RIGHTS).fetchone()
    return str(row[0]) if row and row[0] else ""


def _judge_failure(where: Address, reason: str) -> Iterator[Finding]:
    if isinstance(where, Path):
        yield from judge_failure(where, reason)
        return
    yield fault(
        f"{where} cannot be used: {reason}",
        "see that the database runs, and that address, user, password and rights are right (docs/operations.md)",
    )
