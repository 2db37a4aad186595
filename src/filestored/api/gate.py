"""Letting requests in: who asks, whether a page of another site is behind it, and how many upload at once."""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from filestored.access import Access, Connection, Principal, by_link
from filestored.api.cors import Cors
from filestored.api.credentials import token_in
from filestored.api.exchange import Exchange
from filestored.api.limits import Limits
from filestored.api.proxies import Proxies
from filestored.catalogue.records import TokenRecord, now_milliseconds
from filestored.digest import Digest
from filestored.errors import Busy, FilestoredError, Forbidden
from filestored.filestore import Filestore
from filestored.shared import Shared
from filestored.signing import Signer

_REMEMBERED = 4096
_LONGEST_HOST = 255
_LONGEST_TOKEN = 512
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# a token that is revoked must not be good for anything after a second
_FRESH_SECONDS = 0.8
_LOOKED_AGAIN_AFTER_SECONDS = 0.1
_REFUSED = ""
_LOOKED_AGAIN_AFTER_BODY_SECONDS = 0.2
# one reading that was under way when the request came, one for it, one more where a token ends this moment
_TRIES = 3


class TokenWatch:
    """Keeps what Access knows of the tokens no older than a second, and with them the key that links are signed with.

    A copy of a store takes its source's key over, also under a daemon.
    """

    def __init__(self, access: Access, filestore: Filestore, signer: Signer, changed: Callable[[], None]) -> None:
        """``changed`` is called whenever tokens have come, gone or ended."""
        self._fresh_until = 0.0
        self._seen = -1
        self._number = filestore.shared.tokens
        self._access = access
        self._filestore = filestore
        self._signer = signer
        self._changed = changed
        self._read_at = 0.0
        self._tokens: list[TokenRecord] | None = None
        self._end_ms: int | None = None
        self._reading: asyncio.Task[None] | None = None

    def is_fresh(self, now: float) -> bool:
        """Tell whether Access may decide about tokens at ``now`` (monotonic seconds)."""
        return now < self._fresh_until and self._number[0] == self._seen

    async def freshen(self, token: str | None = None, *, again: bool = False) -> None:
        """See to it that Access can decide about a token; one that is not known may have been made just now.

        With ``again`` tokens and key are read anew in any case, but no more often than for strangers.
        """
        arrived = time.monotonic()
        for _ in range(_TRIES):
            is_known = not again and (token is None or self._access.knows(token))
            is_known = is_known or self._read_at >= arrived
            if is_known and self.is_fresh(time.monotonic()):
                return
            if not is_known:
                # strangers who try tokens must not have the catalogue read for each
                await asyncio.sleep(max(0.0, self._read_at + _LOOKED_AGAIN_AFTER_SECONDS - time.monotonic()))
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._read())
                self._reading.add_done_callback(self._end)
            await asyncio.shield(self._reading)

    def _end(self, reading: "asyncio.Task[None]") -> None:
        self._reading = None
        if not reading.cancelled():
            # whoever waits for it is told; where nobody does any more nobody needs to be
            reading.exception()

    async def _read(self) -> None:
        began, now, seen = time.monotonic(), now_milliseconds(), self._number[0]
        tokens, key = await self._filestore.in_thread(self._filestore.credentials)
        if key is not None:
            self._signer.change_key(key)
        if tokens != self._tokens or (self._end_ms is not None and now >= self._end_ms):
            self._tokens = tokens
            self._access.update(tokens)
            self._changed()
        end = self._end_ms = self._access.next_end(now)
        left = _FRESH_SECONDS if end is None else min(_FRESH_SECONDS, (end - now) / 1000)
        self._read_at, self._fresh_until, self._seen = began, began + left, seen


class Gate:
    """Stands before every route."""

    def __init__(
        self, access: Access, limits: Limits, filestore: Filestore, signer: Signer, proxies: Proxies, cors: Cors
    ) -> None:
        self._access = access
        self._limits = limits
        self._shared = filestore.shared
        self._signer = signer
        self._proxies = proxies
        self._cors = cors
        self._known: dict[tuple[str, bool, str, bytes | None], Principal] = {}
        self._plain_readers: dict[tuple[str, bytes] | bytes, str] = {}
        self._tokens = TokenWatch(access, filestore, signer, self._forget)

    def _forget(self) -> None:
        self._known.clear()
        self._plain_readers.clear()

    async def admit(self, exchange: Exchange) -> Principal:
        """Return who asks. Raises Unauthorized or Forbidden."""
        if exchange.method in _CHANGING:
            self._require_same_site(exchange)
        authorization = exchange.headers.get(b"authorization")
        token = token_in(authorization)
        if token is not None or self._access.anonymous_depends_on_tokens:
            await self._tokens.freshen(token)
        connection = exchange.connection
        key = (connection.address, connection.is_proxied, connection.host, authorization)
        principal = self._known.get(key)
        if principal is None:
            principal = self._access.admit(connection, token, now_milliseconds())
            if len(connection.host) > _LONGEST_HOST or len(authorization or b"") > _LONGEST_TOKEN:
                return principal
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = principal
        return principal

    async def admit_again(self, exchange: Exchange, principal: Principal) -> Principal:
        """Return who asks, once its body is there: its token may have been revoked while that was on the way."""
        if time.monotonic() - exchange.began < _LOOKED_AGAIN_AFTER_BODY_SECONDS:
            return principal
        return await self.admit(exchange)

    async def freshen_key(self, *, again: bool = False) -> None:
        """See to it that the key is no older than a second; with ``again`` it is read anew. Raises CatalogueError."""
        await self._tokens.freshen(again=again)

    async def admit_by_link(self, exchange: Exchange, digest: Digest) -> Principal:
        """Return who comes by a signed link to a file. Raises Forbidden where it is wrong or its time is over."""
        await self.freshen_key()
        query = exchange.query
        expires = query.get("expires", "")
        if not self._signer.is_link(digest, expires, query["signature"]):
            raise Forbidden("This link is not one that this server made for this file; ask for a new one.")
        if int(expires) <= time.time():
            raise Forbidden("The time of this link is over; ask for a new one.")
        return by_link(digest, int(expires) * 1000)

    def plain_reader(self, client: str, host: bytes, authorization: bytes | None, now: float) -> str | None:
        """Return the owner as whom a plain GET may read; None where that needs a closer look. For the hot path.

        ``now`` is in monotonic seconds.
        """
        key: tuple[str, bytes] | bytes
        if authorization is None:
            if self._access.anonymous_depends_on_tokens and not self._tokens.is_fresh(now):
                return None
            key = (client, host)
        elif self._tokens.is_fresh(now):
            # Python finds bytes by a hash that is keyed anew in each process: how long that takes tells nothing
            # of how much of a guess is right
            key = authorization
        else:
            return None
        owner = self._plain_readers.get(key)
        if owner is None:
            if len(host) > _LONGEST_HOST or (authorization is not None and len(authorization) > _LONGEST_TOKEN):
                return None
            if len(self._plain_readers) >= _REMEMBERED:
                self._plain_readers.clear()
            owner = self._plain_readers[key] = self._find_plain_reader(client, host, authorization)
        return owner or None

    def _find_plain_reader(self, client: str, host: bytes, authorization: bytes | None) -> str:
        connection = Connection(client, self._proxies.trusts(client), host.decode("latin-1"))
        try:
            principal = self._access.admit(connection, token_in(authorization), now_milliseconds())
        except FilestoredError:
            return _REFUSED
        return principal.owner if principal.may_read else _REFUSED

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

    def _require_same_site(self, exchange: Exchange) -> None:
        """Refuse what a page of another web site makes a visitor's browser do (Fetch metadata, RFC 6454)."""
        origin = exchange.headers.get(b"origin")
        if origin is not None and self._cors.allows(origin):
            return
        site = exchange.headers.get(b"sec-fetch-site", b"none")
        if site not in (b"none", b"same-origin"):
            raise Forbidden("A page of another site may not change anything here.")
        if origin is not None and (_host_of(origin.decode("latin-1")) or None) != exchange.host.lower():
            raise Forbidden(f"The origin {origin.decode('latin-1')[:200]!r} may not change anything here.")


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


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
