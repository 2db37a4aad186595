"""A tree of files, as it lies on the disk; filebrowser's folder, which is one with a database in it."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from filestored.importing.source import Content, FileContent, Item, Left, fit_name, version_of, within_bounds

_BOLT_MAGIC = (0xED0CDAED).to_bytes(4, "little")
# of the file's first page, behind the page's own header
_BOLT_MAGIC_AT = 16
_FILEBROWSER_SETTINGS = frozenset(f".filebrowser.{ending}" for ending in ("json", "toml", "yaml", "yml"))
_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not followed",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FolderSource:
    """All files of a tree, each under the last part of its path."""

    kind = "folder"

    def __init__(self, root: Path, *, store: Path | None = None, report: Path | None = None) -> None:
        """``store`` is what is imported into, ``report`` what is written: left out where they lie inside the tree."""
        self.root = os.fspath(root)
        self._store = store
        self._report = os.path.relpath(os.path.realpath(report), os.path.realpath(root)) if report else None

    def __iter__(self) -> Iterator[Item | Left]:
        for key, status in walk(self.root, leave_out=self._leave_out):
            if isinstance(status, Left):
                yield status
            else:
                reason = "the report of this import" if key == self._report else self._reason_to_leave(key)
                yield Left(key, reason) if reason else self._item(key, status)

    def open(self, item: Item) -> Content:
        """See Source."""
        return FileContent(os.path.join(self.root, item.key), item)

    def _reason_to_leave(self, key: str) -> str | None:
        """Return why a file is no user's; None where it is one."""
        return None

    def _item(self, key: str, status: os.stat_result) -> Item:
        name, note = fit_name(os.path.basename(key))
        return Item(key, status.st_size, version_of(status), name, created_at=modified(status), note=note)

    def _leave_out(self, path: str) -> str | None:
        if self._store is not None and _is_same(path, self._store):
            return "the store itself"
        return None


class FilebrowserSource(FolderSource):
    """The folder that filebrowser serves: a tree of files, at whose top its database and settings may lie."""

    kind = "filebrowser"

    def _reason_to_leave(self, key: str) -> str | None:
        if "/" in key:
            return None
        if key.endswith(".db") and is_bolt(os.path.join(self.root, key)):
            return "filebrowser's database: its users, shares and settings"
        return "filebrowser's settings" if key in _FILEBROWSER_SETTINGS else None


def is_filebrowser(root: Path) -> bool:
    """Tell whether a folder is one that filebrowser serves, by what it leaves at the top."""
    with os.scandir(root) as entries:
        return any(
            entry.name in _FILEBROWSER_SETTINGS
            or (entry.name in ("filebrowser.db", "database.db") and is_bolt(entry.path))
            for entry in entries
            if entry.is_file(follow_symlinks=False)
        )


def is_bolt(path: str) -> bool:
    """Tell whether a file is a database of Bolt, by its first page."""
    try:
        with open(path, "rb") as file:
            return file.read(_BOLT_MAGIC_AT + len(_BOLT_MAGIC))[_BOLT_MAGIC_AT:] == _BOLT_MAGIC
    except OSError:
        return False


def walk(root: str, *, leave_out: Callable[[str], str | None]) -> Iterator[tuple[str, "os.stat_result | Left"]]:
    """Give the files below a folder by their paths in it, and what is left out, with the reason.

    ``leave_out`` returns why a folder is not looked into. Names only are held, of folders that are still to be looked
    into. Raises OSError where the folder itself cannot be listed.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    key = os.path.join(folder, entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        yield key, _looked_at(key, entry)
                    elif reason := leave_out(entry.path):
                        yield key, Left(key, reason)
                    else:
                        pending.append(key)
        except OSError as error:
            if not folder:
                raise
            yield folder, Left(folder, f"the folder cannot be listed: {error.strerror or error}", is_fault=True)


def _looked_at(key: str, entry: "os.DirEntry[str]") -> "os.stat_result | Left":
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Left(key, f"it cannot be looked at: {error.strerror or error}", is_fault=True)
    if stat.S_ISREG(status.st_mode):
        return status
    return Left(key, _KINDS.get(stat.S_IFMT(status.st_mode), "no file"))


def modified(status: os.stat_result) -> int:
    """Return when a file was written last, in milliseconds since 1970: not before that, and not to come."""
    return within_bounds(status.st_mtime_ns // 1_000_000)


def _is_same(path: str, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
