"""The client's errors as Python's own, for callers that know files and not this library."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from filestored.client.errors import ClientError, Damaged, LocalFault, NotAllowed, NotStored, TooMuch, Unreachable


@contextmanager
def as_os_errors(path: str, *, writing: bool = False) -> Iterator[None]:
    """Raise what Python would for a file: FileNotFoundError, PermissionError, ConnectionError, OSError.

    While ``writing``, bytes that are not those of the path's hash are a ValueError: the caller named the wrong one.
    """
    try:
        yield
    except Damaged as error:
        if writing:
            raise ValueError(str(error)) from error
        raise OSError(errno.EIO, str(error), path) from error
    except ClientError as error:
        raise _as_os_error(error, path) from error


def _as_os_error(error: ClientError, path: str) -> OSError:
    match error:
        case NotStored():
            return FileNotFoundError(errno.ENOENT, str(error), path)
        case NotAllowed():
            return PermissionError(errno.EACCES, str(error), path)
        case TooMuch():
            return OSError(errno.ENOSPC if error.status == 507 else errno.EDQUOT, str(error), path)
        case Unreachable():
            return ConnectionError(str(error))
        case LocalFault():
            return _local(error)
    return OSError(errno.EIO, str(error), path)


def _local(error: LocalFault) -> OSError:
    """Return what the system raised, where that is known, so that its number is kept."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        # the class follows from the number
        return OSError(cause.errno, os.strerror(cause.errno), error.path)
    return OSError(errno.EIO, error.reason, error.path)
