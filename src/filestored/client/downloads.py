"""Downloads: begun, gone on with after each break from where they were, and compared with their hash."""

import os
import stat
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from filestored.client.calls import Calls, address, head_in, not_stored, number
from filestored.client.errors import LocalFault
from filestored.client.landings import (
    Arrival,
    FileLanding,
    MemoryLanding,
    StreamLanding,
    Watch,
    clear_partial,
    damaged,
    has_content,
    is_special,
    occupied,
    tell,
)
from filestored.client.names import harmless_name
from filestored.client.patience import Patience, passes
from filestored.client.records import Head, Received
from filestored.client.steps import Answer, Broken, Request, Steps, do, not_filestored
from filestored.digest import Digest


class Downloads:
    """The ways to download a file; each method returns the steps of one. All raise ClientError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def to_memory(self, file_hash: str, watch: Watch | None) -> Steps[bytes]:
        """Return the bytes of a file. Raises NotStored, Damaged."""
        landing = MemoryLanding(address(file_hash), watch)
        yield from self._land(landing, self._calls.patience())
        return (yield from do(landing.content))

    def to_stream(self, file_hash: str, stream: BinaryIO, watch: Watch | None) -> Steps[Received]:
        """Write the bytes of a file to a stream. Raises Damaged at the end, when they have been written."""
        landing = StreamLanding(address(file_hash), stream, watch)
        head = yield from self._land(landing, self._calls.patience())
        return _received(landing.digest, head, None)

    def to_path(
        self, file_hash: str, target: str | os.PathLike[str], watch: Watch | None, *, replace: bool
    ) -> Steps[Received]:
        """Write a file to a path; below a folder, under the name it has at the server, made harmless.

        It takes its name when it is whole. A file that has its content already is left. Raises LocalFault where there
        is another one and it is not to be replaced.
        """
        digest = address(file_hash)
        path = Path(os.fsdecode(target))
        patience = self._calls.patience()
        kind = yield from do(lambda: _kind_of(path))
        if kind is _Kind.SPECIAL:
            return (yield from self._to_device(digest, path, watch))
        head: Head | None = None
        if kind is _Kind.FOLDER:
            head = yield from self._calls.head(digest, patience)
            path = path / harmless_name(head.name, digest)
            kind = yield from do(lambda: _kind_of(path))
        if kind is not _Kind.NOTHING:
            head = head or (yield from self._calls.head(digest, patience))
            size = head.size
            if kind in _FILES and (yield from do(lambda: has_content(path, digest, size))):
                yield from do(lambda: clear_partial(path, digest))
                tell(watch, size, size)
                return _received(digest, head, path, was_there=True)
            if not replace or kind not in _FILES:
                raise occupied(path)
        return (yield from self._to_file(digest, path, watch, patience, replace=replace))

    def _to_device(self, digest: Digest, path: Path, watch: Watch | None) -> Steps[Received]:
        opened: list[BinaryIO] = []
        try:
            yield from do(lambda: opened.append(path.open("wb", buffering=0)))
            return (yield from self.to_stream(digest, opened[0], watch))
        except OSError as error:
            raise LocalFault.of(path, error) from None
        finally:
            for stream in opened:
                stream.close()

    def _to_file(
        self, digest: Digest, path: Path, watch: Watch | None, patience: Patience, *, replace: bool
    ) -> Steps[Received]:
        landing = FileLanding(digest, path, replace=replace, watch=watch)
        head = yield from self._land(landing, patience)
        return _received(digest, head, path, was_there=landing.was_there)

    def stream(self, file_hash: str, began: Callable[[Head], None]) -> Steps[None]:
        """Hand the bytes of a file to the caller as they come; ``began`` is told when it is known what comes.

        Raises Damaged after the last of them, where they are not what the hash says.
        """
        yield from self._land(Arrival(address(file_hash)), self._calls.patience(), began=began, is_streamed=True)

    def read(self, file_hash: str, start: int, end: int) -> Steps[bytes]:
        """Return some bytes of a file, the last excluded; fewer at its end. They cannot be compared with its hash."""
        if start < 0:
            raise ValueError(f"a range begins at 0 or after, not at {start}")
        if end <= start:
            return b""
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        answer = yield from self._calls.patience().ask(Request("GET", f"/{address(file_hash)}", headers=wanted))
        if answer.status == 416:
            return b""
        if answer.is_error:
            raise answer.error()
        if answer.status != 206:
            # what ignores the range has sent all
            return answer.content[start:end]
        if _begin_of(answer) != start or len(answer.content) != min(end, head_in(answer).size) - start:
            raise not_filestored()
        return answer.content

    def _land(
        self,
        landing: Arrival,
        patience: Patience,
        *,
        began: Callable[[Head], None] | None = None,
        is_streamed: bool = False,
    ) -> Steps[Head]:  # fmt: skip
        """Have a file land, whole and right."""
        try:
            yield from do(landing.begin)
            head = yield from self._fetch(landing, patience, began, is_streamed=is_streamed)
            if not (yield from do(landing.is_right)) and (yield from do(landing.can_restart)):
                head = yield from self._fetch(landing, patience, began, is_streamed=is_streamed)
            yield from do(landing.finish)
        except BaseException:
            landing.abandon()
            raise
        return head

    def _fetch(
        self, landing: Arrival, patience: Patience, began: Callable[[Head], None] | None, *, is_streamed: bool
    ) -> Steps[Head]:
        """Have the rest of a file land, with as many requests as it takes; return what is known of it."""
        landing_of_attempt = _Attempt(landing, patience, began)
        head: Head | None = None
        while True:
            before = landing.position
            request = Request(
                "GET", f"/{landing.digest}", headers=_range_from(before), landing=landing_of_attempt,
                is_streamed=is_streamed,
            )  # fmt: skip
            try:
                answer = yield from patience.ask_once(request)
            except Broken as broken:
                yield from patience.after(broken)
                continue
            if passes(answer):
                yield from patience.after(answer)
                continue
            if answer.status == 416 and before:
                # all of it was there, and more cannot be asked for
                return head or (yield from self._calls.head(landing.digest, patience))
            if answer.status == 404:
                raise not_stored(landing.digest)
            if answer.is_error:
                raise answer.error()
            head = head_in(answer)
            if landing.position > head.size:
                raise damaged(landing.digest)
            if landing.position == head.size:
                return head
            yield from patience.after(Broken("the server ended its answer too early", was_sent=True))


class _Attempt:
    """Tells a landing, and the patience with its server, of what one answer brings."""

    def __init__(self, landing: Arrival, patience: Patience, began: Callable[[Head], None] | None) -> None:
        self._landing = landing
        self._patience = patience
        self._began = began

    def open(self, answer: Answer) -> None:
        """Look at a header."""
        head = head_in(answer)
        if answer.status == 206 and _begin_of(answer) != self._landing.position:
            raise not_filestored()
        self._landing.size = head.size
        self._landing.open(answer)
        if self._began is not None:
            self._began(head)

    def write(self, piece: bytes) -> None:
        """Take a piece."""
        self._landing.write(piece)
        self._patience.has_progressed()


def _range_from(position: int) -> dict[str, str]:
    return {"Range": f"bytes={position}-"} if position else {}


def _begin_of(answer: Answer) -> int:
    """Return where a part begins (RFC 9110, 14.4). Raises ClientError where that is not said."""
    return number(answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0])


class _Kind(Enum):
    """What is at a place of the disk."""

    NOTHING = "nothing"
    FILE = "file"
    LINK = "link"
    FOLDER = "folder"
    SPECIAL = "special"


_FILES = (_Kind.FILE, _Kind.LINK)


def _kind_of(path: Path) -> _Kind:
    """Look what is at a place. Raises LocalFault where that cannot be told."""
    try:
        if is_special(path):
            return _Kind.SPECIAL
        if path.is_dir():
            return _Kind.FOLDER
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return _Kind.NOTHING
    except OSError as error:
        raise LocalFault.of(path, error) from None
    except ValueError as error:
        raise LocalFault(path, str(error)) from None
    return _Kind.LINK if stat.S_ISLNK(mode) else _Kind.FILE


def _received(digest: Digest, head: Head, path: Path | None, *, was_there: bool = False) -> Received:
    return Received(digest, head.size, head.name, head.type, path, was_there)
