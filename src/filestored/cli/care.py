"""``scrub``, ``reindex``, ``gc``: care of a store, beside a running daemon or without one."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict

import click

from filestored import daemon
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.cli.stores import (
    Flags,
    find_catalogue,
    find_store_folder,
    log_to_store,
    open_catalogue,
    require_no_lost_catalogue,
    store_options,
)
from filestored.cli.telling import tell
from filestored.cli.watching import Progress
from filestored.errors import SettingsError, StartError
from filestored.exclusion import only_one
from filestored.quantities import parse_size
from filestored.recovery import settle_loss
from filestored.reindex import Reindex
from filestored.scrub import Finding, Scrub
from filestored.upkeep import STALE_SECONDS, Removed, clear_staging, collect

_INTERRUPTED = 130


@click.command(
    epilog="Exit status 0 when all is well, 1 when anything is damaged or missing, 130 when it was interrupted."
)
@click.option(
    "--rate", metavar="SIZE", default="100MiB", show_default=True, help="bytes to read a second; none for no limit"
)
@click.option("--restart", is_flag=True, help="begin anew, also where a scrub was interrupted")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a line, the last one being the summary")
@store_options
def scrub(rate: str, restart: bool, as_json: bool, **flags: str | None) -> int:
    """Re-read all blobs and compare each with its name.

    A damaged one is moved to quarantine. What was interrupted goes on where it stopped.
    """
    bytes_a_second = _parse_rate(rate)
    with _opened(flags) as (folder, catalogue), only_one(folder, catalogue) as go_on, _told_by_signals() as pause:
        began = time.monotonic()
        progress = Progress()

        def watch() -> None:
            go_on()
            progress.show(_how_far(work))

        work = Scrub(
            folder, catalogue, rate=bytes_a_second, pause=pause, watch=watch,
            found=lambda finding: progress.print(_described(finding) if as_json else str(finding)),
        )  # fmt: skip
        with closing(work):
            is_finished = work.run(restart=restart)
        seconds = time.monotonic() - began
        progress.print(_summary(work, seconds) if as_json else _sentence(work, seconds))
    if not is_finished:
        tell("interrupted; the next scrub goes on from here")
        return _INTERRUPTED
    return 1 if work.state.damaged or work.state.missing else 0


def _parse_rate(text: str) -> int | None:
    """Return bytes a second, None for no limit. Raises SettingsError."""
    if text == "none":
        return None
    try:
        rate = parse_size(text)
    except ValueError as error:
        raise SettingsError(f"--rate {text}: {error}, or none") from None
    if rate == 0:
        raise SettingsError("--rate must be more than nothing, for example 100MiB, or none for no limit")
    return rate


@contextmanager
def _told_by_signals() -> Iterator[Callable[[float], bool]]:
    """Hold SIGINT and SIGTERM back; give what waits for so many seconds and tells whether one of them has come.

    Nothing is left half done: a signal counts only where the work looks for it.
    """
    # a shell has background jobs ignore Ctrl-C, which means others
    ours = {each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield lambda seconds: signal.sigtimedwait(ours, seconds) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_far(work: Scrub) -> str:
    # digests lie evenly between 000… and fff…
    share = int(work.state.position[:4] or "0", 16) / 16**4
    return f"{share:6.1%}  {work.state.verified_blobs} blobs, {work.state.verified_bytes} bytes"


def _described(finding: Finding) -> str:
    moved_to = None if finding.moved_to is None else str(finding.moved_to)
    return json.dumps({
        "hash": finding.name, "state": finding.state, "reason": finding.reason, "moved_to": moved_to
    })  # fmt: skip


def _summary(work: Scrub, seconds: float) -> str:
    run = {"read_bytes": work.read_bytes, "others": work.others, "seconds": round(seconds, 3)}
    return json.dumps({**asdict(work.state), **run})


def _sentence(work: Scrub, seconds: float) -> str:
    state = work.state
    others = f"left alone, since they are no blobs: {work.others} of the names in the store\n" if work.others else ""
    return (
        f"{others}verified: {state.verified_blobs} blobs, {state.verified_bytes} bytes; damaged: {state.damaged}; "
        f"missing: {state.missing}; {seconds:.1f} seconds"
    )


@click.command(epilog="It reads no bytes: whether a blob is what its name says is for scrub to find out.")
@click.option(
    "--take-over", is_flag=True, help="of a bucket: have this catalogue keep it, in place of one that is lost"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON, sizes in bytes")
@store_options
def reindex(take_over: bool, as_json: bool, **flags: str | None) -> int:
    """Give every blob that the catalogue does not know a file without owner."""
    failures = 0

    def failed(shard: str, error: OSError) -> None:
        nonlocal failures
        failures += 1
        tell(f"the folder {shard} cannot be listed: {error.strerror or error}")

    with _opened(flags, take_over=take_over, mends_loss=True) as (folder, catalogue):
        work = Reindex(folder, catalogue, failed=failed)
        work.run()
        if not failures:
            settle_loss(catalogue)
    if as_json:
        click.echo(json.dumps({"added": work.added, "added_bytes": work.added_bytes, "blobs": work.blobs}))
    else:
        click.echo(f"added: {work.added} files without owner, {work.added_bytes} bytes; blobs: {work.blobs}")
    return 1 if failures else 0


@click.command(epilog="A blob that the catalogue does not know is never removed.")
@click.option("--json", "as_json", is_flag=True, help="print JSON, sizes in bytes")
@store_options
def gc(as_json: bool, **flags: str | None) -> int:
    """Remove what has expired, abandoned uploads, and temporary files that belong to none."""
    with _opened(flags) as (folder, catalogue):
        collected = collect(folder, catalogue)
        staged = _clear_staging(folder)
    freed = collected.blobs.bytes + collected.uploads.bytes + staged.bytes
    if as_json:
        counts = {"files": collected.files, "blobs": collected.blobs.count, "uploads": collected.uploads.count}
        counts["temporary_files"] = staged.count
        click.echo(json.dumps({**counts, "freed_bytes": freed, "stuck_blobs": collected.stuck}))
    else:
        click.echo(
            f"removed: {collected.files} expired files, {collected.blobs.count} blobs, {collected.uploads.count} "
            f"abandoned uploads, {staged.count} temporary files; freed: {freed} bytes"
        )
    if collected.stuck:
        raise StartError(f"{collected.stuck} deleted blobs cannot be removed; {folder.log_file} says why")
    return 0


def _clear_staging(folder: StoreFolder) -> Removed:
    """Remove all temporary files where no daemon runs, else those that nothing has written to for long."""
    try:
        # held meanwhile: a daemon that starts now must not lose its first upload
        with daemon.StoreLock.take(folder.pid_file):
            return clear_staging(folder, 0)
    except StartError:
        return clear_staging(folder, STALE_SECONDS)


@contextmanager
def _opened(
    flags: Flags, *, take_over: bool = False, mends_loss: bool = False
) -> Iterator[tuple[StoreFolder, Catalogue]]:
    """Open a store and its catalogue; what is logged meanwhile goes to the store's log, as a daemon's lines do.

    For ``take_over`` see ``recovery.claim``, for ``mends_loss`` ``open_catalogue``.
    """
    folder = find_store_folder(flags, take_over=take_over)
    require_no_lost_catalogue(find_catalogue(flags, folder), folder)
    log_to_store(folder)
    with open_catalogue(flags, folder, take_over=take_over, mends_loss=mends_loss) as catalogue:
        yield folder, catalogue
