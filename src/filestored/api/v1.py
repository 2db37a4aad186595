"""``/v1``: what there is to know and to do besides the bytes, in JSON."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from filestored import __version__
from filestored.access import STRANGER, Permission, Principal
from filestored.api import names
from filestored.api.arrivals import Arrivals
from filestored.api.bodies import end_of
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange, Headers
from filestored.api.files import FileRoutes, digest_of
from filestored.api.gate import Gate
from filestored.api.intake import Intake
from filestored.api.models import (
    MAX_HASHES,
    Caller,
    FileDescription,
    FileObject,
    FilePage,
    FilePatch,
    Hashes,
    Link,
    LinkWish,
    Missing,
    Stats,
    Uploaded,
    UploadForm,
)
from filestored.api.qr import qr_svg
from filestored.api.representations import JSON, NO_SNIFF, NO_STORE, base_url, file_object, timestamp
from filestored.api.root import DELETE_ERRORS, DELETED, UPLOAD_ERRORS, UPLOAD_PARAMETERS
from filestored.api.routes import BYTES, Answer, Parameter, Route, Target
from filestored.api.stalls import Stalls
from filestored.catalogue.listing import Page, Pattern, Place, Query, Sort
from filestored.catalogue.records import KEPT, UNKNOWN_TYPE, FileChange, now_milliseconds
from filestored.digest import Digest, parse_digest
from filestored.errors import BadRequest, Busy, NotFound, OutOfSpace, PreconditionFailed, RequestTimeout, TooLarge
from filestored.filestore import Filestore
from filestored.signing import Signer

MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_HASHES_BYTES = 2 << 20
"""The longest JSON body with hashes: ten thousand of the longest."""

MAX_HASHES_UNDER_WAY = 64
"""How many such bodies a worker takes at once."""

MAX_JSON_BYTES = 16 * 1024
"""The longest other JSON body."""

_MAX_PATTERN = 1024
_MAX_END = 253402300799999  # of the year 9999, in milliseconds: times are written with four digits of it

_JSON_ERRORS = (BadRequest, RequestTimeout, TooLarge)

M = TypeVar("M", bound=BaseModel)

_PATTERN_SCHEMA = {"type": "string", "maxLength": _MAX_PATTERN}
_LISTING = (
    Parameter("limit", "files a page", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}),
    Parameter("cursor", "next_cursor of the page before", {"type": "string", "minLength": 1}),
    Parameter("name", "what the name begins with; * stands for anything", _PATTERN_SCHEMA),
    Parameter("type", "what the type begins with; * stands for anything", _PATTERN_SCHEMA),
    Parameter("sort", "the order", {"type": "string", "enum": [sort.value for sort in Sort], "default": "-created_at"}),
)


class V1Routes:
    """Files as objects: upload, list, show, change, delete; links; what is missing; how much there is."""

    def __init__(
        self, filestore: Filestore, gate: Gate, arrivals: Arrivals, files: FileRoutes, downloads: Downloads,
        signer: Signer, body_timeout: float, stalls: Stalls,
    ) -> None:  # fmt: skip
        self._filestore = filestore
        self._gate = gate
        self._files = files
        self._arrivals = arrivals
        self._downloads = downloads
        self._signer = signer
        self._body_timeout = body_timeout
        self._hashes_under_way = 0
        self._stalls = stalls

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        read, write, delete = Permission.READ, Permission.WRITE, Permission.DELETE
        return [
            Route(
                "GET", "/v1/files", read, self._list, "List files", {200: Answer("A page.", FilePage)}, _LISTING,
                errors=(BadRequest,),
            ),
            Route(
                "POST", "/v1/files", write, self._add, "Upload a file, get its description",
                {
                    201: Answer("New for this owner.", Uploaded, ("Location",)),
                    200: Answer("The owner had it already.", Uploaded, ("Location",)),
                },
                UPLOAD_PARAMETERS, BYTES, form=UploadForm, errors=UPLOAD_ERRORS,
            ),
            Route(
                "POST", "/v1/files/missing", read, self._find_missing, "Ask which of some hashes have to be uploaded",
                {200: Answer("Those that are not there.", Missing)}, (), Hashes, alternative=write,
                errors=(*_JSON_ERRORS, Busy),
            ),
            Route(
                "GET", "/v1/files/{hash}", read, self._show, "Describe a file",
                {200: Answer("Its description.", FileDescription)}, errors=(NotFound,),
            ),
            Route(
                "PATCH", "/v1/files/{hash}", write, self._change, "Change a file's name, type or life",
                {200: Answer("Its description afterwards.", FileObject)}, (), FilePatch,
                errors=(*_JSON_ERRORS, NotFound, PreconditionFailed, Busy, OutOfSpace),
            ),
            Route(
                "DELETE", "/v1/files/{hash}", delete, self._files.delete, "Delete a file",
                {200: DELETED}, errors=DELETE_ERRORS,
            ),
            Route(
                "POST", "/v1/files/{hash}/link", read, self._link, "Make an address that works without a token",
                {200: Answer("The address.", Link)}, (), LinkWish, is_body_required=False,
                errors=(*_JSON_ERRORS, NotFound),
            ),
            Route(
                "GET", "/v1/caller", read, self._tell_caller, "Tell who asks, and what it may do",
                {200: Answer("What its token, or the want of one, stands for.", Caller)}, alternative=write | delete,
            ),
            Route("GET", "/v1/stats", read, self._measure, "Tell how much is kept", {200: Answer("Sums.", Stats)}),
        ]  # fmt: skip

    async def _list(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._gate.freshen_key()
        query = self._read_query(exchange.query)
        page = await self._filestore.list_files(principal, query)
        # a thousand files are more than the event loop should be kept from others for
        body = await self._filestore.in_thread(self._render_page, page, query.sort, exchange)
        await exchange.answer(200, [JSON, NO_STORE, NO_SNIFF], body)

    def _render_page(self, page: Page, sort: Sort, exchange: Exchange) -> bytes:
        cursor = None if page.end is None else self._signer.sign_cursor([sort.value, *page.end])
        files = [file_object(file, self._filestore.algorithm, exchange) for file in page.files]
        return _encoded({"files": files, "next_cursor": cursor})

    def _read_query(self, query: dict[str, str]) -> Query:
        known = [parameter.name for parameter in _LISTING]
        unknown = next((name for name in query if name not in known), None)
        if unknown is not None:
            raise BadRequest(f"A listing has no parameter {unknown[:60]!r}; it has {', '.join(known)}.")
        sort = _sort(query.get("sort", Sort.CREATED_AT_DESCENDING.value))
        after = self._place(query["cursor"], sort) if "cursor" in query else None
        return Query(
            _limit(query.get("limit", str(DEFAULT_PAGE))),
            sort,
            after,
            _pattern("name", query.get("name")),
            _pattern("type", query.get("type")),
        )

    def _place(self, cursor: str, sort: Sort) -> Place:
        place = self._signer.read_cursor(cursor)
        if place is None:
            raise BadRequest("cursor is not one that this server gave; begin without one, then give next_cursor.")
        order, key, number = place
        if order != sort.value:
            raise BadRequest(f"cursor belongs to a listing with sort={order}; keep the sort of the first page.")
        return Place(key, int(number))

    async def _add(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        added = await self._arrivals.take(exchange, principal)
        exchange.digest = ",".join(item.file.digest for item in added)
        objects = [file_object(item.file, self._filestore.algorithm, exchange) for item in added]
        status = 201 if any(item.is_new for item in added) else 200
        location = (b"location", b"/" + added[0].file.digest.encode())
        await _answer(
            exchange, status, objects[0] if len(objects) == 1 else objects, [location] if len(objects) == 1 else []
        )

    async def _find_missing(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        with self._place_for_hashes():
            body, principal = await self._read_body(exchange, principal, MAX_HASHES_BYTES)
            digests, is_own_only = await self._filestore.in_thread(_question_in, body)
            missing = await self._filestore.find_missing(principal, digests, is_own_only=is_own_only)
            answer = await self._filestore.in_thread(_encoded, {"missing": missing})
        await exchange.answer(200, [JSON, NO_STORE, NO_SNIFF], answer)

    @contextmanager
    def _place_for_hashes(self) -> Iterator[None]:
        """Hold one of the places for bodies with hashes, which are large. Raises Busy where all are taken."""
        if self._hashes_under_way >= MAX_HASHES_UNDER_WAY:
            raise Busy("Many are asking what is missing; try again in a moment.")
        self._hashes_under_way += 1
        try:
            yield
        finally:
            self._hashes_under_way -= 1

    async def _show(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        file, owners = await self._filestore.find_file(principal, digest_of(target))
        described = file_object(file, self._filestore.algorithm, exchange)
        await _answer(exchange, 200, described | {"owners": owners} if principal.sees_all else described)

    async def _change(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        digest = digest_of(target)
        body, principal = await self._read_body(exchange, principal, MAX_JSON_BYTES)
        change = _change_of(_parsed(body, FilePatch))
        await self._downloads.require_preconditions(exchange, principal, digest)
        file = await self._filestore.change_file(principal, digest, change)
        await _answer(exchange, 200, file_object(file, self._filestore.algorithm, exchange))

    async def _link(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        body, principal = await self._read_body(exchange, principal, MAX_JSON_BYTES)
        wish = _parsed(body or b"{}", LinkWish)
        # a link must not outlive the token that makes it
        expires = min(_end_of_link(wish), principal.expires_at or _MAX_END) // 1000
        digest = digest_of(target)
        name = await self._filestore.find_name(principal, digest)
        await self._gate.freshen_key()
        url = base_url(exchange) + self._signer.link_path(digest, name, expires)
        link = {"url": url, "expires_at": timestamp(expires * 1000)}
        if wish.qr:
            link["qr"] = await self._filestore.in_thread(qr_svg, url)
        await _answer(exchange, 200, link)

    async def _tell_caller(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        may = [permission.spelled() for permission in Permission if permission & principal.permissions]
        end = principal.expires_at
        await _answer(
            exchange,
            200,
            {
                "owner": None if principal.owner == STRANGER else principal.owner, "permissions": may,
                "quota": principal.quota, "expires_at": None if end is None else timestamp(end),
                "algorithm": self._filestore.algorithm.value,
            },
        )  # fmt: skip

    async def _measure(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        usage, free = await self._filestore.measure(principal)
        await _answer(
            exchange,
            200,
            {
                "files": usage.files, "blobs": usage.blobs, "bytes": usage.bytes, "free": free,
                "algorithm": self._filestore.algorithm.value, "version": __version__,
            },
        )  # fmt: skip

    async def _read_body(self, exchange: Exchange, principal: Principal, most: int) -> tuple[bytes, Principal]:
        """Read a body of at most ``most`` bytes; return it, and who asks now that it is there.

        Unlike an upload it is to be there as a whole in the time that an upload may be silent for. Raises TooLarge,
        RequestTimeout, ClientGone, Unauthorized.
        """
        intake = Intake(exchange, self._stalls.guard(self._body_timeout), most)
        pieces = []
        try:
            async with asyncio.timeout(self._body_timeout):
                while piece := await intake.read():
                    pieces.append(piece)
        except TimeoutError:
            raise RequestTimeout("The body took too long; send it at once.") from None
        return b"".join(pieces), await self._gate.admit_again(exchange, principal)


def _decoded(body: bytes, model: type[BaseModel]) -> dict[str, object]:
    """Return the fields of a JSON object. Raises BadRequest where it is none, or has one that the model does not."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    unknown = next((name for name in fields if name not in model.model_fields), None)
    if unknown is not None:
        raise BadRequest(f"There is no field {unknown[:100]!r} here; there is {', '.join(model.model_fields)}.")
    return fields


def _parsed(body: bytes, model: type[M]) -> M:
    """Return a small body as what its model says. Raises BadRequest."""
    _decoded(body, model)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(_explained(error)) from None


def _question_in(body: bytes) -> tuple[list[Digest], bool]:
    """Return the digests that a request asks about, each once, and whether among the caller's own. Raises BadRequest.

    By hand: a model would note every mistake of ten thousand, and keep the event loop waiting meanwhile.
    """
    said = _decoded(body, Hashes)
    hashes, own = said.get("hashes"), said.get("own", False)
    if not isinstance(hashes, list):
        raise BadRequest('Give the hashes to ask about: {"hashes": ["…", "…"]}.')
    if len(hashes) > MAX_HASHES:
        raise BadRequest(f"hashes: at most {MAX_HASHES} are taken at once; ask in several requests.")
    if not isinstance(own, bool):
        raise BadRequest("own: it must be true or false.")
    return list(dict.fromkeys(map(_hash, hashes))), own


def _end_of_link(wish: LinkWish) -> int:
    life = wish.expires_in
    return end_of(life if isinstance(life, str) else f"{life:.3f}")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PAGE):
        raise BadRequest(f"limit={text[:40]!r} makes no sense: give a whole number from 1 to {MAX_PAGE}.")
    return int(text)


def _sort(text: str) -> Sort:
    try:
        return Sort(text)
    except ValueError:
        raise BadRequest(f"sort={text[:40]!r} makes no sense: give one of {', '.join(Sort)}.") from None


def _pattern(name: str, text: str | None) -> Pattern | None:
    if text is not None and len(text) > _MAX_PATTERN:
        raise BadRequest(f"{name} has {len(text)} characters; a pattern has at most {_MAX_PATTERN}.")
    return Pattern.parse(text) if text else None


def _hash(text: object) -> Digest:
    digest = parse_digest(text) if isinstance(text, str) else None
    if digest is None:
        raise BadRequest(f"hashes holds {str(text)[:140]!r}, which is no hash: give 32, 40, 64 or 128 hex digits each.")
    return digest


def _change_of(patch: FilePatch) -> FileChange:
    """Return what a patch changes. Raises BadRequest where a value makes no sense."""
    given = patch.model_fields_set
    if not given:
        raise BadRequest("Nothing is to change: give name, type or expires_at.")
    name = names.clean_name(patch.name) if patch.name else None
    media_type = _guess if patch.type is None else names.parse_media_type(patch.type)
    return FileChange(
        name if "name" in given else KEPT,
        media_type if "type" in given else KEPT,
        _end_in(patch) if "expires_at" in given else KEPT,
    )


def _guess(name: str | None) -> str:
    return names.guess_type(name) if name else UNKNOWN_TYPE


def _end_in(patch: FilePatch) -> int | None:
    if patch.expires_at is None:
        return None
    end = int(patch.expires_at.timestamp() * 1000)
    if not now_milliseconds() < end <= _MAX_END:
        raise BadRequest("expires_at lies in the past, or beyond the year 9999; to end the file now DELETE it.")
    return end


def _explained(error: ValidationError) -> str:
    """Say in a sentence what is wrong with JSON that does not fit its model."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # of what comes after the field only a number in a list says anything to a client
    place = ".".join(str(part) for at, part in enumerate(fault["loc"]) if at == 0 or isinstance(part, int))[:100]
    if fault["type"] == "json_invalid":
        return f"The body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}."
    if fault["type"] == "extra_forbidden":
        return f"There is no field {place!r} here."
    if fault["type"] == "too_long":
        return f"{place}: at most {MAX_HASHES} are taken at once; ask in several requests."
    return f"{place}: {fault['msg']}." if place else f"{fault['msg']}."


async def _answer(exchange: Exchange, status: int, body: object, headers: Headers | None = None) -> None:
    await exchange.answer(status, [JSON, NO_STORE, NO_SNIFF, *(headers or [])], _encoded(body))


def _encoded(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
