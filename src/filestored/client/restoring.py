"""A folder made again from its manifest: :func:`restore`."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from filestored.client.errors import ClientError, Damaged, LocalFault, NotAllowed, Unreachable, shown
from filestored.client.landings import clear_partial
from filestored.client.manifest import Entry, FileEntry, FolderEntry, LinkEntry, Manifest
from filestored.client.ordered import in_order
from filestored.client.outcomes import Failed, Noted, Outcome, Watch
from filestored.digest import Algorithm

if TYPE_CHECKING:
    from filestored.client import Client

SHOWN_SIZE = 256 * 1024
"""From how many bytes on a watcher is told of a download by itself."""

_PIECE = 1024 * 1024
_OWNER_MAY = stat.S_IRWXU


def restore(
    client: "Client",
    manifest: Manifest,
    folder: str,
    *,
    jobs: int = 4,
    replace_others: bool = False,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """Make the files, folders and links of a manifest in ``folder``, and yield what came of each.

    What is in its place already is left there and not fetched again; each content is fetched once. Another file in
    the place of one is an error of that one, unless ``replace_others``. Before anything is written, raises LocalFault
    where a path leads through a link or a file that is there. Raises what makes all others fail too: Unreachable,
    NotAllowed.
    """
    work = _Restoring(client, manifest.algorithm, folder, replace_others, watch or Watch())
    work.require_way(manifest.entries)
    try:
        yield from _restored(work, manifest, jobs)
    finally:
        work.give_back()


def _restored(work: "_Restoring", manifest: Manifest, jobs: int) -> Iterator[Outcome]:
    failed = work.make_folders(manifest.entries)
    yield from failed
    for outcomes in in_order(work.place, _by_content(manifest.entries), threads=jobs):
        yield from outcomes
    for entry in manifest.entries:
        if isinstance(entry, LinkEntry):
            yield work.link(entry)
    # the innermost first: what is done in a folder changes its time
    for entry in reversed(manifest.entries):
        if isinstance(entry, FolderEntry) and not any(entry.path == each.label for each in failed):
            yield work.finish_folder(entry)


def _by_content(entries: Sequence[Entry]) -> list[list[FileEntry]]:
    """Return the files in groups of the same content, in the order of the first of each."""
    groups: dict[str, list[FileEntry]] = {}
    for entry in entries:
        if isinstance(entry, FileEntry):
            groups.setdefault(entry.hash, []).append(entry)
    return list(groups.values())


class _Restoring:
    """The work on one folder. Its methods may be called by several threads."""

    def __init__(self, client: "Client", algorithm: Algorithm, folder: str, replace_others: bool, watch: Watch) -> None:
        self._client = client
        self._algorithm = algorithm
        self._folder = folder
        self._replace_others = replace_others
        self._watch = watch
        self._opened: dict[str, int] = {}

    def _path(self, place: str) -> str:
        return os.path.join(self._folder, place)

    # folders

    def require_way(self, entries: Sequence[Entry]) -> None:
        """Raise LocalFault unless every folder on the way to an entry is one already, or nothing yet."""
        for place in _folders_of(entries):
            path = self._path(place)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue
            except OSError as error:
                raise LocalFault.of(path, error) from None
            if not stat.S_ISDIR(mode):
                what = "a symbolic link" if stat.S_ISLNK(mode) else "another file"
                raise LocalFault(path, f"{what} is where a folder must be; nothing was written")

    def make_folders(self, entries: Sequence[Entry]) -> list[Failed]:
        """Make all folders that are not there, and let the owner write into those that are."""
        failed: list[Failed] = []
        try:
            os.makedirs(self._folder, exist_ok=True)
        except OSError as error:
            raise LocalFault.of(self._folder, error) from None
        for place in _folders_of(entries):
            path = self._path(place)
            try:
                with suppress(FileExistsError):
                    os.mkdir(path)
                mode = os.lstat(path).st_mode
                if mode & _OWNER_MAY != _OWNER_MAY:
                    self._opened[path] = stat.S_IMODE(mode)
                    os.chmod(path, stat.S_IMODE(mode) | _OWNER_MAY)
            except OSError as error:
                failed.append(Failed(place, LocalFault.of(path, error)))
        return failed

    def finish_folder(self, entry: FolderEntry) -> Outcome:
        """Give a folder its mode and time, once all is in it."""
        path = self._path(entry.path)
        try:
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            os.chmod(path, entry.mode)
        except (OSError, OverflowError) as error:
            return Failed(entry.path, _fault(path, error))
        self._opened.pop(path, None)
        return Noted(entry)

    def give_back(self) -> None:
        """Give those folders their modes back that were there and got none from the manifest."""
        for path, mode in reversed(self._opened.items()):
            with suppress(OSError):
                os.chmod(path, mode)

    # files

    def place(self, entries: list[FileEntry]) -> list[Outcome]:
        """Put one content in all its places: fetch it once at most, and copy it from there."""
        outcomes: list[Outcome] = []
        source: str | None = None
        for entry in entries:
            path = self._path(entry.path)
            try:
                was_there = self._is_there(entry, path)
                if not was_there and source is None:
                    self._fetch(entry, path)
                elif not was_there:
                    self._copy(entry, source or path, path)
                source = source or path
                _finish_file(entry, path)
            except (Unreachable, NotAllowed):
                raise
            except ClientError as error:
                outcomes.append(Failed(entry.path, error))
            except (OSError, OverflowError) as error:
                outcomes.append(Failed(entry.path, _fault(path, error)))
            else:
                outcomes.append(Noted(entry, was_there))
        return outcomes

    def _is_there(self, entry: FileEntry, path: str) -> bool:
        """Tell whether the file is in its place. Raises LocalFault where another is that is not to be replaced."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if stat.S_ISREG(status.st_mode) and status.st_size == entry.size and self._hash(path) == entry.hash:
            clear_partial(Path(path), entry.hash)
            self._watch.done(entry.size)
            return True
        if stat.S_ISDIR(status.st_mode):
            raise LocalFault(path, "a folder is where a file must be")
        if not self._replace_others:
            raise LocalFault(path, "another file is there; --force replaces it")
        if not stat.S_ISREG(status.st_mode):
            os.unlink(path)
        return False

    def _hash(self, path: str) -> str:
        digest = self._algorithm.new()
        with _opened(path) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    def _fetch(self, entry: FileEntry, path: str) -> None:
        if entry.size < SHOWN_SIZE:
            received = self._client.get(entry.hash, path, replace=self._replace_others)
            self._watch.done(entry.size)
        else:
            transfer = self._watch.begin(entry.path, entry.size)
            try:
                received = self._client.get(entry.hash, path, replace=self._replace_others, progress=transfer.at)
            finally:
                transfer.end()
        if received.size != entry.size:
            if not received.was_there:
                os.unlink(path)
            raise _wrong_size(entry, received.size)

    def _copy(self, entry: FileEntry, source: str, path: str) -> None:
        """Copy a file that is in its place to another, under a hidden name first, comparing what was read."""
        digest = self._algorithm.new()
        with _opened(source) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise _wrong_size(entry, size)
            handle, name = tempfile.mkstemp(prefix=".filestored-", dir=os.path.dirname(path))
            try:
                with open(handle, "wb", buffering=0) as copy:
                    while piece := file.read(_PIECE):
                        digest.update(piece)
                        _write(copy.fileno(), piece)
                if digest.hexdigest() != entry.hash:
                    raise Damaged(f"{shown(source)} changed while it was copied to {shown(path)}; run it again")
                os.replace(name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name)
                raise
        self._watch.done(entry.size)

    # links

    def link(self, entry: LinkEntry) -> Outcome:
        """Make a symbolic link, at once where it takes the place of another."""
        path = self._path(entry.path)
        try:
            was_there = self._is_linked(entry, path)
            if not was_there:
                _make_link(entry.target, path)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        except ClientError as error:
            return Failed(entry.path, error)
        except (OSError, OverflowError) as error:
            return Failed(entry.path, _fault(path, error))
        return Noted(entry, was_there)

    def _is_linked(self, entry: LinkEntry, path: str) -> bool:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode) and os.readlink(path) == entry.target:
            return True
        if stat.S_ISDIR(mode):
            raise LocalFault(path, "a folder is where a link must be")
        if not self._replace_others:
            raise LocalFault(path, "another file is there; --force replaces it")
        return False


def _folders_of(entries: Sequence[Entry]) -> list[str]:
    """Return all folders on the way to entries, the outer ones first, each once."""
    folders: dict[str, None] = {}
    for entry in entries:
        place = entry.path if isinstance(entry, FolderEntry) else entry.path.rpartition("/")[0]
        new = []
        while place and place not in folders:
            new.append(place)
            place = place.rpartition("/")[0]
        folders.update(dict.fromkeys(reversed(new)))
    return list(folders)


def _wrong_size(entry: FileEntry, size: int) -> Damaged:
    return Damaged(f"the manifest says that it has {entry.size} bytes, but the file of its hash has {size}")


def _opened(path: str) -> FileIO:
    """Open a file to read it, also one of one's own whose mode forbids that, which it keeps. Raises OSError."""
    try:
        return open(path, "rb", buffering=0)
    except PermissionError:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        os.chmod(path, mode | stat.S_IRUSR)
        try:
            return open(path, "rb", buffering=0)
        finally:
            os.chmod(path, mode)


def _finish_file(entry: FileEntry, path: str) -> None:
    """Give a file its mode and time. Raises OSError, OverflowError."""
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
    os.chmod(path, entry.mode)


def _make_link(target: str, path: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".filestored-", dir=os.path.dirname(path)) as folder:
        name = os.path.join(folder, "link")
        os.symlink(target, name)
        os.replace(name, path)


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _fault(path: str, error: OSError | OverflowError) -> LocalFault:
    if isinstance(error, OSError):
        return LocalFault.of(path, error)
    return LocalFault(path, "its time is none that this system knows")
