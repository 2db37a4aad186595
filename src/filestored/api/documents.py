"""``/openapi.json`` and ``/docs``: the description of the API, and Swagger UI to read and try it; open to all.

Swagger UI is what the installed package ``swagger-ui-py`` brings along; the package itself is not imported. The page
works without any other network, and its policy lets nothing else in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from filestored.access import Permission, Principal
from filestored.api import openapi, preconditions
from filestored.api.exchange import Exchange, Headers
from filestored.api.routes import ANY, HTML, OPEN, PAGE_ASSETS, Answer, Route, Target
from filestored.api.stalls import Stalled, Stalls
from filestored.errors import ClientGone, NotFound, PreconditionFailed
from filestored.filestore import Filestore

_OWN = Path(__file__).with_name("docs")
_DOCUMENT = "openapi.json"
_PAGE = "index.html"
_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".png": b"image/png",
}
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_NO_REFERRER = (b"referrer-policy", b"no-referrer")
_ASKED_AGAIN = (b"cache-control", b"no-cache")
_KEPT_FOR_A_DAY = (b"cache-control", b"public, max-age=86400")
_PIECE = 64 * 1024
_CONDITIONS = (b"if-match", b"if-none-match")


@dataclass(frozen=True, slots=True)
class _Document:
    """Something to be shown: its bytes, its tag, and the headers of its answers."""

    body: bytes
    etag: bytes
    headers: Headers


class DocumentRoutes:
    """The OpenAPI document, and the page that shows it. What is asked for is read once and kept."""

    def __init__(
        self, filestore: Filestore, stalls: Stalls, send_timeout: float, table: Callable[[], Iterable[Route]],
        anonymous: Permission,
    ) -> None:  # fmt: skip
        """``table`` returns all routes; ``anonymous`` is what a request without a token can be let in for."""
        self._filestore = filestore
        self._stalls = stalls
        self._send_timeout = send_timeout
        self._table = table
        self._anonymous = anonymous
        self._documents: dict[str, _Document] = {}

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        same = Answer("It is the one that If-None-Match names.", None, ("ETag",))
        return [
            Route(
                method, path, OPEN, handle, summary,
                {200: Answer(meaning, media_type, ("ETag", "Cache-Control")), 304: same}, errors=errors,
            )
            for path, handle, summary, meaning, media_type, errors in (
                (
                    "/openapi.json", self._describe, "Describe the API", "This document.", "application/json",
                    (PreconditionFailed,),
                ),
                ("/docs", self._show, "Show this description", "A page.", HTML, (PreconditionFailed,)),
                (
                    "/docs/{asset}", self._add, "What the page consists of", "The file.", ANY,
                    (NotFound, PreconditionFailed),
                ),
            )
            for method in ("GET", "HEAD")
        ]  # fmt: skip

    async def _describe(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._answer(exchange, _DOCUMENT)

    async def _show(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._answer(exchange, _PAGE)

    async def _add(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        if target.text not in PAGE_ASSETS:
            raise NotFound(f"The page /docs has no {target.text[:100]!r}.")
        await self._answer(exchange, target.text)

    async def _answer(self, exchange: Exchange, name: str) -> None:
        document = self._documents.get(name)
        if document is None:
            document = self._documents[name] = await self._filestore.in_thread(self._load, name)
        conditions = {key: exchange.headers[key] for key in _CONDITIONS if key in exchange.headers}
        if preconditions.not_modified(conditions, document.etag, 0):
            await exchange.start(304, document.headers)
            await exchange.write(b"", more=False)
        elif exchange.method == "HEAD":
            await exchange.answer(200, document.headers, document.body)
        else:
            await self._send(exchange, document)

    async def _send(self, exchange: Exchange, document: _Document) -> None:
        """Send it in pieces: however many strangers take it slowly, little of it waits in memory for each."""
        size = len(document.body)
        await exchange.start(200, [*document.headers, (b"content-length", b"%d" % size)])
        try:
            with self._stalls.guard(self._send_timeout) as guard:
                for start in range(0, size, _PIECE):
                    await exchange.write(document.body[start : start + _PIECE], more=start + _PIECE < size)
                    guard.moved()
        except Stalled:
            raise ClientGone from None

    def _load(self, name: str) -> _Document:
        """Read, or write, what is to be shown. Blocks."""
        body = openapi.describe(self._table(), self._anonymous) if name == _DOCUMENT else _path(name).read_bytes()
        etag = b'"%s"' % sha256(body).hexdigest()[:32].encode()
        headers = [(b"etag", etag), (b"content-type", _TYPES[Path(name).suffix]), _POLICY, _NO_SNIFF, _NO_REFERRER]
        return _Document(body, etag, [*headers, _KEPT_FOR_A_DAY if name in PAGE_ASSETS else _ASKED_AGAIN])


def _path(name: str) -> Path:
    """Return where a file of the page lies. Raises FileNotFoundError where ``swagger-ui-py`` is not installed."""
    own = _OWN / name
    if own.exists():
        return own
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package swagger-ui-py, which brings the files of /docs, is not installed")
    return Path(spec.submodule_search_locations[0], "static", name)
