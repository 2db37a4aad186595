"""What both clients do alike: the steps of each operation, for a server and a token."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import httpx

from filestored.client.calls import Calls, query_of, query_text
from filestored.client.downloads import Downloads
from filestored.client.errors import ClientError, LocalFault
from filestored.client.landings import Watch
from filestored.client.patience import Reach
from filestored.client.records import File, Received
from filestored.client.steps import Request, Steps
from filestored.client.traces import Traces
from filestored.client.uploads import Uploads, reading
from filestored.client.wishes import Wish

T = TypeVar("T")

DEFAULT_URL = "http://localhost:9000"
"""Where a server listens unless told otherwise."""

RESUME_FROM = 16 << 20
"""Files above so many bytes are uploaded resumably."""


class Operations:
    """The steps of all operations. Raises ClientError where the address is none."""

    def __init__(
        self, url: str, token: str | None, retry_for: float, deadline: float | None, resume_from: int,
        state: str | os.PathLike[str] | None,
    ) -> None:  # fmt: skip
        self.url = _judged(url)
        self.token = _judged_token(token)
        self.calls = Calls(Reach(self.url, retry_for, deadline))
        self.downloads = Downloads(self.calls)
        user = hashlib.sha256((token or "").encode()).hexdigest()
        self.uploads = Uploads(self.calls, Traces(None if state is None else Path(state)), resume_from, user)

    def opened(self, make: Callable[[], T]) -> T:
        """Make an httpx client, or its options. Raises LocalFault where its CA file cannot be read."""
        try:
            return make()
        except (ImportError, httpx.InvalidURL, ValueError) as error:
            raise ClientError(f"the proxy that the environment names cannot be used: {error}") from None
        except OSError as error:
            raise LocalFault(None, f"the file of CA certificates cannot be used: {error.strerror or error}") from None

    def put(self, source: Any, wish: Wish, watch: Watch | None) -> Steps[File]:
        """Upload whatever was given: a path, bytes, a binary stream, an iterable of bytes."""
        if isinstance(source, bytes | bytearray | memoryview):
            return self.uploads.of_bytes(bytes(source), wish, watch)
        if isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            named = wish if wish.name is not None else _named(wish, os.path.basename(path))
            return self.uploads.of_path(path, named, watch)
        if hasattr(source, "read"):
            return self.uploads.of_stream(reading(source), wish, watch)
        if isinstance(source, Iterable):
            return self.uploads.of_stream(source, wish, watch)
        raise TypeError(
            f"a path, bytes, a binary stream or an iterable of bytes is needed, not {type(source).__name__}"
        )

    def get(
        self, file_hash: str, to: str | os.PathLike[str] | BinaryIO | None, watch: Watch | None, *, replace: bool
    ) -> Steps[bytes | Received]:
        """Download to wherever is wished."""
        if to is None:
            return self.downloads.to_memory(file_hash, watch)
        if isinstance(to, str | os.PathLike):
            return self.downloads.to_path(file_hash, to, watch, replace=replace)
        return self.downloads.to_stream(file_hash, to, watch)

    def listing(self, name: str | None, media_type: str | None, sort: str) -> dict[str, str]:
        """Return the query of a listing."""
        return query_of(name=name, type=media_type, sort=sort)

    def absolute(self, request: Request) -> str:
        """Return where a request goes."""
        url = self.url + request.path
        return f"{url}?{query_text(request.query)}" if request.query else url


def _named(wish: Wish, name: str) -> Wish:
    return Wish(name or None, wish.type, wish.expires_in, wish.hash, wish.skip)


def _judged(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise ClientError(f"{url[:200]!r} is not the address of a server: give one like https://files.example")
    if parts.username or parts.password:
        raise ClientError("a token does not belong into the address: give it as a token")
    return url.rstrip("/")


def _judged_token(token: str | None) -> str | None:
    if token is None or (token.isascii() and token.isprintable() and " " not in token and token):
        return token
    raise ClientError("the token has characters that no token has: check where it comes from")
