"""``import``: files from elsewhere into a store, with proof, beside a running daemon or without one."""

import asyncio
import hashlib
import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from filestored.access import ANONYMOUS, is_token_name
from filestored.cli.defaults import value_option
from filestored.cli.stores import find_catalogue, make_store_folder, open_filestore, store_options
from filestored.cli.telling import tell
from filestored.cli.watching import Progress, printable, told_to_stop
from filestored.errors import FilestoredError, SettingsError, StartError
from filestored.importing.blobs import StoreSource
from filestored.importing.detection import KINDS, find_source, identify
from filestored.importing.importer import Import, Totals
from filestored.importing.report import Entry, Report
from filestored.importing.source import Item, Left, Source
from filestored.settings import find_store

if TYPE_CHECKING:
    from filestored.blobs.layout import StoreFolder
    from filestored.filestore import Filestore

_INTERRUPTED = 130
_BETTER_COPIED = (
    "the source is a store of filestored: import takes its blobs alone, also those that have expired; "
    "copy-store brings names, owners and times too"
)
_SHOWN_EVERY_SECONDS = 0.5


@click.command(
    "import",
    epilog="Exit status 0 when everything is in the store, 1 when something is not, 130 when it was interrupted; "
    "called again it goes on.",
)
@click.argument("source")
@value_option("--from", "kind", type=click.Choice(KINDS), help="what SOURCE is", otherwise="told by looking")
@click.option("--owner", metavar="NAME", default=ANONYMOUS, show_default=True, help="whose files they become")
@value_option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="file that the report is written to",
    otherwise="one in the store's .filestored/imports/",
)  # fmt: skip
@value_option("--endpoint", metavar="URL", help="of an S3 server that is not Amazon's: http://localhost:9000")
@value_option("--region", metavar="NAME", help="of a bucket")
@click.option("--ignore-etags", is_flag=True, help="of a bucket whose ETags are no MD5: encrypted by SSE-KMS or SSE-C")
@click.option("--dry-run", is_flag=True, help="say what would be imported, and change nothing")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a line, the last one being the summary")
@store_options
def import_(
    source: str, kind: str | None, owner: str, report: Path | None, endpoint: str | None, region: str | None,
    ignore_etags: bool, dry_run: bool, as_json: bool, **flags: str | None,
) -> int:  # fmt: skip
    """Import files from SOURCE: a folder, a store, s3://bucket/prefix, transfer.sh's or filebrowser's folder.

    Names, types and times are kept, every byte is hashed and compared. A report says what became of each file.
    """
    if owner != ANONYMOUS and not is_token_name(owner):
        raise SettingsError(f"--owner {owner}: it is the name of a token, or {ANONYMOUS}")
    files = find_source(
        source, kind, find_store(flags, os.environ), report=report, endpoint=endpoint, region=region,
        compare_etags=not ignore_etags,
    )  # fmt: skip
    if isinstance(files, StoreSource) and files.is_of_filestored:
        tell(_BETTER_COPIED)
    output = _Output(as_json)
    if dry_run:
        return _try_out(files, output)
    folder = make_store_folder(flags)
    where = identify(source)
    path = report or _default_report(folder, where, files.kind, owner)
    # the report first: of two imports of the same the second is told so, whatever the first does to the catalogue
    with Report(path, source=where, kind=files.kind, owner=owner) as written:
        with open_filestore(flags, folder, find_catalogue(flags, folder)) as filestore:
            return asyncio.run(_run(filestore, files, written, owner, output))


async def _run(filestore: "Filestore", files: Source, report: Report, owner: str, output: "_Output") -> int:
    began = time.monotonic()
    work = Import(filestore, files, report, owner, told=output.tell)
    showing = asyncio.create_task(_show(output, work.totals))
    fault: FilestoredError | None = None
    is_finished = False
    try:
        with told_to_stop(work.stop):
            is_finished = await work.run()
    except OSError as error:
        fault = StartError(f"source or report ({report.path}) cannot be used: {error.strerror or error}")
    except FilestoredError as error:
        fault = error
    finally:
        showing.cancel()
    output.sum_up(work.totals, files.kind, report.path, time.monotonic() - began)
    return _end(work, is_finished, fault)


def _end(work: Import, is_finished: bool, fault: FilestoredError | None) -> int:
    """Say why it has not come to the end, and how to go on; return the exit status."""
    if fault is not None:
        tell(f"{printable(str(fault).rstrip('.'))}; the same command goes on from here")
        return 1
    if not is_finished:
        tell("interrupted; the same command goes on from here")
        return _INTERRUPTED
    return 1 if work.totals.failed else 0


def _try_out(files: Source, output: "_Output") -> int:
    """Say what would be imported."""
    count = size = left = 0
    has_faults = False
    for each in files:
        if isinstance(each, Item):
            count, size = count + 1, size + each.size
            if each.note:
                output.tell(Entry(each.key, each.size, None, None, None, "noted", each.note))
        elif isinstance(each, Left):
            left, has_faults = left + 1, has_faults or each.is_fault
            state = "failed" if each.is_fault else "skipped"
            output.tell(Entry(each.key, each.size, None, None, None, state, each.reason))
    output.sum_up_trial(files.kind, count, size, left)
    return 1 if has_faults else 0


def _default_report(folder: "StoreFolder", where: str, kind: str, owner: str) -> Path:
    """Return the report's path in the store: the same for the same source, kind and owner."""
    told_apart = hashlib.sha256(json.dumps([where, kind, owner]).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", where.rpartition("/")[2])[:40]
    return folder.private / "imports" / f"{kind}-{readable}-{told_apart}.jsonl"


class _Output:
    """What the command prints: sentences, or JSON."""

    def __init__(self, as_json: bool) -> None:
        self.progress = Progress()
        self._as_json = as_json

    def tell(self, entry: Entry) -> None:
        """Print what became of an item."""
        if self._as_json:
            self.progress.print(json.dumps(asdict(entry)))
        else:
            self.progress.print(printable(f"{entry.source or '.'}: {entry.state}: {entry.reason}"))

    def sum_up(self, totals: Totals, kind: str, report: Path, seconds: float) -> None:
        """Print the summary."""
        if self._as_json:
            summary = {"kind": kind, **asdict(totals), "report": str(report), "seconds": round(seconds, 3)}
            self.progress.print(json.dumps(summary))
            return
        self.progress.print(
            f"{kind}: {totals.new} new ({totals.new_bytes} bytes), {totals.known} known already, {totals.unchanged} "
            f"imported earlier, {totals.skipped} skipped, {totals.failed} failed; {totals.read_bytes} bytes read and "
            f"proved; {seconds:.1f} seconds; report: {printable(str(report))}"
        )

    def sum_up_trial(self, kind: str, count: int, size: int, left: int) -> None:
        """Print what would be imported, in sum."""
        if self._as_json:
            self.progress.print(json.dumps({"kind": kind, "files": count, "bytes": size, "skipped": left}))
        else:
            self.progress.print(f"{kind}: {count} files, {size} bytes would be imported, {left} skipped")


async def _show(output: _Output, totals: Totals) -> None:
    while True:
        done = totals.new + totals.known + totals.unchanged
        output.progress.show(f"{done} files, {totals.read_bytes} bytes read, {totals.failed} failed")
        await asyncio.sleep(_SHOWN_EVERY_SECONDS)
