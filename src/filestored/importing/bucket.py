"""A bucket of S3, or of what speaks like it, as a source, read by obstore."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filestored.api.names import parse_media_type
from filestored.digest import Algorithm
from filestored.errors import BadRequest, SettingsError
from filestored.importing.source import PIECE, Expected, Item, NotAFile, SourceFault, fit_name, within_bounds

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import S3Store

_LISTED_AT_ONCE = 1000
_MD5 = re.compile(r'"?([0-9a-f]{32})"?', re.ASCII)
_MESSAGE = re.compile("<Message>([^<]{1,300})</Message>")
_TYPE = "Content-Type"
_INVALID_PATH = "invalid path"
_UNREADABLE_KEY = (
    "; keys with an empty part (a//b) or control characters cannot be read: rename them, or import other prefixes one "
    "by one"
)
# a number of retries that time bounds: ten of them may be over within two seconds
_RETRIES = 1000
_RETRY_SECONDS = 60


class BucketSource:
    """All objects below a prefix, each under the last part of its key."""

    kind = "s3"

    def __init__(self, url: str, *, endpoint: str | None, region: str | None, compare_etags: bool = True) -> None:
        """``url`` is ``s3://bucket/prefix``; who asks is said by the usual variables, ``AWS_ACCESS_KEY_ID`` and so on.

        ``compare_etags`` False is for buckets whose ETags are no MD5 though they look like one (SSE-KMS, SSE-C).
        Raises SettingsError, and LibraryMissing where obstore is not installed.
        """
        parts = urlsplit(url)
        if not parts.netloc or parts.query or parts.fragment:
            raise SettingsError(f"{url}: a bucket is written as s3://bucket/prefix")
        self._prefix = parts.path.strip("/")
        self._compare_etags = compare_etags
        self._store = _connect(parts.netloc, endpoint, region)

    def __iter__(self) -> Iterator[Item]:
        with _explained("the bucket cannot be listed"):
            for batch in self._store.list(self._prefix or None, chunk_size=_LISTED_AT_ONCE):
                for found in batch:
                    yield self._judge(found)

    def _judge(self, found: "ObjectMeta") -> Item:
        key, size = found["path"], found["size"]
        etag = found["e_tag"] or ""
        md5 = _MD5.fullmatch(etag) if self._compare_etags else None
        name, note = fit_name(key.rpartition("/")[2])
        modified = round(found["last_modified"].timestamp() * 1000)
        expected = Expected(md5[1], (Algorithm.MD5,), "its ETag") if md5 else None
        version = f"{etag}.{modified}.{size}"
        return Item(key, size, version, name, created_at=within_bounds(modified), expected=expected, note=note)

    def open(self, item: Item) -> "BucketContent":
        """See Source."""
        etag = item.version.rpartition(".")[0].rpartition(".")[0]
        try:
            with _explained("it cannot be read"):
                return BucketContent(self._store.get(item.key, options={"if_match": etag} if etag else {}))
        except (_Changed, _Missing):
            if item.size == 0:
                # obstore lists `folder/` as `folder`, under which it is not to be had
                raise NotAFile(f"{item.key}/", "the mark of a folder") from None
            raise


class BucketContent:
    """An object that is being downloaded."""

    def __init__(self, got: "GetResult") -> None:
        self._pieces = iter(got.stream(min_chunk_size=PIECE))
        self.media_type = _media_type(str(got.attributes.get(_TYPE) or ""))

    def __iter__(self) -> Iterator[bytes]:
        with _explained("it cannot be read"):
            for piece in self._pieces:
                yield bytes(piece)

    def close(self) -> None:
        """See Content."""
        del self._pieces


def _connect(bucket: str, endpoint: str | None, region: str | None) -> "S3Store":
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    given = {"endpoint": endpoint, "region": region}
    try:
        return S3Store(
            bucket,
            **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "600s", "connect_timeout": "10s"},
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2
                },
            },
        )  # fmt: skip
    except BaseError as error:
        raise SettingsError(f"the bucket {bucket} cannot be used: {_reason(error)}") from None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn obstore's errors into a sentence of ours."""
    from obstore import exceptions

    try:
        yield
    except exceptions.PreconditionError:
        raise _Changed("it has changed since it was listed; import again") from None
    except FileNotFoundError:
        raise _Missing(f"{what}: there is no such object or bucket") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        raise SourceFault(f"{what}: not allowed; look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except exceptions.BaseError as error:
        hint = _UNREADABLE_KEY if _INVALID_PATH in str(error) else ""
        raise SourceFault(f"{what}: {_reason(error)}{hint}") from None


class _Changed(SourceFault):
    pass


class _Missing(SourceFault):
    pass


def _reason(error: Exception) -> str:
    """Return what the server says is wrong, where it says so in XML; else obstore's first line."""
    said = _MESSAGE.search(str(error))
    return said[1] if said else next(iter(str(error).splitlines()), type(error).__name__)


def _media_type(text: str) -> str | None:
    try:
        return parse_media_type(text)
    except BadRequest:
        return None
