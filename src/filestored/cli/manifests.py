"""The file of a manifest that ``put`` writes or ``get`` reads."""

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from filestored.cli.terminal import standard_input, standard_output
from filestored.client.errors import LocalFault, shown
from filestored.client.landings import is_special

if TYPE_CHECKING:
    from filestored.client.folders import Identity
    from filestored.client.manifest import Manifest

_INCOMPLETE = ".incomplete"


class ManifestFile:
    """Where a manifest is written.

    That is standard output, a device or a pipe, which are written to as they are; or a file, which takes its name
    when it is complete. One in whose place there was another keeps that one's mode and owner, and one that a symbolic
    link leads to is replaced where it is, not the link.
    """

    def __init__(self, path: str) -> None:
        self.is_standard = path == "-"
        self._path = path
        self._target = ""
        self._final: str | None = None
        self._temporary: str | None = None
        self.text = self._open()

    def _open(self) -> TextIO:
        if self.is_standard:
            standard_output()
            return sys.stdout
        try:
            return open(self._open_file(), "w", encoding="utf-8")
        except OSError as error:
            raise LocalFault.of(self._path, error) from None

    def _open_file(self) -> int:
        if is_special(Path(self._path)):
            return os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        self._target = os.path.realpath(self._path)
        if os.path.isdir(self._target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, self._temporary = tempfile.mkstemp(prefix=".filestored-manifest.", dir=os.path.dirname(self._target))
        _make_alike(handle, self._target)
        return handle

    def finish(self, *, is_whole: bool) -> str | None:
        """Have the file take its name when it is closed; where not all is in it another, which is said.

        So what could not be stored today does not take away the manifest of yesterday.
        """
        if self._temporary is None:
            return None
        if is_whole:
            self._final = self._target
            return None
        self._final = self._target + _INCOMPLETE
        if os.path.lexists(self._final) and not stat.S_ISREG(os.lstat(self._final).st_mode):
            self._final = None
            return f"{shown(self._path)} is as it was: some are missing in this manifest"
        place = shown(self._path + _INCOMPLETE)
        return f"{shown(self._path)} is as it was: some are missing in this manifest, which is in {place}"

    def close(self) -> None:
        """Give the file its name where it is to have one, else remove it. Raises LocalFault."""
        if self.is_standard:
            return
        try:
            self.text.close()
            if self._final is not None and self._temporary is not None:
                os.replace(self._temporary, self._final)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LocalFault.of(self._path, error) from None
        finally:
            if self._temporary is not None:
                with suppress(OSError):
                    os.unlink(self._temporary)

    def identities(self) -> "set[Identity]":
        """Return the files that it stands for, which are none of those that are sent."""
        if self._temporary is None:
            return set()
        return regular(self.text.fileno(), self._target, self._target + _INCOMPLETE)


def _make_alike(handle: int, path: str) -> None:
    """Give a new file the mode and owner of the one in whose place it comes. Raises OSError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        # what mkstemp makes is for its owner alone; a manifest is a file like others
        os.fchmod(handle, 0o666 & ~_umask())
        return
    with suppress(PermissionError):
        os.fchown(handle, status.st_uid, status.st_gid)
    os.fchmod(handle, stat.S_IMODE(status.st_mode))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def regular(*places: int | str) -> "set[Identity]":
    """Return the identities of those paths and descriptors that are regular files."""
    found: set[Identity] = set()
    for place in places:
        with suppress(OSError):
            status = os.stat(place)
            if stat.S_ISREG(status.st_mode):
                found.add((status.st_dev, status.st_ino))
    return found


@contextmanager
def manifest_file(path: str | None) -> Iterator[ManifestFile | None]:
    """Give the file of a manifest for the time of a block, None where none is wanted. Raises LocalFault."""
    if path is None:
        yield None
        return
    file = ManifestFile(path)
    try:
        yield file
    finally:
        file.close()


def read_manifest(path: str) -> "Manifest":
    """Read a manifest, ``-`` from standard input, and judge it. Raises LocalFault, ManifestError."""
    from filestored.client.manifest import parse_manifest

    try:
        if path == "-":
            return parse_manifest(standard_input().read())
        with open(path, "rb") as file:
            return parse_manifest(file.read())
    except OSError as error:
        raise LocalFault.of(path, error) from None
