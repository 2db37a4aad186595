"""Uploads: small ones in one request, large ones by tus 1.0.0, gone on with after each break; all are compared."""

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from filestored.client.calls import UNCHANGED, Calls, parsed, query_of
from filestored.client.errors import ClientError, Damaged, LocalFault, NotAllowed, NotStored, shown
from filestored.client.landings import Watch, tell
from filestored.client.patience import Patience
from filestored.client.records import File, Item
from filestored.client.sources import BytesSource, HashAhead, PathSource, Source
from filestored.client.steps import Request, Steps, do, not_filestored
from filestored.client.traces import Traces
from filestored.client.tus import Resumable, Streamed
from filestored.client.wishes import Life, Wish
from filestored.digest import Algorithm

SMALL = 1 << 20
"""What has so many bytes is sent without asking first whether it is there."""

_CHUNK = 8 << 20


class Uploads:
    """The ways to upload; each method returns the steps of one. All raise ClientError."""

    def __init__(self, calls: Calls, traces: Traces, resume_from: int, user: str) -> None:
        self._calls = calls
        self._traces = traces
        self._resume_from = resume_from
        self._user = user

    def of_path(self, path: str | os.PathLike[str], wish: Wish, watch: Watch | None) -> Steps[File]:
        """Upload a file from disk. Raises SourceChanged, LocalFault."""
        source = PathSource(path)
        try:
            yield from do(source.open)
            if source.is_folder:
                raise ClientError(f"{shown(source.path)}: it is a folder; upload its files one by one")
            if not source.is_regular:
                return (yield from self.of_stream(reading(source.stream()), wish, watch))
            if source.size > self._resume_from:
                return (yield from self._resumably(source, wish, watch))
            content = yield from do(lambda: source.read_whole(max(self._resume_from, SMALL)))
            if content is None:
                raise ClientError(f"{shown(source.path)}: it has no end that is known; upload it as a stream")
        finally:
            source.close()
        return (yield from self.of_bytes(content, wish, watch))

    def of_bytes(self, content: bytes, wish: Wish, watch: Watch | None) -> Steps[File]:
        """Upload bytes in memory."""
        if len(content) > self._resume_from:
            return (yield from self._resumably(BytesSource(content), wish, watch))
        patience = self._calls.patience()
        if wish.skip and len(content) > SMALL:
            algorithm = yield from self._calls.algorithm(patience)
            digest = yield from do(lambda: algorithm.new(content).hexdigest())
            wish.require_expected(digest)
            file = (yield from self._kept(digest, wish, patience)) if wish.can_skip(digest) else None
            if file is not None:
                tell(watch, len(content), len(content))
                return file
        return (yield from self._whole(content, wish, watch, patience))

    def of_stream(self, stream: Iterable[bytes], wish: Wish, watch: Watch | None) -> Steps[File]:
        """Upload what pieces of bytes add up to, of unknown length; two chunks of it are in memory at a time."""
        chunks = _chunks(stream)
        first = yield from do(lambda: next(chunks, b""))
        second = yield from do(lambda: next(chunks, None))
        patience = self._calls.patience()
        if second is None:
            return (yield from self._whole(first, wish, watch, patience))
        return (yield from Streamed(self._calls, wish, patience, watch).run(first, second, chunks))

    def together(self, items: Sequence[Item], expires_in: Life | None) -> Steps[list[File]]:
        """Upload small files in one form (RFC 7578), all or none, each with its own digest (RFC 9530)."""
        if not items:
            return []
        if len(items) == 1:
            [item] = items
            wish = Wish(item.name, item.type, expires_in, skip=False)
            return [(yield from self._whole(item.content, wish, None, self._calls.patience()))]
        boundary = secrets.token_hex(16)
        body = yield from do(lambda: _form(items, boundary))
        request = Request(
            "POST", "/v1/files", query_of(expires_in=Wish(expires_in=expires_in).life()),
            {"Accept": "application/json", "Content-Type": f"multipart/form-data; boundary={boundary}"}, body,
        )  # fmt: skip
        answer = yield from self._calls.patience().require(request)
        is_new = answer.status == 201
        files = parsed(answer, lambda said: [File.parse(each, is_new=is_new) for each in said])
        if len(files) != len(items):
            raise not_filestored()
        yield from do(lambda: _require_all_same(items, files))
        return files

    def _whole(self, content: bytes, wish: Wish, watch: Watch | None, patience: Patience) -> Steps[File]:
        """Upload bytes in one request, again from the beginning where it breaks off."""
        checksum = yield from do(lambda: _sha256(content))
        headers = {"Accept": "application/json", "Content-Digest": f"sha-256=:{checksum}:"}
        if wish.type or not content:
            headers["Content-Type"] = wish.media_type()
        query = query_of(name=wish.name, expires_in=wish.life(), file_hash=wish.expected())
        answer = yield from patience.require(Request("POST", "/v1/files", query, headers, content))
        file = parsed(answer, lambda said: File.parse(said, is_new=answer.status == 201))
        yield from do(lambda: _require_same(content, file))
        tell(watch, len(content), len(content))
        return file

    def _kept(self, digest: str, wish: Wish, patience: Patience) -> Steps[File | None]:
        """Return the caller's file of this digest where it keeps one for ever, with the name and type that are wished.

        A life that is wished does not matter: the longer one wins.
        """
        if (yield from self._calls.missing([digest], patience)):
            return None
        try:
            file = yield from self._calls.info(digest, patience)
        except (NotStored, NotAllowed):
            return None
        # what an upload would have changed
        name = UNCHANGED if wish.name in (None, file.name) else wish.name
        media_type = UNCHANGED if wish.type in (None, file.type) else wish.type
        if name is media_type is UNCHANGED:
            return file
        return (yield from self._calls.change(digest, name, media_type, UNCHANGED, patience))

    def _resumably(self, source: Source, wish: Wish, watch: Watch | None) -> Steps[File]:
        patience = self._calls.patience()
        algorithm = yield from self._calls.algorithm(patience)
        saying = f"{wish.name}\n{wish.type}\n{wish.life()}\n{wish.expected()}"
        trace = self._traces.of(self._calls.reach.url, self._user, source.identity or "", saying)
        ahead = HashAhead(source, algorithm)
        try:
            if source.identity is not None:
                yield from do(trace.open)
            return (yield from Resumable(self._calls, self._kept, source, ahead, wish, patience, watch, trace).run())
        finally:
            ahead.stop()
            trace.close()


def _chunks(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into chunks of a fixed size; the last one may be shorter."""
    chunk = bytearray()
    for piece in stream:
        rest = memoryview(piece)
        while rest:
            taken = rest[: _CHUNK - len(chunk)]
            chunk += taken
            rest = rest[len(taken) :]
            if len(chunk) == _CHUNK:
                yield bytes(chunk)
                chunk.clear()
    if chunk:
        yield bytes(chunk)


def reading(stream: Any) -> Iterator[bytes]:
    """Return what a binary stream gives, a piece at a time. Raises ClientError where it is one of text."""
    while piece := _read_from(stream):
        yield piece


def _read_from(stream: Any) -> bytes:
    try:
        piece = stream.read(1 << 20)
    except OSError as error:
        raise LocalFault.of(getattr(stream, "name", None), error) from None
    if piece is None:
        raise LocalFault(None, "the stream has no bytes ready: one that waits for them is needed")
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise ClientError("a stream of bytes is needed: open the file in binary mode")
    return bytes(piece)


def _form(items: Sequence[Item], boundary: str) -> bytes:
    parts = []
    for item in items:
        lines = ['Content-Disposition: form-data; name="file"; ' + _file_name(item.name)]
        lines.append(f"Content-Type: {Wish(item.name, item.type).media_type()}")
        lines.append(f"Content-Digest: sha-256=:{_sha256(item.content)}:")
        head = "\r\n".join((f"--{boundary}", *lines, "", ""))
        parts += [head.encode(), item.content, b"\r\n"]
    return b"".join((*parts, f"--{boundary}--\r\n".encode()))


def _file_name(name: str | None) -> str:
    """Write a name as RFC 8187 has it; a part without one would be a text field."""
    text = quote((name or "").encode("utf-8", "surrogateescape"), safe="")
    return f"filename*=UTF-8''{text}" if text else 'filename=""'


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _require_all_same(items: Sequence[Item], files: Sequence[File]) -> None:
    for item, file in zip(items, files, strict=True):
        _require_same(item.content, file)


def _require_same(content: bytes, file: File) -> None:
    """Raise Damaged where the server names content by another hash than its bytes have."""
    try:
        algorithm = Algorithm(file.algorithm)
    except ValueError:
        raise not_filestored() from None
    if algorithm.is_available and algorithm.new(content).hexdigest() != file.hash:
        raise Damaged(f"what arrived at the server is not what was sent: it answered with the hash {file.hash}")
