"""``/openapi.json`` and ``/docs``: the description of the API, and Swagger UI to read and try it; open to all.

Swagger UI is what the installed package ``swagger-ui-py`` brings along; the package itself is not imported. The page
works without any other network, and its policy lets nothing else in.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from filestored.access import Permission, Principal
from filestored.api import openapi
from filestored.api.exchange import Exchange, Headers
from filestored.api.fixed import ASKED_AGAIN, SAME, FixedDocuments
from filestored.api.routes import ANY, DOCS_ASSETS, HTML, OPEN, Answer, Route, Target
from filestored.api.stalls import Stalls
from filestored.errors import NotFound, PreconditionFailed
from filestored.filestore import Filestore

_OWN = Path(__file__).with_name("docs")
_DOCUMENT = "openapi.json"
_PAGE = "index.html"
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)
_KEPT_FOR_A_DAY = (b"cache-control", b"public, max-age=86400")


class DocumentRoutes:
    """The OpenAPI document, and the page that shows it."""

    def __init__(
        self, filestore: Filestore, stalls: Stalls, send_timeout: float, table: Callable[[], Iterable[Route]],
        anonymous: Permission,
    ) -> None:  # fmt: skip
        """``table`` returns all routes; ``anonymous`` is what a request without a token can be let in for."""
        self._table = table
        self._anonymous = anonymous
        self._documents = FixedDocuments(filestore, stalls, send_timeout, self._load)

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        return [
            Route(
                method, path, OPEN, handle, summary,
                {200: Answer(meaning, media_type, ("ETag", "Cache-Control")), 304: SAME}, errors=errors,
            )
            for path, handle, summary, meaning, media_type, errors in (
                (
                    "/openapi.json", self._describe, "Describe the API", "This document.", "application/json",
                    (PreconditionFailed,),
                ),
                ("/docs", self._show, "Show this description", "A page.", HTML, (PreconditionFailed,)),
                (
                    "/docs/{asset}", self._add, "What the page /docs consists of", "The file.", ANY,
                    (NotFound, PreconditionFailed),
                ),
            )
            for method in ("GET", "HEAD")
        ]  # fmt: skip

    async def _describe(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._documents.answer(exchange, _DOCUMENT)

    async def _show(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._documents.answer(exchange, _PAGE)

    async def _add(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        if target.text not in DOCS_ASSETS:
            raise NotFound(f"The page /docs has no {target.text[:100]!r}.")
        await self._documents.answer(exchange, target.text)

    def _load(self, name: str) -> tuple[bytes, Headers]:
        """Read, or write, what is to be shown. Blocks."""
        body = openapi.describe(self._table(), self._anonymous) if name == _DOCUMENT else _path(name).read_bytes()
        return body, [_POLICY, _KEPT_FOR_A_DAY if name in DOCS_ASSETS else ASKED_AGAIN]


def _path(name: str) -> Path:
    """Return where a file of the page lies. Raises FileNotFoundError where ``swagger-ui-py`` is not installed."""
    own = _OWN / name
    if own.exists():
        return own
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package swagger-ui-py, which brings the files of /docs, is not installed")
    return Path(spec.submodule_search_locations[0], "static", name)
