"""Every error the program raises on purpose: a stable code, an HTTP status, an exit status and a sentence.

::

    FilestoredError
    ├── RequestError                 the request cannot be answered as asked: an HTTP status
    │   ├── BadRequest               400  bad_request
    │   ├── Unauthorized             401  unauthorized
    │   ├── Forbidden                403  forbidden
    │   ├── NotFound                 404  not_found
    │   ├── MethodNotAllowed         405  method_not_allowed
    │   ├── RequestTimeout           408  request_timeout
    │   ├── Conflict                 409  conflict
    │   ├── PreconditionFailed       412  precondition_failed
    │   │   └── UnknownVersion       412  unknown_version
    │   ├── TooLarge                 413  too_large
    │   ├── UnsupportedMediaType     415  unsupported_media_type
    │   ├── RangeNotSatisfiable      416  range_not_satisfiable
    │   ├── DigestMismatch           422  digest_mismatch
    │   ├── Locked                   423  locked
    │   ├── HeadersTooLarge          431  headers_too_large
    │   ├── ChecksumMismatch         460  checksum_mismatch
    │   ├── StorageFault             500  storage_fault
    │   ├── Busy                     503  busy
    │   ├── NotReady                 503  not_ready
    │   └── OutOfSpace               507  out_of_space
    ├── CatalogueError               the catalogue failed: exit 1, over HTTP what ``told`` says
    │   ├── CatalogueBusy            503: another program keeps it for too long
    │   ├── CatalogueUnavailable     503: it cannot be reached
    │   ├── CatalogueConflict        503: what was done is undone; doing it again may succeed
    │   ├── CatalogueFull            507: its disk has no room left
    │   ├── CatalogueFault           500: its disk failed
    │   └── CatalogueMissing         500: its tables are not there
    ├── BlobStoreError               the bucket failed: exit 1, over HTTP what ``told`` says
    │   ├── BlobStoreUnavailable     503: it cannot be reached, or does not answer in time
    │   ├── PutLost                  503: what was put did not become a blob; putting it again may
    │   ├── BlobBroken               500: parts of a blob are missing
    │   ├── BlobGone                 404: a blob was removed while it was read
    │   └── NotBrought               503: a blob that was put is gone again; doing it again may succeed
    ├── ClientGone                   the client went away before its request was whole; nobody to answer
    ├── SettingsError                exit 2: a flag, variable or line of the settings file is wrong
    └── StartError                   exit 1: the store, the port or the catalogue cannot be used

Raise them anywhere; ``api.problems`` turns a :class:`RequestError` into ``application/problem+json`` and
``cli`` turns the others into one line on standard error.
"""

import errno
from collections.abc import Mapping

STOPPING = "stopping"
"""What :class:`NotReady` names where nothing is wrong but that the server stops."""


class FilestoredError(Exception):
    """The root of the tree. ``str(error)`` is one sentence that says what is wrong and what to do."""


class RequestError(FilestoredError):
    """A request that cannot be answered as asked.

    ``detail`` is the sentence the client reads; ``headers`` are sent with the answer, and ``members`` in its body.
    """

    code = "request_error"
    status = 500
    title = "Request failed"

    def __init__(
        self, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = (), members: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        self.members = members or {}


class BadRequest(RequestError):
    """The request itself is malformed (RFC 9110, 15.5.1)."""

    code = "bad_request"
    status = 400
    title = "Bad request"


class Unauthorized(RequestError):
    """No credentials, or wrong ones (RFC 9110, 15.5.2)."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"


class Forbidden(RequestError):
    """The caller is not allowed to do this (RFC 9110, 15.5.4)."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class NotFound(RequestError):
    """No such file or address (RFC 9110, 15.5.5)."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(RequestError):
    """The address exists, the method does not (RFC 9110, 15.5.6). ``allow`` goes into ``Allow``."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(
            f"{method} is not possible here; use one of: {allow}.", headers=((b"allow", allow.encode("ascii")),)
        )


class RequestTimeout(RequestError):
    """The body stopped coming (RFC 9110, 15.5.9)."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"


class Conflict(RequestError):
    """What the request goes on from is not how things are (RFC 9110, 15.5.10): a wrong ``Upload-Offset``."""

    code = "conflict"
    status = 409
    title = "Conflict"


class PreconditionFailed(RequestError):
    """``If-Match`` or ``If-Unmodified-Since`` does not hold (RFC 9110, 15.5.13)."""

    code = "precondition_failed"
    status = 412
    title = "Precondition failed"


class UnknownVersion(PreconditionFailed):
    """The request does not name the version of tus that is spoken here (tus 1.0.0, Tus-Resumable)."""

    code = "unknown_version"
    title = "Unknown version"


class TooLarge(RequestError):
    """The upload passes a limit (RFC 9110, 15.5.14)."""

    code = "too_large"
    status = 413
    title = "Too large"


class UnsupportedMediaType(RequestError):
    """The body is not of the media type that is taken here (RFC 9110, 15.5.16)."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class RangeNotSatisfiable(RequestError):
    """No range asked for overlaps the file (RFC 9110, 15.5.17). ``size`` is the file's, in bytes."""

    code = "range_not_satisfiable"
    status = 416
    title = "Range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The file has {size} bytes; no range asked for lies within it.",
            headers=((b"content-range", b"bytes */%d" % size), (b"accept-ranges", b"bytes")),
        )


class DigestMismatch(RequestError):
    """The bytes that came are not those the client announced (RFC 9530)."""

    code = "digest_mismatch"
    status = 422
    title = "Digest mismatch"


class Locked(RequestError):
    """Another request is writing to the same upload (RFC 4918, 11.3)."""

    code = "locked"
    status = 423
    title = "Locked"


class HeadersTooLarge(RequestError):
    """Header fields beyond the limit (RFC 6585, 5)."""

    code = "headers_too_large"
    status = 431
    title = "Headers too large"


class ChecksumMismatch(RequestError):
    """The bytes of a request are not those that its ``Upload-Checksum`` announces (tus 1.0.0, checksum)."""

    code = "checksum_mismatch"
    status = 460
    title = "Checksum mismatch"


class StorageFault(RequestError):
    """The disk or the catalogue failed; the log has the reason, the client has none of it."""

    code = "storage_fault"
    status = 500
    title = "Storage fault"


class Busy(RequestError):
    """As many requests as the settings allow are under way. ``retry_after`` is in seconds."""

    code = "busy"
    status = 503
    title = "Busy"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers=((b"retry-after", b"%d" % retry_after),))


class NotReady(RequestError):
    """Store or catalogue cannot be used, or the server stops; ``fault`` names it."""

    code = "not_ready"
    status = 503
    title = "Not ready"

    def __init__(self, fault: str) -> None:
        what = "The server stops." if fault == STOPPING else f"The {fault} cannot be used; the log says why."
        super().__init__(f"{what} Ask another one, or later.", members={"fault": fault})


class OutOfSpace(RequestError):
    """The disk is full, or would leave less free than the settings demand (RFC 4918, 11.5)."""

    code = "out_of_space"
    status = 507
    title = "Insufficient storage"


class CatalogueError(FilestoredError):
    """The catalogue's database failed; ``reason`` is what it says itself, in one line."""

    is_passing = False
    """Whether it may well work in a moment, so that nobody has to look into it."""

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(f"the catalogue cannot be used: {self.reason}")

    def told(self) -> RequestError:
        """Return what a client is told; the log has the rest."""
        return StorageFault("The server's disk or catalogue failed; nothing was changed. Its log says why.")


class CatalogueBusy(CatalogueError):
    """Another program has kept the catalogue, or a part of it, for too long."""

    is_passing = True

    def told(self) -> RequestError:
        """See CatalogueError."""
        return Busy("The catalogue is locked by another program for too long; try again.")


class CatalogueUnavailable(CatalogueError):
    """The catalogue cannot be reached, or does not answer in time."""

    is_passing = True

    def told(self) -> RequestError:
        """See CatalogueError."""
        return Busy("The catalogue cannot be reached; try again in a moment.", retry_after=2)


class CatalogueConflict(CatalogueError):
    """What was done is undone, for the sake of another or with the connection; doing it again may succeed."""

    is_passing = True

    def told(self) -> RequestError:
        """See CatalogueError."""
        return Busy("The catalogue was changed by many at once; try again.")


class CatalogueFull(CatalogueError):
    """The disk of the catalogue has no room left."""

    def told(self) -> RequestError:
        """See CatalogueError."""
        return OutOfSpace("The disk is full; nothing was stored. Free some space and try again.")


class CatalogueFault(CatalogueError):
    """The disk of the catalogue failed; ``is_flush`` where it failed a flush."""

    def __init__(self, reason: str, *, is_flush: bool = False) -> None:
        super().__init__(reason)
        self.is_flush = is_flush


class CatalogueMissing(CatalogueError):
    """The catalogue has no tables."""


class BlobStoreError(FilestoredError):
    """The bucket in which the blobs lie failed, or refuses; ``reason`` is what it says itself, in one line."""

    is_passing = False
    """Whether it may well work in a moment, so that nobody has to look into it."""
    was_sent = True
    """Whether what was asked for may happen nevertheless, now or later."""

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(f"the bucket cannot be used: {self.reason}")

    def told(self) -> RequestError:
        """Return what a client is told; the log has the rest."""
        return StorageFault("The server's object store failed. Its log says why.")


class BlobStoreUnavailable(BlobStoreError):
    """The bucket cannot be reached, does not answer in time, or has too much to do."""

    is_passing = True

    def told(self) -> RequestError:
        """See BlobStoreError."""
        return Busy("The object store cannot be reached; try again in a moment.", retry_after=2)


class PutLost(BlobStoreError):
    """The bucket has answered, but what was put into it did not become a blob; putting it again may."""

    is_passing = True

    def told(self) -> RequestError:
        """See BlobStoreError."""
        return Busy("The object store lost the file on its way; try again.")


class BlobBroken(BlobStoreError):
    """A blob is there, but not all of the parts that it was put in: it is being removed, or damaged."""


class BlobGone(BlobStoreError):
    """A blob that was found is removed before it was read to its end."""

    is_passing = True

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not there any more")

    def told(self) -> RequestError:
        """See BlobStoreError."""
        return NotFound("The file has just been deleted.")


class NotBrought(BlobStoreError):
    """A blob that was put into the bucket, or was there, is not there when it is to be published."""

    is_passing = True

    def __init__(self, digest: str) -> None:
        super().__init__(f"the blob {digest} was removed while it was stored")
        self.digest = digest

    def told(self) -> RequestError:
        """See BlobStoreError."""
        return Busy("The file was deleted by another while it was stored; try again.")


class ClientGone(FilestoredError):
    """The connection ended before the request's declared end: nothing is stored, nobody is answered."""


class SettingsError(FilestoredError):
    """A setting is wrong: the command line ends with exit status 2."""


class StartError(FilestoredError):
    """The store, the port or the catalogue cannot be used: the command ends with exit status 1."""


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException) -> bool:
    """Tell whether an error means that there is no room left: on the disk, by a quota, or for the catalogue."""
    return isinstance(error, CatalogueFull) or (isinstance(error, OSError) and error.errno in _FULL)
