"""``put`` and ``get``: files and folders to a server and back."""

import json
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from filestored.cli.connection import Where, asks_server, require_duration, require_hashes, require_not_empty
from filestored.cli.defaults import value_option
from filestored.cli.manifests import ManifestFile, manifest_file, read_manifest, regular
from filestored.cli.progress import Report, in_background, reporting
from filestored.cli.terminal import checksum_line, standard_input, standard_output
from filestored.client.errors import ClientError, LocalFault, NotAllowed, SourceChanged, Unreachable, shown
from filestored.client.manifest import spelled
from filestored.client.outcomes import Failed, Found, Stored
from filestored.errors import SettingsError

if TYPE_CHECKING:
    from filestored.client import Client
    from filestored.client.manifest import Entry, Manifest
    from filestored.client.records import Received

# what cannot be read is told by whoever opens it, and the others go on
_PATH = click.Path(path_type=str, allow_dash=True, readable=False)
_MOST_JOBS = 64
# how one begins (RFC 9110, 8.3.1); the server looks at its parameters
_MEDIA_TYPE = re.compile(r"\s*[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+\s*(?:;|\Z)", re.ASCII | re.IGNORECASE)

_jobs_option = click.option(
    "--jobs", "-j", metavar="N", type=click.IntRange(1, _MOST_JOBS), default=4, show_default=True,
    help="how many requests are under way at once",
)  # fmt: skip
_json_option = click.option("--json", "as_json", is_flag=True, help="print a JSON object a line")
_quiet_option = click.option("--quiet", "-q", "is_quiet", is_flag=True, help="print failures only")
_progress_option = click.option(
    "--no-progress", "hides_progress", is_flag=True, help="do not show how far it has come, on a terminal"
)


@click.command(
    epilog="Run again, it goes on where it was: what is stored is not sent again. `filestored get --manifest` "
    "makes a folder again."
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_PATH)
@click.option("-r", "is_recursive", is_flag=True, help="send whole folders, and print a manifest (JSON) of them")
@value_option(
    "--manifest", metavar="FILE", type=_PATH, help="write the manifest to a file; - is standard output",
    otherwise="none, with -r standard output",
)  # fmt: skip
@value_option("--name", metavar="NAME", help="store the one file under another name", otherwise="its own")
@value_option("--type", "media_type", metavar="TYPE", help="media type, such as text/plain", otherwise="by the name")
@value_option("--expires-in", metavar="TIME", help="how long it is kept: 90m, 7d", otherwise="for ever")
@_jobs_option
@_json_option
@_quiet_option
@_progress_option
@asks_server
def put(
    where: Where, files: tuple[str, ...], is_recursive: bool, manifest: str | None, name: str | None,
    media_type: str | None, expires_in: str | None, jobs: int, as_json: bool, is_quiet: bool, hides_progress: bool,
) -> int:  # fmt: skip
    """Store files and print their hashes.

    FILE may be -, which is standard input. With -r it may be a folder.
    """
    require_duration("--expires-in", expires_in)
    require_not_empty(("--name", name), ("--type", media_type), ("--manifest", manifest))
    if media_type is not None and not _MEDIA_TYPE.match(media_type):
        raise SettingsError(f"--type {shown(media_type[:100])}: a media type is written as type/subtype, as text/plain")
    if manifest == "-" and as_json:
        raise SettingsError("--manifest - and --json both write to standard output: give the manifest a file")
    if name is not None and (len(files) > 1 or is_recursive):
        raise SettingsError("--name is for one file; it cannot name several")
    if "-" in files and (len(files) > 1 or manifest is not None):
        raise SettingsError("standard input (-) goes alone, and has no place in a manifest; send the others apart")
    if is_recursive and manifest is None and not as_json:
        manifest = "-"
    with (
        where.connected(connections=jobs) as client,
        reporting(is_quiet=is_quiet or hides_progress, as_json=as_json) as report,
    ):
        say = _Saying(client, report, is_quiet=is_quiet, as_json=as_json, is_one=len(files) == 1 and not is_recursive)
        if files == ("-",):
            return _put_stream(client, name, media_type, expires_in, say)
        with manifest_file(manifest) as stream:
            return _put_files(
                client, files, stream, say, is_recursive=is_recursive, jobs=jobs, name=name, media_type=media_type,
                expires_in=expires_in,
            )  # fmt: skip


def _put_stream(
    client: "Client", name: str | None, media_type: str | None, expires_in: str | None, say: "_Saying"
) -> int:
    transfer = say.report.begin("standard input", None)
    try:
        file = client.put(standard_input(), name=name, type=media_type, expires_in=expires_in, progress=transfer.at)
    finally:
        transfer.end()
    say.stored(Stored("-", file.hash, file.size, file.is_new))
    return 0


def _put_files(
    client: "Client", files: tuple[str, ...], stream: ManifestFile | None, say: "_Saying", *, is_recursive: bool,
    jobs: int, **saying: str | None,
) -> int:  # fmt: skip
    from filestored.client.folders import exit_status, find_all, put_all
    from filestored.client.manifest import ManifestWriter

    # asked first: without a server nothing is begun
    algorithm = client.algorithm()
    # a number that is free because it was closed would be that of another file
    left_out = regular(*([] if sys.stdout is None else [1])) | (stream.identities() if stream else set())
    find = partial(find_all, files, is_recursive=is_recursive, leave_out=left_out)
    in_background(lambda: _expect(find(), say.report))
    writer = ManifestWriter(stream.text, algorithm) if stream is not None else None
    is_listed = stream is None or not stream.is_standard
    errors: list[ClientError] = []
    for outcome in put_all(client, find(), jobs=jobs, watch=say.report, **saying):
        if isinstance(outcome, Failed):
            errors = _noted(errors, outcome.error)
            say.failed(outcome)
            continue
        if writer is not None and outcome.entry is not None and outcome.entry.path:
            writer.add(outcome.entry)
        elif writer is not None and isinstance(outcome, Stored):
            reason = "it is stored, but not in the manifest, which has another file of that name"
            fault = Failed(outcome.label, ClientError(reason))
            errors = _noted(errors, fault.error)
            say.failed(fault)
        if isinstance(outcome, Stored) and (say.as_json or not is_recursive) and is_listed:
            say.stored(outcome)
    if writer is not None and stream is not None:
        writer.finish()
        if (warning := stream.finish(is_whole=not errors)) is not None:
            say.report.failure(warning)
    return exit_status(errors)


def _noted(errors: list[ClientError], error: ClientError) -> list[ClientError]:
    """Keep one error of each exit status: there may be any number of them."""
    return errors if any(each.exit_status == error.exit_status for each in errors) else [*errors, error]


def _expect(findings: Iterable[Any], report: Report) -> None:
    """Count what is to come, ahead of the work."""
    if type(report) is Report:
        return
    for finding in findings:
        if isinstance(finding, Found):
            size = 0
            with suppress(OSError):
                size = os.stat(finding.path).st_size
            report.expect(1, size)


class _Saying:
    """How results are printed."""

    def __init__(self, client: "Client", report: Report, *, is_quiet: bool, as_json: bool, is_one: bool) -> None:
        self.report = report
        self.as_json = as_json
        self._url = client.url
        self._is_quiet = is_quiet
        self._is_one = is_one

    def stored(self, outcome: Stored) -> None:
        """Print the hash of a file that is stored."""
        if self.as_json:
            said = {
                **spelled("path", outcome.label), "hash": outcome.hash, "size": outcome.size, "is_new": outcome.is_new,
                "url": f"{self._url}/{outcome.hash}",
            }  # fmt: skip
            self.report.result(json.dumps(said))
        elif self._is_one:
            self.report.result(outcome.hash)
        else:
            self.report.result(checksum_line(outcome.hash, outcome.label))

    def failed(self, outcome: Failed) -> None:
        """Print a line about a file that did not work."""
        says_which = isinstance(outcome.error, LocalFault | SourceChanged)
        reason = str(outcome.error)
        self.report.failure(reason if says_which else f"{shown(outcome.label)}: {reason}")

    def received(self, received: "Received") -> None:
        """Print where a file was written to."""
        path = None if received.path is None else str(received.path)
        if self.as_json:
            said = {
                "hash": received.hash, "size": received.size, "name": received.name, "type": received.type,
                **({"path": None} if path is None else spelled("path", path)),
            }  # fmt: skip
            self.report.result(json.dumps(said))
        elif path is not None and not self._is_quiet:
            self.report.result(path)

    def restored(self, entry: "Entry", was_there: bool) -> None:
        """Print what is in its place again."""
        if self.as_json:
            self.report.result(json.dumps({**spelled("path", entry.path), "was_there": was_there}))


@click.command(
    epilog="What broke off is gone on with when it is called again. Every file is compared with its hash; one that is "
    "there already is left."
)
@click.argument("hashes", nargs=-1, metavar="HASH...")
@value_option(
    "-o", "--output", metavar="PATH", type=_PATH, help="file, or folder, to write to; - is standard output",
    otherwise="its name, in the working folder",
)  # fmt: skip
@value_option("--manifest", metavar="FILE", type=_PATH, help="make a folder again from its manifest; - reads it here")
@click.option("--force", "-f", "replaces", is_flag=True, help="replace other files that are in the place of these")
@_jobs_option
@_json_option
@_quiet_option
@_progress_option
@asks_server
def get(
    where: Where, hashes: tuple[str, ...], output: str | None, manifest: str | None, replaces: bool, jobs: int,
    as_json: bool, is_quiet: bool, hides_progress: bool,
) -> int:  # fmt: skip
    """Fetch files and print where they are.

    With -o - they go to standard output, one after the other.
    """
    require_not_empty(("--output", output), ("--manifest", manifest))
    require_hashes(hashes)
    if bool(hashes) == (manifest is not None):
        raise SettingsError("give the hashes of files, or --manifest FILE to make a folder again")
    if output == "-" and (as_json or manifest is not None):
        raise SettingsError("-o - writes one file after the other, and nothing else, to standard output")
    is_for_folder = len(hashes) > 1 or (output or "").endswith("/")
    if hashes and output not in (None, "-") and is_for_folder and not os.path.isdir(output or ""):
        raise SettingsError(f"-o {shown(str(output))}: there is no folder of that name")
    content = None if manifest is None else read_manifest(manifest)
    with (
        where.connected(connections=jobs) as client,
        reporting(is_quiet=is_quiet or hides_progress, as_json=as_json) as report,
    ):
        say = _Saying(client, report, is_quiet=is_quiet, as_json=as_json, is_one=len(hashes) == 1)
        if content is not None:
            return _get_folder(client, content, output or ".", say, replaces=replaces, jobs=jobs)
        report.expect(len(hashes), 0)
        if output == "-":
            return _get_streams(client, hashes, report)
        return _get_files(client, hashes, output or ".", say, replaces=replaces, jobs=jobs)


def _get_streams(client: "Client", hashes: tuple[str, ...], report: Report) -> int:
    stream = standard_output()
    for file_hash in hashes:
        transfer = report.begin(file_hash, None)
        try:
            client.get(file_hash, stream, progress=transfer.at)
        finally:
            transfer.end()
    return 0


def _get_files(
    client: "Client", hashes: tuple[str, ...], output: str, say: _Saying, *, replaces: bool, jobs: int
) -> int:
    from filestored.client.folders import exit_status
    from filestored.client.ordered import in_order

    def fetch(file_hash: str) -> "Received | Failed":
        transfer = say.report.begin(file_hash, None)
        try:
            return client.get(file_hash, output, replace=replaces, progress=transfer.at)
        except (Unreachable, NotAllowed):
            raise
        except ClientError as error:
            return Failed(file_hash, error)
        finally:
            transfer.end()

    errors: list[ClientError] = []
    for outcome in in_order(fetch, hashes, threads=min(jobs, len(hashes))):
        if isinstance(outcome, Failed):
            errors.append(outcome.error)
            # the hash is in the sentence, where there are several
            say.report.failure(str(outcome.error))
        else:
            say.received(outcome)
    return exit_status(errors)


def _get_folder(client: "Client", manifest: "Manifest", folder: str, say: _Saying, *, replaces: bool, jobs: int) -> int:
    from filestored.client.folders import exit_status
    from filestored.client.manifest import FileEntry
    from filestored.client.restoring import restore

    files = [entry for entry in manifest.entries if isinstance(entry, FileEntry)]
    if files:
        # asked first: without a server nothing is begun
        client.algorithm()
    say.report.expect(len(files), sum(entry.size for entry in files))
    errors: list[ClientError] = []
    for outcome in restore(client, manifest, folder, jobs=jobs, replace_others=replaces, watch=say.report):
        if isinstance(outcome, Failed):
            errors = _noted(errors, outcome.error)
            say.failed(outcome)
        elif outcome.entry is not None:
            say.restored(outcome.entry, getattr(outcome, "was_there", False))
    return exit_status(errors)
