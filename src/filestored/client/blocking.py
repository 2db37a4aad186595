"""The client that blocks: for scripts, threads and the command line."""

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, overload

import httpx

from filestored.client.calls import UNCHANGED, Unchanged
from filestored.client.landings import Watch
from filestored.client.operations import DEFAULT_URL, RESUME_FROM, Operations
from filestored.client.records import Caller, File, Head, Item, Link, Received, Stats
from filestored.client.steps import Answer, Broken, Do, Effect, Request, Steps, Wait
from filestored.client.traces import state_folder
from filestored.client.transports import (
    FAILURES,
    MOST_REDIRECTIONS,
    Beginning,
    answer_of,
    body_of,
    broken,
    client_options,
    enlarge_reads,
    redirection,
    require_time,
    sending_options,
)
from filestored.client.wishes import Life, Wish
from filestored.digest import Algorithm

T = TypeVar("T")

StrPath = str | os.PathLike[str]


class Client:
    """A filestored server, as seen from Python. Threads may share one; close it, or use it in a ``with`` block.

    ``url`` is the server's address. ``token`` is sent to it alone. ``verify`` is the path of a file of CA certificates,
    or False to trust any. ``timeout`` is the longest wait for a byte, ``retry_for`` how long failures in a row are
    tried again, ``deadline`` how long an operation may take in all, each in seconds; a server that never answered is
    not tried again. Files above ``resume_from`` bytes are uploaded resumably; what is unfinished is remembered in the
    folder ``state``, None for nowhere. ``connections`` is how many are open at once.

    Every method raises ClientError: Unreachable, Refused (NotStored, NotAllowed, TooMuch), Damaged, SourceChanged,
    LocalFault.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        verify: bool | StrPath = True,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        deadline: float | None = None,
        connections: int = 16,
        resume_from: int = RESUME_FROM,
        state: StrPath | None = UNCHANGED,  # type: ignore[assignment]
    ) -> None:
        folder = state_folder() if isinstance(state, Unchanged) else state
        self._timeout = timeout
        self._does = Operations(url, token, retry_for, deadline, resume_from, folder)
        options = self._does.opened(lambda: client_options(self._does.token, verify, timeout, connections))
        self._http = self._does.opened(lambda: httpx.Client(**options))
        enlarge_reads(self._http)

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._does.url

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # uploads

    def put(
        self,
        source: StrPath | bytes | BinaryIO | Iterable[bytes],
        *,
        name: str | None = None,
        type: str | None = None,
        expires_in: Life | None = None,
        hash: str | None = None,
        skip: bool = True,
        progress: Watch | None = None,
    ) -> File:
        """Store a file: a path, bytes, a binary stream or an iterable of bytes; return what the server knows of it.

        ``name`` is by default the last part of the path; ``type`` its media type, else guessed from the name by the
        server. ``expires_in`` is in seconds, a timedelta or like ``"7d"``. ``hash`` is the one the content must have:
        with another one Damaged is raised and nothing is stored. With ``skip`` what the caller keeps already is not
        sent. What arrived is compared with what was read. ``progress`` is called with the bytes sent and the bytes in
        all, None where that is not known.
        """
        wish = Wish(name, type, expires_in, hash, skip)
        return self._run(self._does.put(source, wish, progress))

    def put_together(self, items: Sequence[Item], *, expires_in: Life | None = None) -> list[File]:
        """Store small files that are in memory by one request, all or none; much faster than one by one.

        Their sizes should add up to a few MiB. Returns their files in the same order, each compared with its bytes.
        """
        return self._run(self._does.uploads.together(items, expires_in))

    # downloads

    @overload
    def get(self, hash: str, to: None = None, *, progress: Watch | None = None) -> bytes: ...
    @overload
    def get(
        self, hash: str, to: StrPath | BinaryIO, *, replace: bool = False, progress: Watch | None = None
    ) -> Received: ...
    def get(
        self, hash: str, to: StrPath | BinaryIO | None = None, *, replace: bool = False, progress: Watch | None = None
    ) -> bytes | Received:
        """Fetch a file and compare it with its hash: as bytes, to a path, into a folder or to a binary stream.

        A path takes shape under a hidden name beside it, which the next call goes on from where this one breaks off.
        Into a folder it goes under the name it has at the server, made harmless. Another file of that name raises
        LocalFault unless ``replace``; one with the same content is left. Raises NotStored, Damaged, LocalFault.
        """
        return self._run(self._does.get(hash, to, progress, replace=replace))

    @contextmanager
    def stream(self, hash: str) -> Iterator["Stream"]:
        """Open a file as an iterable of bytes, which goes on where a connection breaks off.

        ``size``, ``name`` and ``type`` are known when it is open. After the last piece it raises Damaged where the
        bytes are not what the hash says; whoever stops before has them unchecked.
        """
        heads: list[Head] = []
        pieces = self._drive(self._does.downloads.stream(hash, heads.append))
        try:
            first = next(pieces, b"")
            yield Stream(heads[0], first, pieces)
        finally:
            pieces.close()

    def read(self, hash: str, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to before ``end``, fewer at the end; not compared with the hash."""
        return self._run(self._does.downloads.read(hash, start, end))

    # what there is to know, and to change

    def info(self, hash: str) -> File:
        """Return what the server knows of the caller's file; of anybody's with ``admin``. Raises NotStored."""
        return self._run(self._does.calls.info(hash))

    def head(self, hash: str) -> Head:
        """Return size, name and type of a file, to whoever may read it. Raises NotStored."""
        return self._run(self._does.calls.head(hash))

    def list(
        self, *, name: str | None = None, type: str | None = None, sort: str = "-created_at", limit: int | None = None
    ) -> Iterator[File]:
        """Return the caller's files, with ``admin`` those of all, fetching them as they are asked for.

        ``name`` and ``type`` are what they begin with, ``*`` stands for anything; ``sort`` is ``created_at``, ``name``
        or ``size``, with ``-`` for descending. At most ``limit`` come.
        """
        query = self._does.listing(name, type, sort)
        cursor: str | None = None
        while limit is None or limit > 0:
            files, cursor = self._run(self._does.calls.page(query, cursor, limit))
            yield from files
            limit = None if limit is None else limit - len(files)
            if cursor is None:
                return

    def missing(self, hashes: Iterable[str]) -> set[str]:
        """Return those of any number of hashes whose files the caller does not keep itself and for ever."""
        return self._run(self._does.calls.missing(hashes))

    def delete(self, hash: str) -> None:
        """Delete the caller's file; with ``admin`` for everybody. Raises NotStored."""
        self._run(self._does.calls.delete(hash))

    def link(self, hash: str, expires_in: str | float = "1h") -> Link:
        """Return an address that reads this file without a token for a while. Raises NotStored."""
        return self._run(self._does.calls.link(hash, expires_in))

    def change(
        self,
        hash: str,
        *,
        name: str | Unchanged | None = UNCHANGED,
        type: str | Unchanged | None = UNCHANGED,
        expires_at: datetime | Unchanged | None = UNCHANGED,
    ) -> File:
        """Change name, type or end of the caller's file; None takes it away. Raises NotStored."""
        return self._run(self._does.calls.change(hash, name, type, expires_at))

    def stats(self) -> Stats:
        """Return how much the caller keeps, with ``admin`` how much all do."""
        return self._run(self._does.calls.stats())

    def caller(self) -> Caller:
        """Return who the server takes the caller for, and what it may do."""
        return self._run(self._does.calls.caller())

    def algorithm(self) -> Algorithm:
        """Return the hash function that names new files at this server; asked for once."""
        return self._run(self._does.calls.algorithm())

    # performing the steps

    def _run(self, steps: Steps[T]) -> T:
        driven = self._drive(steps)
        while True:
            try:
                next(driven)
            except StopIteration as end:
                result: T = end.value
                return result

    def _drive(self, steps: Steps[T]) -> Generator[bytes, None, T]:
        """Perform steps to their end; yield the pieces of bodies that go to the caller."""
        try:
            effect = next(steps)
            while True:
                try:
                    reply = yield from self._perform(effect)
                except BaseException as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def _perform(self, effect: Effect) -> Generator[bytes, None, Any]:
        if isinstance(effect, Request):
            return (yield from self._send(effect))
        if isinstance(effect, Wait):
            time.sleep(effect.seconds)
            return None
        assert isinstance(effect, Do)
        return effect.work()

    def _send(self, request: Request) -> Generator[bytes, None, Answer]:
        body = body_of(request)
        try:
            options = sending_options(request, self._timeout)
            built = self._http.build_request(request.method, self._does.absolute(request), content=body, **options)
            response = self._opened(built, request)
            try:
                self._does.calls.reach.was_reached = True
                return (yield from self._receive(request, response))
            finally:
                response.close()
        except FAILURES as error:
            raise broken(error) from None

    def _opened(self, built: httpx.Request, request: Request) -> httpx.Response:
        """Send a request, and go where a download is sent; return the answer, its body unread."""
        for _ in range(MOST_REDIRECTIONS + 1):
            require_time(request)
            response = self._http.send(built, stream=True, follow_redirects=False)
            following = redirection(response, request)
            if following is None:
                return response
            response.close()
            built = following
        raise Broken("it sends elsewhere too often", was_sent=True, is_final=True)

    def _receive(self, request: Request, response: httpx.Response) -> Generator[bytes, None, Answer]:
        if response.status_code >= 300 or request.landing is None:
            beginning = Beginning(response, request)
            for piece in response.iter_raw():
                if not beginning.take(piece):
                    break
            return beginning.answer(response)
        answer = answer_of(response)
        request.landing.open(answer)
        for piece in response.iter_raw():
            require_time(request)
            request.landing.write(piece)
            if request.is_streamed:
                yield piece
        return answer


class Stream:
    """A download under way: iterate over it for the bytes, once."""

    def __init__(self, head: Head, first: bytes, rest: Iterator[bytes]) -> None:
        self.size = head.size
        """Bytes in all."""
        self.name = head.name
        """The file's name at the server, not made harmless; None where it has none."""
        self.type = head.type
        """Its media type."""
        self._first = first
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        first, self._first = self._first, b""
        if first:
            yield first
        yield from self._rest
