"""The table of routes: for each address and method what it needs, what it takes and answers, and who answers it.

Nothing is answered that is not in the table, and no line of it can leave out which permission it needs. The OpenAPI
document, ``Allow`` and the dispatch all come from it.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from filestored.access import Permission, Principal
from filestored.api.exchange import Exchange
from filestored.api.models import HASH_PATTERN
from filestored.digest import Digest, parse_digest
from filestored.errors import RequestError

OPEN = Permission(0)
"""Needed by what is open to everybody: neither a token nor any other grant is asked for."""

ANY = "*/*"
BYTES = "application/octet-stream"
CHUNK = "application/offset+octet-stream"
"""The media type of the bytes of a resumable upload (tus 1.0.0)."""

HTML = "text/html"
TEXT = "text/plain"

_HASH = "[0-9A-Fa-f]{32,128}"
_PATTERNS = {
    "/{hash}": re.compile(rf"/(?P<hash>{_HASH})"),
    "/{hash}/{name}": re.compile(rf"/(?P<hash>{_HASH})/(?P<name>[^/]*)"),
    "/v1/files/{hash}": re.compile(r"/v1/files/(?P<hash>[^/]+)"),
    "/v1/files/{hash}/link": re.compile(r"/v1/files/(?P<hash>[^/]+)/link"),
    "/v1/uploads/{upload}": re.compile(r"/v1/uploads/(?P<upload>[^/]+)"),
    "/v1/peers/parts/{upload}": re.compile(r"/v1/peers/parts/(?P<upload>[^/]+)"),
    "/docs/{asset}": re.compile(r"/docs/(?P<asset>[^/]+)"),
    "/web/{asset}": re.compile(r"/web/(?P<asset>[^/]+)"),
}


class Target(NamedTuple):
    """What an address names: a digest, None where its text cannot be one; that text, or what it names else; a name."""

    digest: Digest | None = None
    text: str = ""
    name: str | None = None


Handler = Callable[[Exchange, Principal, Target], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query: its name, what it means, its JSON schema, and whether it must be given."""

    name: str
    meaning: str
    schema: dict[str, Any]
    is_required: bool = False


DOCS_ASSETS = ("favicon-32x32.png", "start.js", "swagger-ui-bundle.js", "swagger-ui.css")
"""What the page ``/docs`` consists of."""

WEB = Path(__file__).parent.with_name("web")
"""Where the files of the page ``/`` lie."""

WEB_PAGE = "index.html"
WEB_ASSETS = tuple(sorted(path.name for path in WEB.iterdir() if path.suffix in (".css", ".js", ".svg")))
"""What the page ``/`` consists of besides its first file."""

_PATH_PARAMETERS = {
    "hash": Parameter("hash", "a file's hash, in either case", {"type": "string", "pattern": HASH_PATTERN}, True),
    "name": Parameter("name", "the file name to be saved under", {"type": "string"}, True),
    "upload": Parameter("upload", "a resumable upload, as its Location named it", {"type": "string"}, True),
}
_ASSETS = {"/docs/{asset}": DOCS_ASSETS, "/web/{asset}": WEB_ASSETS}


def path_parameters(path: str) -> list[Parameter]:
    """Return what stands in braces in a path of the table."""
    if path in _ASSETS:
        return [Parameter("asset", "a file of the page", {"type": "string", "enum": list(_ASSETS[path])}, True)]
    return [_PATH_PARAMETERS[name] for name in re.findall(r"{(\w+)}", path)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes with a status: a sentence, the body as a model, a media type, or None for none, and headers.

    ``as_json`` is the body that ``Accept: application/json`` asks for instead.
    """

    meaning: str
    body: type[BaseModel] | str | None = None
    headers: tuple[str, ...] = ()
    as_json: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one address.

    ``needs`` is the permission that the caller must have; ``alternative`` one that does as well. ``takes_link`` says
    that a signed link to the file lets in too. ``body`` is a model for JSON, or a media type; ``form`` is taken
    instead, as ``multipart/form-data``. ``errors`` are those of its own: what comes of access, of headers and of
    faults of the server can come everywhere. ``page`` answers a browser that asks for the address alone, without a
    query: it shows a page, which is open to everybody. ``always`` are headers of every answer at the address, errors
    too; ``headers`` those that a request may have, or must.
    """

    method: str
    path: str
    needs: Permission
    handle: Handler
    summary: str
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | str | None = None
    is_body_required: bool = True
    alternative: Permission = OPEN
    takes_link: bool = False
    form: type[BaseModel] | None = None
    errors: tuple[type[RequestError], ...] = ()
    page: Handler | None = None
    always: tuple[tuple[bytes, bytes], ...] = ()
    headers: tuple[Parameter, ...] = ()

    def require(self, principal: Principal) -> None:
        """Raise Forbidden or Unauthorized unless the caller may use this route."""
        is_by_link = self.takes_link and principal.only is not None
        if not is_by_link and not principal.permissions & self.alternative:
            principal.require(self.needs)


class Resource:
    """An address and its methods."""

    def __init__(self, path: str, routes: Iterable[Route]) -> None:
        self.path = path
        self.methods = {route.method: route for route in routes}
        self.allow = ", ".join(self.methods)
        self.is_open = all(route.needs is OPEN for route in self.methods.values())
        self.always = tuple(dict.fromkeys(header for route in self.methods.values() for header in route.always))


class Router:
    """All routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        paths = dict.fromkeys(route.path for route in self.routes)
        resources = {path: Resource(path, [route for route in self.routes if route.path == path]) for path in paths}
        self._fixed = {path: (resource, Target()) for path, resource in resources.items() if "{" not in path}
        self._patterns = [(_PATTERNS[path], resource) for path, resource in resources.items() if "{" in path]

    def find(self, path: str) -> tuple[Resource, Target] | None:
        """Return what is at an address, None where there is nothing."""
        found = self._fixed.get(path)
        if found is not None:
            return found
        for pattern, resource in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                text = match[1]
                digest = parse_digest(text) if "hash" in match.groupdict() else None
                if digest is None and resource.path.startswith("/{hash}"):
                    continue
                return resource, Target(digest, text, match.groupdict().get("name") or None)
        return None
