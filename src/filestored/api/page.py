"""The web page at ``/``, and ``/web/…``, what it consists of; open to all, since neither holds a secret.

Its files are those of the packaged folder ``web``. Its policy lets in nothing but them, what this server stores, and
what the page itself makes (``blob:``), so that the text of a file's name or of an answer can never act as a script.
"""

from pathlib import Path

from filestored.access import Principal
from filestored.api.exchange import Exchange, Headers
from filestored.api.fixed import ASKED_AGAIN, SAME, FixedDocuments
from filestored.api.routes import ANY, OPEN, WEB, WEB_ASSETS, WEB_PAGE, Answer, Route, Target
from filestored.api.stalls import Stalls
from filestored.errors import NotFound, PreconditionFailed
from filestored.filestore import Filestore

_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    b"media-src 'self' blob:; frame-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
)


class PageRoutes:
    """The page and its files."""

    def __init__(self, filestore: Filestore, stalls: Stalls, send_timeout: float) -> None:
        self._documents = FixedDocuments(filestore, stalls, send_timeout, _load)

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes. The page itself shares its address with others: :meth:`show`."""
        return [
            Route(
                method, "/web/{asset}", OPEN, self._add, "What the page / consists of",
                {200: Answer("The file.", ANY, ("ETag", "Cache-Control")), 304: SAME},
                errors=(NotFound, PreconditionFailed),
            )
            for method in ("GET", "HEAD")
        ]  # fmt: skip

    async def show(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        """Answer with the page."""
        await self._documents.answer(exchange, WEB_PAGE)

    async def _add(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        if target.text not in WEB_ASSETS:
            raise NotFound(f"The page has no {target.text[:100]!r}.")
        await self._documents.answer(exchange, target.text)


def _load(name: str) -> tuple[bytes, Headers]:
    """Read a file of the page. Blocks."""
    return Path(WEB, name).read_bytes(), [_POLICY, ASKED_AGAIN]
