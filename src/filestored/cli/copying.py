"""``copy-store``: one store into another, each a folder, a bucket or a server, verified and resumable."""

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from filestored import daemon
from filestored.blobs.address import BucketAddress, is_bucket
from filestored.blobs.layout import StoreFolder, is_laid_out_as_store
from filestored.blobs.opening import adopt_blobs, has_blobs, open_blobs, read_mark
from filestored.blobs.ownership import require_owner
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.cli.defaults import value_option
from filestored.cli.stores import last_catalogue, open_filestore
from filestored.cli.telling import tell
from filestored.cli.watching import Progress, printable, told_to_stop
from filestored.client.servers import read_servers, read_token, require_token, require_url, servers_file
from filestored.client.traces import state_folder
from filestored.copying.copier import Copy, Finding, Totals
from filestored.copying.entries import Destination, Origin
from filestored.copying.folders import FolderDestination, FolderOrigin
from filestored.copying.ledger import Ledger
from filestored.copying.takeover import Access, TakeOver
from filestored.digest import Algorithm
from filestored.errors import FilestoredError, SettingsError, StartError
from filestored.importing.underway import UnderWay
from filestored.recovery import STORE_NOTE, require_not_anew
from filestored.settings import load_only

if TYPE_CHECKING:
    from filestored.client import Client

_INTERRUPTED = 130
_SHOWN_EVERY_SECONDS = 0.5
_NOT_BY_HTTP = {
    (True, False): "owners and times of upload, tokens, the key of links",
    (False, True): "tokens, the key of links, blobs without a file",
    (False, False): "owners and times of upload, tokens, the key of links, blobs without a file",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A side of a copy, as it was given: a folder, a bucket, or a server's address with what is sent to it."""

    said: str
    url: str | None = None
    token: str | None = None
    ca_file: Path | None = None
    catalogue: str | None = None
    bucket: BucketAddress | None = None
    spool: Path | None = None

    @property
    def path(self) -> Path:
        return Path(os.path.abspath(self.said))

    @property
    def identity(self) -> str:
        return self.url or str(self.bucket or self.path)

    @contextmanager
    def connected(self) -> Iterator["Client"]:
        """Open a client of the server."""
        # only here: copying between folders needs none of the client's libraries
        from filestored.client import Client

        with Client(self.url or "", self.token, verify=str(self.ca_file) if self.ca_file else True) as client:
            yield client


@click.command(
    "copy-store",
    epilog="FROM and TO are folders, buckets (s3://…), addresses, or names of `filestored server list`. "
    "Exit status 0 when the target has everything, 1 when it has not, 5 when a server cannot be reached, 130 when "
    "interrupted; called again it goes on.",
)
@click.argument("origin", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--verify", is_flag=True, help="re-read what the target has already, too")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a line, the last one being the summary")
@value_option(
    "--from-token-file", metavar="FILE", type=Path, help="the source's token", variable="FILESTORED_FROM_TOKEN"
)
@value_option("--to-token-file", metavar="FILE", type=Path, help="the target's token", variable="FILESTORED_TO_TOKEN")
@value_option("--from-catalogue", metavar="URL", help="of a source folder or bucket", otherwise="where it was last")
@value_option("--to-catalogue", metavar="URL", help="of a target folder or bucket", otherwise="where it was last")
@value_option("--from-spool", metavar="FOLDER", type=Path, help="of a daemon on this machine whose store is the source")
@value_option("--to-spool", metavar="FOLDER", type=Path, help="of a target bucket", otherwise="./spool")
@value_option("--from-endpoint", metavar="URL", help="of a source bucket", variable="FILESTORED_BUCKET_ENDPOINT")
@value_option("--to-endpoint", metavar="URL", help="of a target bucket", variable="FILESTORED_BUCKET_ENDPOINT")
@value_option("--from-region", metavar="TEXT", help="of a source bucket", variable="FILESTORED_BUCKET_REGION")
@value_option("--to-region", metavar="TEXT", help="of a target bucket", variable="FILESTORED_BUCKET_REGION")
def copy_store(
    origin: str, target: str, verify: bool, as_json: bool, from_token_file: Path | None, to_token_file: Path | None,
    from_catalogue: str | None, to_catalogue: str | None, from_spool: Path | None, to_spool: Path | None,
    from_endpoint: str | None, to_endpoint: str | None, from_region: str | None, to_region: str | None,
) -> int:  # fmt: skip
    """Copy a store: every byte hashed and compared, what is there already left.

    Between folders and buckets everything goes over, so that the copy can take the source's place: owners, names,
    times, tokens, links. To and from a server, what HTTP allows.
    """
    source = _place(origin, from_token_file, "FILESTORED_FROM_TOKEN", from_catalogue)
    source = _in_bucket(source, "from", from_spool, from_endpoint, from_region)
    sink = _place(target, to_token_file, "FILESTORED_TO_TOKEN", to_catalogue)
    sink = _in_bucket(sink, "to", to_spool, to_endpoint, to_region)
    _require_apart(source, sink)
    work = _Work(source, sink, _Output(as_json), verify=verify)
    return asyncio.run(work.run())


def _place(said: str, token_file: Path | None, variable: str, catalogue: str | None) -> _Place:
    """Read what was given for a side. Raises SettingsError."""
    token = read_token(token_file) if token_file else None
    if token is None and os.environ.get(variable):
        token = require_token(os.environ[variable], variable)
    if said.startswith(("http://", "https://")):
        return _Place(said, require_url(said, said), token)
    if "/" not in said and not os.path.exists(said):
        server = read_servers(servers_file(os.environ)).by_name.get(said)
        if server is not None:
            return _Place(said, server.url, token or server.read_token(), server.ca_file)
    return _Place(said, catalogue=catalogue)


def _in_bucket(place: _Place, side: str, spool: Path | None, endpoint: str | None, region: str | None) -> _Place:
    """Return a side, ``from`` or ``to``, with what there is to know of its bucket, if any. Raises SettingsError."""
    if not is_bucket(place.said):
        given = {"spool": spool, "endpoint": endpoint, "region": region}
        vain = next((name for name, value in given.items() if value is not None), None)
        if vain is not None:
            raise SettingsError(f"--{side}-{vain} is for a bucket, and {place.said} is none")
        return place
    said = {"store": place.said, "bucket_endpoint": endpoint, "bucket_region": region}
    settings = load_only(("store", "bucket_endpoint", "bucket_region", "bucket_path_style"), said, os.environ)
    return replace(place, bucket=settings.bucket, spool=spool)


def _require_apart(source: _Place, sink: _Place) -> None:
    if source.identity == sink.identity:
        raise SettingsError(f"FROM and TO are the same: {source.identity}")
    if not (source.url or source.bucket or sink.url or sink.bucket):
        inner, outer = source.path.resolve(), sink.path.resolve()
        if inner == outer or inner in outer.parents or outer in inner.parents:
            raise SettingsError(f"one of {inner} and {outer} lies in the other")


class _Work:
    """One copy, from opening both sides to the summary."""

    def __init__(self, source: _Place, sink: _Place, output: "_Output", *, verify: bool) -> None:
        self._source = source
        self._sink = sink
        self._output = output
        self._verify = verify
        self._totals = Totals()
        self._access = Access()
        self._has_begun = False

    async def run(self) -> int:
        """Do it; return the exit status."""
        began = time.monotonic()
        self._under_way = UnderWay()
        is_finished = False
        fault: FilestoredError | None = None
        showing = asyncio.create_task(self._show())
        try:
            with ExitStack() as held, told_to_stop(self._under_way.stop):
                is_finished = await self._copy(held)
        except OSError as error:
            fault = StartError(f"a store cannot be used: {error.strerror or error}")
        except FilestoredError as error:
            fault = error
        finally:
            showing.cancel()
            self._under_way.close()
        if fault is not None and not self._has_begun:
            raise fault
        kept_apart = _NOT_BY_HTTP.get((self._source.url is None, self._sink.url is None))
        self._output.sum_up(self._totals, self._access, kept_apart, time.monotonic() - began)
        return self._end(fault, is_finished=is_finished)

    def _end(self, fault: FilestoredError | None, *, is_finished: bool) -> int:
        if fault is not None:
            tell(f"{printable(str(fault).rstrip('.'))}; the same command goes on from here")
            return int(getattr(fault, "exit_status", 1))
        if not is_finished:
            tell("interrupted; the same command goes on from here")
            return _INTERRUPTED
        return 0 if self._totals.is_all_well else 1

    async def _copy(self, held: ExitStack) -> bool:
        with _told_with_options_of("from"):
            origin = self._open_origin(held)
        if self._sink.url is not None:
            ledger = held.enter_context(Ledger(self._ledger_path(state_folder().parent)))
            destination = self._server_destination(held, ledger)
            return await self._bring(origin, destination, ledger)
        with _told_with_options_of("to"):
            folder = self._target_folder(origin)
            where = _catalogue_of(self._sink, folder)
            filestore = held.enter_context(open_filestore({}, folder, where))
        catalogue = Catalogue(where, durable=True)
        held.callback(catalogue.close)
        ledger = held.enter_context(Ledger(self._ledger_path(folder.private)))
        access = self._take_over(origin, catalogue, ledger)
        if access:
            with closing(open_blobs(folder)) as blobs:
                access.begin(blobs)
        destination = FolderDestination(folder, filestore, catalogue, self._under_way, self._totals.add_read)
        held.callback(destination.close)
        is_finished = await self._bring(origin, destination, ledger)
        # by now the copied blobs may be named by more
        adopt_blobs(folder)
        if access:
            self._access = access.run()
            filestore.shared.tokens[0] = time.time_ns()
        return is_finished

    async def _bring(self, origin: Origin, destination: Destination, ledger: Ledger) -> bool:
        self._has_begun = True
        return await Copy(
            origin, destination, ledger, self._under_way, self._totals, verify=self._verify, told=self._output.tell
        ).run()

    def _take_over(self, origin: Origin, catalogue: Catalogue, ledger: Ledger) -> TakeOver | None:
        if not isinstance(origin, FolderOrigin) or origin.catalogue is None:
            return None
        return TakeOver(origin.catalogue, catalogue, ledger, told=self._output.tell)

    def _open_origin(self, held: ExitStack) -> Origin:
        if self._source.url is not None:
            from filestored.copying.servers import ServerOrigin

            return ServerOrigin(held.enter_context(self._source.connected()))
        if self._source.bucket is not None:
            origin = self._bucket_origin(held, self._source.bucket)
        else:
            folder = _source_folder(self._source)
            is_marked = _is_marked(folder.path)
            catalogue = self._source_catalogue(held, folder, daemon.running(folder.path)) if is_marked else None
            origin = FolderOrigin(folder, catalogue, folder.algorithms() if catalogue else ())
        held.callback(origin.close)
        return origin

    def _bucket_origin(self, held: ExitStack, bucket: BucketAddress) -> FolderOrigin:
        """Open a bucket that is copied; without a spool that it has here, one that is gone afterwards."""
        mark = read_mark(bucket)
        algorithms = mark.known() if mark else []
        own = self._source.spool if mark else None
        spool = own or Path(held.enter_context(TemporaryDirectory(prefix="filestored-"))) / "spool"
        folder = StoreFolder.find(spool, algorithms[-1] if algorithms else Algorithm.SHA256, bucket)
        if mark is None:
            if not has_blobs(folder):
                raise StartError(f"there is no store at {bucket}")
            return FolderOrigin(folder, None)
        if self._source.catalogue is None and self._source.spool is None:
            raise StartError(
                f"name the catalogue of {bucket} with --from-catalogue, or with --from-spool the spool of a daemon"
            )
        # daemons on any machine may be using it
        catalogue = self._source_catalogue(held, folder, is_in_use=True)
        if catalogue.note(STORE_NOTE) != mark.id:
            raise StartError(f"the catalogue given for {bucket} is that of another store")
        return FolderOrigin(folder, catalogue, algorithms)

    def _source_catalogue(self, held: ExitStack, folder: StoreFolder, is_in_use: object) -> Catalogue:
        where = _catalogue_of(self._source, folder)
        if isinstance(where, Path) and not where.is_file():
            raise StartError(
                f"the catalogue {where} of {self._source.said} is not there; name it with --from-catalogue"
            )
        Catalogue.prepare(where, may_change=not is_in_use)
        catalogue = Catalogue(where, durable=True)
        held.callback(catalogue.close)
        return catalogue

    def _server_destination(self, held: ExitStack, ledger: Ledger) -> Destination:
        from filestored.copying.servers import ServerDestination

        client = held.enter_context(self._sink.connected())
        return ServerDestination(client, ledger, self._under_way, self._totals.add_read)

    def _target_folder(self, origin: Origin) -> StoreFolder:
        """Return the store that is copied into. A new one names its blobs as the source does."""
        if self._sink.bucket is not None:
            return self._target_bucket(origin, self._sink.bucket)
        path = self._sink.path
        require_owner(path)
        if path.is_dir() and any(path.iterdir()):
            folder = StoreFolder.find(path, Algorithm.SHA256)
        else:
            default = load_only(("hash",), {}, os.environ).hash
            folder = StoreFolder.adopt(path, origin.algorithms[-1] if origin.algorithms else default)
        folder.record_algorithms(origin.algorithms)
        return folder

    def _target_bucket(self, origin: Origin, bucket: BucketAddress) -> StoreFolder:
        spool = (
            Path(os.path.abspath(self._sink.spool)) if self._sink.spool else load_only(("spool",), {}, os.environ).spool
        )
        require_owner(spool)
        mark = read_mark(bucket)
        StoreFolder.require(spool, Algorithm.SHA256, bucket)
        require_not_anew(bucket, _catalogue_of(self._sink, StoreFolder(spool, Algorithm.SHA256, bucket)))
        named = mark.known() if mark else origin.algorithms
        folder = StoreFolder.find(spool, named[-1] if named else load_only(("hash",), {}, os.environ).hash, bucket)
        folder.record_algorithms(origin.algorithms)
        adopt_blobs(folder)
        return folder

    def _ledger_path(self, beside: Path) -> Path:
        """Return the ledger's path: the same for the same two stores."""
        pair = json.dumps([self._source.identity, self._sink.identity if self._sink.url else ""])
        return beside / "copies" / f"{hashlib.sha256(pair.encode()).hexdigest()[:16]}.sqlite3"

    async def _show(self) -> None:
        while True:
            totals = self._totals
            done = totals.copied + totals.updated + totals.present
            self._output.progress.show(f"{done} blobs, {totals.copied_bytes} bytes copied, {totals.read_bytes} read")
            await asyncio.sleep(_SHOWN_EVERY_SECONDS)


@contextmanager
def _told_with_options_of(side: str) -> Iterator[None]:
    """Have what is wrong with a side, ``from`` or ``to``, name the options that this command has for it."""
    try:
        yield
    except StartError as error:
        raise StartError(re.sub(r"--(?=(?:catalogue|spool)\b)", f"--{side}-", str(error))) from error


def _is_marked(path: Path) -> bool:
    return (path / ".filestored" / "format.json").is_file()


def _source_folder(source: _Place) -> StoreFolder:
    """Return the store that is copied. One that another program left is read as it is, and not marked."""
    path = source.path
    if _is_marked(path):
        return StoreFolder.find(path, Algorithm.SHA256)
    if path.is_dir() and is_laid_out_as_store(path):
        return StoreFolder(path, Algorithm.SHA256)
    raise StartError(f"there is no store at {path}, and no server is called so")


def _catalogue_of(place: _Place, folder: StoreFolder) -> Address:
    """Return a store's catalogue: the one given, else the one it was last started with. Never by a variable."""
    given = load_only(("catalogue",), {"catalogue": place.catalogue}, {}).catalogue_address
    return given or last_catalogue(folder)


class _Output:
    """What the command prints: sentences, or JSON."""

    def __init__(self, as_json: bool) -> None:
        self.progress = Progress()
        self._as_json = as_json

    def tell(self, finding: Finding) -> None:
        """Print a finding."""
        if self._as_json:
            fields = asdict(finding)
            self.progress.print(json.dumps({"name": fields.pop("name"), **fields}))
        elif finding.state == "renamed":
            self.progress.print(f"{finding.name} -> {finding.hash}")
        else:
            self.progress.print(printable(f"{finding.name or '.'} {finding.state}: {finding.reason}"))

    def sum_up(self, totals: Totals, access: Access, kept_apart: str | None, seconds: float) -> None:
        """Print the summary."""
        if self._as_json:
            summary = {**asdict(totals), **asdict(access), "not_kept": kept_apart, "seconds": round(seconds, 3)}
            self.progress.print(json.dumps(summary))
            return
        verified = f"verified: {totals.verified}, healed: {totals.healed}; " if totals.verified or totals.healed else ""
        skipped = f"; no blobs: {totals.skipped}" if totals.skipped else ""
        gone = f"; gone at the source: {totals.gone}" if totals.gone else ""
        lost = f"; not kept: {kept_apart}" if kept_apart else f"; tokens: {access.tokens}"
        self.progress.print(
            f"copied: {totals.copied} blobs, {totals.copied_bytes} bytes; updated: {totals.updated}; there already: "
            f"{totals.present}; {verified}damaged: {totals.damaged}; missing: {totals.missing}; failed: "
            f"{totals.failed}{skipped}{gone}{lost}; {seconds:.1f} seconds"
        )
