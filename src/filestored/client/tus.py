"""Uploads by tus 1.0.0: of a known size, which go on in this run or the next, and of streams, whose end will show."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from filestored.client.calls import Calls, number, own_path
from filestored.client.errors import (
    ClientError,
    Damaged,
    LocalFault,
    NotAllowed,
    NotStored,
    Refused,
    Unreachable,
    shown,
)
from filestored.client.landings import Watch, tell
from filestored.client.patience import Patience, passes
from filestored.client.records import File
from filestored.client.sources import HashAhead, Source, pieces
from filestored.client.steps import Answer, Broken, Request, Steps, ask, do, not_filestored
from filestored.client.traces import Trace
from filestored.client.wishes import Wish
from filestored.digest import Algorithm, Hash

_TUS = {"Tus-Resumable": "1.0.0"}
_BYTES = {"Content-Type": "application/offset+octet-stream"}
_CLEARING_SECONDS = 2.0

Kept = Callable[[str, Wish, Patience], Steps[File | None]]
"""Finds the caller's file of a digest where it keeps one for ever, with the name and type that are wished."""


class Tus:
    """One upload by tus: begun, asked about, given up.

    ``offset`` is what the server has said last. Only more than it has ever had counts as progress: what goes into a
    socket may get lost.
    """

    def __init__(self, calls: Calls, wish: Wish, patience: Patience, watch: Watch | None) -> None:
        self.calls = calls
        self.wish = wish
        self.patience = patience
        self.watch = watch
        self.upload: str | None = None
        self.offset = 0
        self._furthest = 0

    def create(self, length: dict[str, str]) -> Steps[None]:
        """Begin an upload; ``length`` is the header that says how long it will be, or that this will show."""
        said = {"filename": self.wish.name, "filetype": self.wish.type, "hash": self.wish.expected()}
        said["expires_in"] = self.wish.life()
        metadata = ",".join(f"{key} {_base64(value)}" for key, value in said.items() if value)
        request = Request("POST", "/v1/uploads", headers={**_TUS, **length, "Upload-Metadata": metadata}, content=b"")
        answer = yield from self.patience.require(request)
        self.upload = own_path(self.calls.reach.url, answer.headers.get("location", ""))
        self.offset = 0

    def ask_offset(self) -> Steps[Answer | None]:
        """Return what the server says of the upload, None where it has none any more."""
        assert self.upload is not None
        answer = yield from self.patience.ask(Request("HEAD", self.upload, headers=_TUS))
        if answer.status in (404, 410):
            return None
        if answer.is_error:
            # an answer to HEAD has no body that would say why
            raise Answer(answer.status, answer.headers).error()
        return answer

    def send(self, request: Request) -> Steps[Answer | None]:
        """Send bytes; return what the server says of the upload afterwards, None where it has none any more."""
        try:
            answer = yield from self.patience.ask_once(request)
        except Broken as broken:
            yield from self.patience.after(broken)
            return (yield from self.ask_offset())
        if answer.status in (404, 410):
            return None
        if passes(answer):
            yield from self.patience.after(answer)
        if passes(answer) or answer.status == 409:
            return (yield from self.ask_offset())
        if answer.is_error:
            raise answer.error()
        return answer

    def note_offset(self, answer: Answer, size: int | None) -> Steps[None]:
        """Note how far the server says it is, and wait a moment where that is no further than ever."""
        self.offset = number(answer.headers.get("upload-offset", ""))
        if size is not None and self.offset > size:
            raise not_filestored()
        if self.offset > self._furthest:
            self._furthest = self.offset
            self.patience.has_progressed()
        else:
            yield from self.patience.after(Broken("the server takes no more of the upload", was_sent=True))
        tell(self.watch, self.offset, size)

    def discard(self) -> Steps[None]:
        """Give the upload up, if that can be done at once: the server forgets it in time by itself."""
        if self.upload is not None:
            try:
                yield from ask(Request("DELETE", self.upload, headers=_TUS, timeout=_CLEARING_SECONDS))
            except (Broken, ClientError):
                return

    def result(self, answer: Answer, digest: str, size: int, algorithm: Algorithm, *, is_new: bool) -> Steps[File]:
        """Return the file that an upload has become. Raises Damaged where its hash is another one."""
        stored = answer.headers.get("filestored-hash", "")
        if stored != digest:
            raise Damaged(
                f"{shown(self.wish.name or 'the upload')}: what arrived at the server has another hash "
                f"({shown(stored[:140])}) than what was read ({digest}): it was changed while it was read, or damaged "
                "on the way"
            )
        try:
            file = yield from self.calls.info(digest, self.patience)
        except (NotAllowed, NotStored):
            # a token that may only write is not told
            caller = yield from self.calls.caller(self.patience)
            return _described(self.wish, digest, size, algorithm, caller.owner, is_new=is_new)
        return replace(file, is_new=is_new)


class Resumable(Tus):
    """An upload of a known size that goes on where it was, in this run and in the next."""

    def __init__(
        self, calls: Calls, kept: Kept, source: Source, ahead: HashAhead, wish: Wish, patience: Patience,
        watch: Watch | None, trace: Trace,
    ) -> None:  # fmt: skip
        super().__init__(calls, wish, patience, watch)
        self._kept = kept
        self._source = source
        self._ahead = ahead
        self._trace = trace
        self._has_asked = False
        self._is_new = True

    def run(self) -> Steps[File]:
        """Upload the source, or find that the caller keeps it. Raises SourceChanged, Damaged, LocalFault."""
        try:
            return (yield from self._run())
        except ClientError as error:
            # what the source is no more, or the server will not take, is of no use for the next run
            if not _may_pass(error):
                yield from self._give_up()
            raise

    def _run(self) -> Steps[File]:
        algorithm = yield from self.calls.algorithm(self.patience)
        self.upload = yield from do(self._trace.recall)
        answer = (yield from self.ask_offset()) if self.upload else None
        while True:
            if answer is None:
                yield from self._begin()
            elif "filestored-hash" in answer.headers:
                digest = yield from do(self._ahead.digest)
                size = self._source.size
                file = yield from self.result(answer, digest, size, algorithm, is_new=self._is_new)
                self._trace.forget()
                return file
            else:
                yield from self.note_offset(answer, self._source.size)
                if self.offset == self._source.size:
                    raise not_filestored()
            kept = (yield from self._find_kept()) if self._ahead.has_ended and not self._has_asked else None
            if kept is not None:
                return kept
            answer = yield from self._send()

    def _begin(self) -> Steps[None]:
        if self.upload is not None:
            yield from self.patience.after(Broken("the server has lost the upload", was_sent=True))
        yield from self.create({"Upload-Length": str(self._source.size)})
        assert self.upload is not None
        self._trace.note(self.upload)

    def _find_kept(self) -> Steps[File | None]:
        """Return the file where the caller keeps it already and it need not be sent."""
        self._has_asked = True
        digest = yield from do(self._ahead.digest)
        self.wish.require_expected(digest)
        if not self.wish.can_skip(digest):
            self._is_new = bool((yield from self.calls.missing([digest], self.patience)))
            return None
        file = yield from self._kept(digest, self.wish, self.patience)
        if file is not None:
            yield from self._give_up()
            tell(self.watch, self._source.size, self._source.size)
        return file

    def _send(self) -> Steps[Answer | None]:
        assert self.upload is not None
        headers = {**_TUS, **_BYTES, "Upload-Offset": str(self.offset)}
        return (yield from self.send(Request("PATCH", self.upload, headers=headers, pieces=self._pieces)))

    def _pieces(self) -> Iterator[bytes]:
        """Return what is left, up to where it becomes known whether it has to be sent at all.

        The last piece goes only when all of the source has been read once and is unchanged: what is in the server's
        hands is never more than what was meant.
        """
        at = self.offset
        for piece in pieces(self._source, self.offset, self._source.size):
            if at + len(piece) == self._source.size:
                self.wish.require_expected(self._ahead.digest())
                self._source.require_unchanged()
            if at > self.offset and self._ahead.has_ended and not self._has_asked:
                return
            yield piece
            at += len(piece)
            self.patience.require_time()
            tell(self.watch, at, self._source.size)

    def _give_up(self) -> Steps[None]:
        try:
            yield from self.discard()
        finally:
            self._trace.forget()


class Streamed(Tus):
    """An upload whose length is known only at its end, in chunks that are kept until the server has them."""

    def run(self, first: bytes, second: bytes, rest: Iterator[bytes]) -> Steps[File]:
        """Upload chunks, of which the first two are there already. Raises Damaged."""
        algorithm = yield from self.calls.algorithm(self.patience)
        hashed = algorithm.new()
        try:
            yield from self.create({"Upload-Defer-Length": "1"})
            answer, is_new = yield from self._send_all(hashed, first, second, rest)
        except BaseException:
            yield from self.discard()
            raise
        return (yield from self.result(answer, hashed.hexdigest(), self.offset, algorithm, is_new=is_new))

    def _send_all(self, hashed: Hash, chunk: bytes, second: bytes, rest: Iterator[bytes]) -> Steps[tuple[Answer, bool]]:
        """Send chunk after chunk; of the last one it must be known that it is."""
        following: bytes | None = second
        while following is not None:
            yield from do(partial(hashed.update, chunk))
            yield from self._send(chunk, is_last=False)
            chunk, following = following, (yield from do(lambda: next(rest, None)))
        yield from do(partial(hashed.update, chunk))
        digest = hashed.hexdigest()
        self.wish.require_expected(digest)
        is_new = bool((yield from self.calls.missing([digest], self.patience)))
        return (yield from self._send(chunk, is_last=True)), is_new

    def _send(self, chunk: bytes, *, is_last: bool) -> Steps[Answer]:
        """Send a chunk until the server has all of it."""
        assert self.upload is not None
        begin, end = self.offset, self.offset + len(chunk)
        length = {"Upload-Length": str(end)} if is_last else {}
        while True:
            headers = {**_TUS, **_BYTES, **length, "Upload-Offset": str(self.offset)}
            rest = chunk[self.offset - begin :]
            answer = yield from self.send(Request("PATCH", self.upload, headers=headers, content=rest))
            if answer is None:
                raise ClientError("the server has lost the upload; send it again")
            if "filestored-hash" not in answer.headers or not is_last:
                yield from self.note_offset(answer, None)
            else:
                self.offset = end
                tell(self.watch, end, end)
                return answer
            if not begin <= self.offset <= end or (is_last and self.offset == end):
                raise not_filestored()
            if self.offset == end:
                return answer


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _may_pass(error: ClientError) -> bool:
    """Tell whether another run may succeed where this one failed, with what the server has of the upload."""
    has_no_room = isinstance(error, Refused) and error.status >= 500
    return has_no_room or isinstance(error, Unreachable | LocalFault | NotAllowed)


def _described(wish: Wish, digest: str, size: int, algorithm: Algorithm, owner: str | None, *, is_new: bool) -> File:
    return File(
        digest, algorithm.value, size, wish.name, wish.media_type(), owner, datetime.now(UTC), wish.end(), f"/{digest}",
        is_new=is_new,
    )  # fmt: skip
