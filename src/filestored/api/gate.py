"""Letting requests in: who asks, whether a page of another site is behind it, and how many upload at once."""

from urllib.parse import urlsplit

from filestored.access import ANONYMOUS, Access, Connection, Permission, Principal
from filestored.api.exchange import Exchange
from filestored.api.limits import Limits
from filestored.errors import Busy, FilestoredError, Forbidden
from filestored.shared import Shared

_REMEMBERED = 4096
_LONGEST_HOST = 255
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gate:
    """Stands before every route."""

    def __init__(self, access: Access, limits: Limits, shared: Shared) -> None:
        self._access = access
        self._limits = limits
        self._shared = shared
        self._known: dict[tuple[str, bool, str], Principal] = {}
        self._plain_readers: dict[tuple[str, bytes], bool] = {}

    def admit(self, exchange: Exchange) -> Principal:
        """Return who asks. Raises Unauthorized or Forbidden."""
        if exchange.method in _CHANGING:
            _require_same_site(exchange)
        connection = exchange.connection
        key = (connection.address, connection.is_proxied, connection.host)
        principal = self._known.get(key)
        if principal is None:
            principal = self._access.admit(connection)
            if len(connection.host) > _LONGEST_HOST:
                return principal
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = principal
        return principal

    def may_read_plainly(self, client: str, host: bytes) -> bool:
        """Tell whether a request without credentials or proxy headers may read; remembered, for the hot path."""
        key = (client, host)
        answer = self._plain_readers.get(key)
        if answer is None:
            if len(host) > _LONGEST_HOST:
                return False
            if len(self._plain_readers) >= _REMEMBERED:
                self._plain_readers.clear()
            answer = self._plain_readers[key] = self._may_read_plainly(client, host)
        return answer

    def _may_read_plainly(self, client: str, host: bytes) -> bool:
        try:
            principal = self._access.admit(Connection(client, False, host.decode("latin-1")))
            principal.require(Permission.READ)
        except FilestoredError:
            return False
        return principal.owner == ANONYMOUS

    def upload(self, exchange: Exchange) -> "_Place":
        """Return a place for an upload, held in a ``with`` block. Raises Busy where as many as allowed are taken."""
        limits, shared = self._limits, self._shared
        if limits.max_uploads is not None and shared.uploads() >= limits.max_uploads:
            raise Busy(f"{limits.max_uploads} uploads are under way, as many as allowed; try again in a moment.")
        if (
            limits.max_uploads_per_client is not None
            and shared.uploads_of(exchange.client) >= limits.max_uploads_per_client
        ):
            raise Busy(f"{limits.max_uploads_per_client} uploads of yours are under way, as many as allowed; wait.")
        return _Place(shared, exchange.client)


class _Place:
    """One of the places for uploads, taken."""

    __slots__ = ("_client", "_shared")

    def __init__(self, shared: Shared, client: str) -> None:
        self._shared = shared
        self._client = client

    def __enter__(self) -> None:
        self._shared.count_upload(self._client, 1)

    def __exit__(self, *_: object) -> None:
        self._shared.count_upload(self._client, -1)


def _require_same_site(exchange: Exchange) -> None:
    """Refuse what a page of another web site makes a visitor's browser do (Fetch metadata, RFC 6454)."""
    site = exchange.headers.get(b"sec-fetch-site", b"none")
    if site not in (b"none", b"same-origin"):
        raise Forbidden("A page of another site may not change anything here.")
    origin = exchange.headers.get(b"origin")
    if origin is not None and _host_of(origin.decode("latin-1")) != exchange.host.lower():
        raise Forbidden(f"The origin {origin.decode('latin-1')[:200]!r} may not change anything here.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
