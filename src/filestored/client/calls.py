"""The short operations: one request each, JSON both ways, as steps for either client."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from filestored.client.errors import ClientError, NotStored
from filestored.client.names import name_in
from filestored.client.patience import Patience, Reach, passes
from filestored.client.records import (
    Caller,
    File,
    Head,
    Link,
    Stats,
    optional_text,
    parse_time,
    spell_time,
    text,
    whole,
)
from filestored.client.steps import Answer, Broken, Request, Steps, do, not_filestored
from filestored.digest import Algorithm, Digest, parse_digest

T = TypeVar("T")

ASKED_AT_ONCE = 10_000
"""How many hashes the server takes in one question."""

_PAGE = 500
_JSON = {"Accept": "application/json"}


def own_path(url: str, address: str) -> str:
    """Return what follows ``url`` in an address that the server gave, whatever it calls itself.

    Raises ClientError for what is no address of a server.
    """
    try:
        parts, prefix = urlsplit(address), urlsplit(url).path
    except ValueError:
        raise not_filestored() from None
    if parts.scheme not in ("", "http", "https") or not parts.path.startswith("/") or not address.isprintable():
        raise not_filestored()
    path = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else parts.path
    return f"{path}?{parts.query}" if parts.query else path


class Unchanged:
    """The type of ``UNCHANGED``."""


UNCHANGED: Final = Unchanged()
"""What stays as it is, where None would say "take it away"."""


class Calls:
    """Everything but the transfer of content. Each method returns the steps of one operation.

    All raise ClientError: Unreachable, Refused and those below it.
    """

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self._algorithm: Algorithm | None = None

    def patience(self) -> Patience:
        """Begin a new operation."""
        return Patience(self.reach)

    def info(self, file_hash: str, patience: Patience | None = None) -> Steps[File]:
        """Return the caller's file; anybody's where the caller has ``admin``. Raises NotStored."""
        patience = patience or self.patience()
        answer = yield from patience.require(Request("GET", f"/v1/files/{address(file_hash)}", headers=_JSON))
        return parsed(answer, File.parse)

    def head(self, file_hash: str, patience: Patience | None = None) -> Steps[Head]:
        """Return what is told of a file to whoever may read it. Raises NotStored."""
        patience = patience or self.patience()
        answer = yield from patience.ask(Request("HEAD", f"/{address(file_hash)}"))
        if answer.status == 404:
            raise not_stored(file_hash)
        if answer.is_error:
            # an answer to HEAD has no body that would say why
            answer = yield from patience.require(
                Request("GET", f"/{address(file_hash)}", headers={"Range": "bytes=0-0"})
            )
        return head_in(answer)

    def page(
        self, query: Mapping[str, str], cursor: str | None, limit: int | None
    ) -> Steps[tuple[list[File], str | None]]:
        """Return some files in order, at most ``limit``, and the cursor of the next page, None at the end."""
        asked = {**query, "limit": str(min(limit or _PAGE, _PAGE)), **({"cursor": cursor} if cursor else {})}
        answer = yield from self.patience().require(Request("GET", "/v1/files", query=asked, headers=_JSON))
        files, following = yield from do(lambda: parsed(answer, _page))
        if following is not None and following == cursor:
            raise not_filestored()
        return files[:limit], following

    def missing(self, hashes: Iterable[str], patience: Patience | None = None) -> Steps[set[str]]:
        """Return those hashes whose files the caller does not keep itself and for ever; of any number, in portions."""
        patience = patience or self.patience()
        absent: set[str] = set()
        rest = iter(hashes)
        while portion := (yield from do(lambda: list(islice(rest, ASKED_AT_ONCE)))):
            absent |= yield from self._missing(portion, patience)
        return absent

    def _missing(self, portion: list[str], patience: Patience) -> Steps[set[str]]:
        def question() -> tuple[dict[str, list[str]], Request]:
            asked: dict[str, list[str]] = {}
            for each in portion:
                asked.setdefault(address(each), []).append(each)
            return asked, _posted("/v1/files/missing", {"hashes": list(asked), "own": True})

        asked, request = yield from do(question)
        answer = yield from patience.require(request)
        # as they were spelled
        told = yield from do(lambda: parsed(answer, lambda said: [asked[each] for each in said["missing"]]))
        return {each for spellings in told for each in spellings}

    def delete(self, file_hash: str) -> Steps[None]:
        """Delete the caller's file; for everybody where the caller has ``admin``. Raises NotStored."""
        patience = self.patience()
        request = Request("DELETE", f"/v1/files/{address(file_hash)}")
        was_sent = False
        while True:
            try:
                answer = yield from patience.ask_once(request)
            except Broken as broken:
                was_sent = was_sent or broken.was_sent
                yield from patience.after(broken)
                continue
            if passes(answer):
                yield from patience.after(answer)
                continue
            # it was there when first asked: the answer that said so was lost
            if answer.is_error and not (answer.status == 404 and was_sent):
                raise answer.error()
            return

    def link(self, file_hash: str, expires_in: str | float) -> Steps[Link]:
        """Return an address that works without a token. Raises NotStored."""
        path = f"/v1/files/{address(file_hash)}/link"
        answer = yield from self.patience().require(_posted(path, {"expires_in": expires_in}))
        return parsed(answer, lambda said: Link(text(said["url"]), parse_time(said["expires_at"])))

    def change(
        self, file_hash: str, name: str | Unchanged | None, media_type: str | Unchanged | None,
        expires_at: datetime | Unchanged | None, patience: Patience | None = None,
    ) -> Steps[File]:  # fmt: skip
        """Change what is said about the caller's file. Raises NotStored."""
        end = spell_time(expires_at) if isinstance(expires_at, datetime) else expires_at
        said = {"name": name, "type": media_type, "expires_at": end}
        wanted = {key: value for key, value in said.items() if not isinstance(value, Unchanged)}
        if not wanted:
            return (yield from self.info(file_hash, patience))
        request = _posted(f"/v1/files/{address(file_hash)}", wanted, method="PATCH")
        return parsed((yield from (patience or self.patience()).require(request)), File.parse)

    def stats(self) -> Steps[Stats]:
        """Return how much is kept: by the caller, by everybody where it has ``admin``."""
        answer = yield from self.patience().require(Request("GET", "/v1/stats", headers=_JSON))
        return parsed(answer, Stats.parse)

    def caller(self, patience: Patience | None = None) -> Steps[Caller]:
        """Return who the server takes the caller for, and what it may do."""
        answer = yield from (patience or self.patience()).require(Request("GET", "/v1/caller", headers=_JSON))
        return parsed(answer, _caller)

    def algorithm(self, patience: Patience | None = None) -> Steps[Algorithm]:
        """Return what names new files on this server; asked for once."""
        if self._algorithm is None:
            said = (yield from self.caller(patience)).algorithm
            try:
                self._algorithm = Algorithm(said)
            except ValueError:
                raise ClientError(f"the server names files by {said!r}, which this version does not know") from None
        return self._algorithm


def address(file_hash: str) -> Digest:
    """Return a hash as it goes into an address. Raises NotStored for what could not be the hash of anything."""
    digest = parse_digest(file_hash)
    if digest is None:
        raise NotStored(404, "not_found", f"{file_hash[:140]!r} is not a hash: it has 32, 40, 64 or 128 hex digits")
    return digest


def not_stored(file_hash: str) -> NotStored:
    """Return the error for an answer without a body of its own."""
    return NotStored(404, "not_found", f"No file is stored under the hash {file_hash}.")


def parsed(answer: Answer, parse: Callable[[Any], T]) -> T:
    """Read a JSON answer. Raises ClientError where it is not what filestored would say."""
    try:
        return parse(answer.json())
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise not_filestored() from None


def head_in(answer: Answer) -> Head:
    """Read what the header of a download says of the file, also where it is one of a part."""
    headers = answer.headers
    _, _, complete = headers.get("content-range", "").rpartition("/")
    try:
        size = number(complete or headers["content-length"])
    except KeyError:
        raise not_filestored() from None
    media_type = headers.get("content-type", "application/octet-stream")
    return Head(size, name_in(headers.get("content-disposition")), media_type)


def number(text: str) -> int:
    """Read a number of bytes in a header. Raises ClientError where it is none."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise not_filestored()
    return int(text)


def query_of(**given: str | None) -> dict[str, str]:
    """Return those fields of a query that were given."""
    return {key: value for key, value in given.items() if value is not None}


def query_text(query: Mapping[str, str]) -> str:
    """Write a query as UTF-8; names of local files whose bytes are no text are written by their bytes."""
    return "&".join(f"{key}={quote(value.encode('utf-8', 'surrogateescape'), safe='')}" for key, value in query.items())


def _posted(path: str, said: Mapping[str, Any], method: str = "POST") -> Request:
    headers = {**_JSON, "Content-Type": "application/json"}
    return Request(method, path, headers=headers, content=json.dumps(said).encode())


def _page(said: Mapping[str, Any]) -> tuple[list[File], str | None]:
    cursor = said["next_cursor"]
    if not isinstance(cursor, str | None):
        raise TypeError
    return [File.parse(each) for each in said["files"]], cursor


def _caller(said: Mapping[str, Any]) -> Caller:
    end = said["expires_at"]
    return Caller(
        owner=optional_text(said["owner"]),
        permissions=frozenset(map(text, said["permissions"])),
        quota=None if said["quota"] is None else whole(said["quota"]),
        expires_at=None if end is None else parse_time(end),
        algorithm=text(said["algorithm"]),
    )
