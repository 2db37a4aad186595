"""Many files and whole folders, to a server: :func:`walk` finds them, :func:`put_all` sends them."""

import os
import re
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from filestored.client.errors import ClientError, LocalFault, shown
from filestored.client.manifest import PERMISSION_BITS, FolderEntry, LinkEntry, leads_out
from filestored.client.outcomes import Failed, Found, Noted, Outcome, Watch
from filestored.client.sending import Saying, Sending

if TYPE_CHECKING:
    from filestored.client import Client

Identity: TypeAlias = tuple[int, int]
"""Device and inode of a file."""

# how many files may be under way or wait for an earlier one: results come in order
_AHEAD = 10_000
# what other runs of get and put have under way beside the files themselves, or left when they were killed
_UNDER_WAY = re.compile(
    r"\.(?:filestored-[a-z0-9_]{8}|filestored-manifest\.[a-z0-9_]{8}|.+\.[0-9a-f]{16}\.part(?:\.[0-9a-f]{16})?)",
    re.DOTALL,
)


Finding: TypeAlias = Found | Noted | Failed


def walk(folder: str, *, below: str = "", leave_out: Collection[Identity] = ()) -> Iterator[Finding]:
    """Find what is in a folder, in order of names, folders before what is in them.

    ``below`` is put before all paths. Symbolic links are never followed; those that lead out of the folder, what is
    no file, folder or link, and what cannot be read are yielded as Failed. The hidden names that downloads and
    manifests have until they are complete are passed over.
    """
    ahead = deque([""])
    while ahead:
        place = ahead.pop()
        path = os.path.join(folder, place)
        try:
            with os.scandir(path) as listing:
                names = sorted(entry.name for entry in listing if not _UNDER_WAY.fullmatch(entry.name))
        except OSError as error:
            yield Failed(path, LocalFault.of(path, error))
            continue
        folders = []
        for name in names:
            inner = f"{place}/{name}" if place else name
            found, is_folder = _look(folder, inner, below, leave_out)
            if found is not None:
                yield found
            if is_folder:
                folders.append(inner)
        ahead.extend(reversed(folders))


def _look(folder: str, place: str, below: str, leave_out: Collection[Identity]) -> tuple[Finding | None, bool]:
    """Return what a name of a folder stands for, and whether it is a folder itself."""
    path = os.path.join(folder, place)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return _look_at_link(folder, place, below, status.st_mtime_ns), False
    except OSError as error:
        return Failed(path, LocalFault.of(path, error)), False
    if stat.S_ISDIR(status.st_mode):
        return Noted(FolderEntry(below + place, status.st_mode & PERMISSION_BITS, status.st_mtime_ns)), True
    if not stat.S_ISREG(status.st_mode):
        return Failed(path, LocalFault(path, "it is no file, folder or link; it is left out")), False
    if (status.st_dev, status.st_ino) in leave_out:
        return None, False
    return Found(path, path, below + place, is_followed=False), False


def _look_at_link(folder: str, place: str, below: str, mtime_ns: int) -> Finding:
    """Return a link that stays in the folder as one. Raises OSError."""
    path = os.path.join(folder, place)
    target = os.readlink(path)

    def target_at(inner: str) -> str | None:
        try:
            return os.readlink(os.path.join(folder, inner))
        except OSError:
            return None

    if leads_out(place, target, target_at):
        return Failed(path, LocalFault(path, f"it is a link out of the folder, to {shown(target)}; it is left out"))
    return Noted(LinkEntry(below + place, target, mtime_ns))


def find_all(paths: Iterable[str], *, is_recursive: bool, leave_out: Collection[Identity] = ()) -> Iterator[Finding]:
    """Find the files that a user names, in order, and with ``is_recursive`` all that is in the folders among them.

    The paths of a manifest are relative to the folder where it is the only one; else each begins with its name.
    """
    named = list(paths)
    taken: set[str] = set()
    for path in named:
        name = os.path.basename(os.path.abspath(path))
        if not os.path.isdir(path):
            yield _once(taken, Found(path, path, name, is_followed=True))
        elif not is_recursive:
            yield Failed(path, LocalFault(path, "it is a folder; use -r to send what is in it"))
        elif len(named) == 1:
            yield from walk(path, leave_out=leave_out)
        elif name in taken:
            yield Failed(path, LocalFault(path, f"there is another {shown(name)}; send them one after the other"))
        else:
            taken.add(name)
            status = os.stat(path)
            yield Noted(FolderEntry(name, status.st_mode & PERMISSION_BITS, status.st_mtime_ns))
            yield from walk(path, below=f"{name}/", leave_out=leave_out)


def _once(taken: set[str], found: Found) -> Found:
    """Give the path in a manifest to the first of that name; there can be only one."""
    if found.place in taken:
        return Found(found.path, found.label, "", found.is_followed)
    taken.add(found.place)
    return found


def put_all(
    client: "Client",
    findings: Iterable[Finding],
    *,
    jobs: int = 4,
    name: str | None = None,
    media_type: str | None = None,
    expires_in: str | None = None,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """Send files and yield what came of each, in order; folders, links and failures pass through.

    What is stored already is not sent again, so that the same call goes on with what was interrupted. Small files go
    many in a request, ``jobs`` requests at a time. Memory does not grow with the number of files. What is said in
    ``name``, ``media_type`` and ``expires_in`` (like ``7d``) goes for all. Raises what makes all others fail too:
    Unreachable, NotAllowed, and TooMuch where the server's disk is full.
    """
    sending = Sending(client, Saying(name, media_type, expires_in), jobs=jobs, watch=watch or Watch())
    window: deque[Outcome | int] = deque()
    with sending:
        for finding in findings:
            window.append(sending.add(finding) if isinstance(finding, Found) else finding)
            yield from _over(sending, window, at_most=_AHEAD)
        sending.finish()
        yield from _over(sending, window, at_most=0)


def _over(sending: Sending, window: "deque[Outcome | int]", at_most: int) -> Iterator[Outcome]:
    """Yield what is over at the beginning of the window; wait where more than ``at_most`` are in it."""
    while window:
        first = window[0]
        outcome = sending.outcome(first, wait=len(window) > at_most) if isinstance(first, int) else first
        if outcome is None:
            return
        window.popleft()
        yield outcome


def exit_status(errors: Iterable[ClientError]) -> int:
    """Return what a command ends with after these errors: their status where it is one, else 1; 0 without any."""
    statuses = {error.exit_status for error in errors}
    return statuses.pop() if len(statuses) == 1 else int(bool(statuses))
