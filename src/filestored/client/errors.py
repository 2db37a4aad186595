"""Every error the client raises on purpose, with the exit status that the command line ends with.

::

    FilestoredError
    └── ClientError       1   something else went wrong
        ├── Unreachable   5   no connection to the server, or none that lasted
        ├── Refused       1   the server answered an error
        │   ├── NotStored     3   404: no file is stored under that hash
        │   ├── NotAllowed    4   401, 403: no token, a wrong one, or one that lacks the permission
        │   └── TooMuch       1   413, 507: a limit, a quota, or no room on the server
        ├── Damaged       6   bytes are not what their hash says
        ├── SourceChanged 6   a file changed while it was read
        └── LocalFault    7   a local file cannot be read or written
"""

import os
from typing import ClassVar

from filestored.errors import FilestoredError


class ClientError(FilestoredError):
    """The root of the client's errors. ``str(error)`` is one sentence that says what is wrong."""

    exit_status: ClassVar[int] = 1


class Unreachable(ClientError):
    """The server cannot be reached, or connections broke off until the time for retries was over."""

    exit_status = 5


class Refused(ClientError):
    """The server answered an error: an HTTP ``status``, a stable ``code`` where it gave one, and its sentence."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class NotStored(Refused):
    """No file is stored under that hash, or none that the caller may know of (404)."""

    exit_status = 3


class NotAllowed(Refused):
    """There is no token, it is wrong (401), or it lacks the permission (403)."""

    exit_status = 4


class TooMuch(Refused):
    """The server takes no more: a limit or a quota (413), or its disk is full (507)."""


class Damaged(ClientError):
    """Bytes are not what their hash says: what was downloaded, or what arrived at the server (422)."""

    exit_status = 6


class SourceChanged(ClientError):
    """A file changed while it was read; nothing of it is stored."""

    exit_status = 6


class LocalFault(ClientError):
    """A local file cannot be read or written: ``path``, and the system's ``reason``."""

    exit_status = 7

    def __init__(self, path: str | os.PathLike[str] | None, reason: str) -> None:
        self.path = None if path is None else os.fspath(path)
        self.reason = reason
        super().__init__(reason if self.path is None else f"{shown(self.path)}: {reason}")

    @classmethod
    def of(cls, path: str | os.PathLike[str] | None, error: OSError) -> "LocalFault":
        """Make it of what the system raised."""
        return cls(path, error.strerror or str(error))


_BY_STATUS: dict[int, type[Refused]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotStored,
    413: TooMuch,
    507: TooMuch,
}


def refusal(status: int, code: str, detail: str) -> ClientError:
    """Return the error that an answer of the server stands for."""
    if status == 422:
        return Damaged(detail)
    return _BY_STATUS.get(status, Refused)(status, code, detail)


def shown(text: str) -> str:
    """Return a text from elsewhere so that it cannot act on a terminal: what does not print is escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]
