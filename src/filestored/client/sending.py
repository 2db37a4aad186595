"""Sending many files with a few threads: some read and hash, the others talk to the server.

Small files are read once, into memory, and go many in a request, after one question which of them are stored already;
larger ones go each by itself. A request takes as many small files as wait for it, so that it is large where the
server is the slower side, and none waits where nothing else is to come.
"""

import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from filestored.client.errors import (
    ClientError,
    Damaged,
    LocalFault,
    NotAllowed,
    Refused,
    SourceChanged,
    TooMuch,
    Unreachable,
    shown,
)
from filestored.client.manifest import PERMISSION_BITS, FileEntry
from filestored.client.outcomes import Failed, Found, Outcome, Stored, Transfer, Watch
from filestored.client.records import File, Item

if TYPE_CHECKING:
    from filestored.client import Client

SMALL = 1024 * 1024
"""The largest file, in bytes, that is sent together with others."""

_FILES_AT_ONCE = 64
_BYTES_AT_ONCE = 4 * 1024 * 1024
_MAX_HELD = 16 * 1024 * 1024
_READERS = 2
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Saying:
    """What is said about files besides their bytes; None where nothing is. ``expires_in`` is like ``7d``."""

    name: str | None = None
    media_type: str | None = None
    expires_in: str | None = None


@dataclass(slots=True)
class _Small:
    """A small file in memory."""

    ticket: int
    found: Found
    content: bytes
    digest: str
    entry: FileEntry


@dataclass(slots=True)
class _Large:
    """A file that is sent from disk, or a pipe."""

    ticket: int
    found: Found
    size: int | None


class Sending:
    """Files on their way to a server. A context manager: threads end with it, which nobody waits for.

    Fatal errors (no server, no permission) are raised by :meth:`outcome`, whichever file it is asked of.
    """

    def __init__(self, client: "Client", saying: Saying, *, jobs: int, watch: Watch) -> None:
        """Ask the server how it names files. Raises ClientError."""
        self._client = client
        self._saying = saying
        self._watch = watch
        self._algorithm = client.algorithm()
        self._changed = threading.Condition()
        self._unread: deque[tuple[int, Found]] = deque()
        self._small: deque[_Small] = deque()
        self._small_bytes = 0
        self._large: deque[_Large] = deque()
        self._outcomes: dict[int, Outcome] = {}
        self._tickets = 0
        self._held = 0
        self._reading = 0
        self._is_over = False
        self._is_complete = False
        self._fatal: ClientError | Exception | None = None
        self._threads = [threading.Thread(target=self._guard, args=(self._read,), daemon=True) for _ in range(_READERS)]
        self._threads += [threading.Thread(target=self._guard, args=(self._send,), daemon=True) for _ in range(jobs)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def add(self, found: Found) -> int:
        """Have a file sent; return a number to ask for what came of it."""
        with self._changed:
            self._tickets += 1
            self._unread.append((self._tickets, found))
            self._changed.notify_all()
            return self._tickets

    def finish(self) -> None:
        """Note that no more files will be added."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def outcome(self, ticket: int, *, wait: bool) -> Outcome | None:
        """Return what came of a file, once; None where nothing has yet and it is not to be waited for."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: ticket in self._outcomes or self._fatal is not None)
            if self._fatal is not None:
                raise self._fatal
            return self._outcomes.pop(ticket, None)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run the work of a thread; what it raises ends everything."""
        try:
            work()
        except Exception as error:
            with self._changed:
                self._fatal = self._fatal or error
                self._is_over = True
                self._changed.notify_all()

    # reading

    def _read(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or (bool(self._unread) and self._held < _MAX_HELD))
                if self._is_over:
                    return
                ticket, found = self._unread.popleft()
                self._reading += 1
                # what it may take, until that is known
                self._held += SMALL
            try:
                self._enqueue(self._prepare(ticket, found))
            except ClientError as error:
                self._settle({ticket: Failed(found.label, error)}, freed=SMALL)
                self._watch.done(0)
            finally:
                with self._changed:
                    self._reading -= 1
                    self._changed.notify_all()

    def _enqueue(self, prepared: _Small | _Large) -> None:
        with self._changed:
            if isinstance(prepared, _Small):
                self._held -= SMALL - len(prepared.content)
                self._small_bytes += len(prepared.content)
                self._small.append(prepared)
            else:
                self._held -= SMALL
                self._large.append(prepared)

    def _prepare(self, ticket: int, found: Found) -> _Small | _Large:
        """Look at a file, and read and hash it where it is small. Raises LocalFault, SourceChanged."""
        for _ in range(_ATTEMPTS):
            try:
                status = os.stat(found.path, follow_symlinks=found.is_followed)
                if not stat.S_ISREG(status.st_mode):
                    return _Large(ticket, found, None)
                if status.st_size > SMALL:
                    return _Large(ticket, found, status.st_size)
                content, status = _read_whole(found)
            except OSError as error:
                raise LocalFault.of(found.path, error) from None
            if content is not None:
                digest = self._algorithm.new(content).hexdigest()
                return _Small(ticket, found, content, digest, _entry(found, digest, len(content), status))
        raise SourceChanged(f"{shown(found.path)}: it changed while it was read; nothing of it is stored")

    # sending

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._is_over:
                    return
                batch = self._take_small() if self._is_batch_ready() else []
                large = self._large.popleft() if not batch and self._large else None
                if large is None and not batch:
                    return
            if batch:
                self._send_small(batch)
            elif large is not None:
                self._send_large(large)

    def _has_work(self) -> bool:
        is_drained = self._is_complete and not (self._unread or self._reading or self._small)
        return self._is_over or bool(self._large) or is_drained or self._is_batch_ready()

    def _is_batch_ready(self) -> bool:
        is_full = len(self._small) >= _FILES_AT_ONCE or self._small_bytes >= _BYTES_AT_ONCE
        return is_full or (bool(self._small) and not self._reading and not self._unread)

    def _take_small(self) -> list[_Small]:
        taken: list[_Small] = []
        size = 0
        while self._small and len(taken) < _FILES_AT_ONCE and size + len(self._small[0].content) <= _BYTES_AT_ONCE:
            taken.append(self._small.popleft())
            size += len(taken[-1].content)
        self._small_bytes -= size
        return taken

    def _send_small(self, batch: list[_Small]) -> None:
        """Send what of a batch is not stored yet, each content once."""
        wanted = {small.digest: small for small in batch}
        # what is said is to hold for what is stored already, too
        if self._saying == Saying():
            missing = self._client.missing(wanted)
            wanted = {digest: small for digest, small in wanted.items() if digest in missing}
        refused = self._send_together(list(wanted.values()))
        outcomes: dict[int, Outcome] = {}
        for small in batch:
            label, error = small.found.label, refused.get(small.digest)
            if error is not None:
                outcomes[small.ticket] = Failed(label, error)
                continue
            is_new = wanted.get(small.digest) is small
            outcomes[small.ticket] = Stored(label, small.digest, len(small.content), is_new, small.entry)
        self._settle(outcomes, freed=sum(len(small.content) for small in batch))
        for small in batch:
            self._watch.done(len(small.content))

    def _send_together(self, wanted: list[_Small]) -> dict[str, ClientError]:
        """Send files in one request, or one by one where it is refused; return by digest what went wrong."""
        if not wanted:
            return {}
        items = [
            Item(small.content, self._saying.name or os.path.basename(small.found.path), self._saying.media_type)
            for small in wanted
        ]
        try:
            self._client.put_together(items, expires_in=self._saying.expires_in)
        except NotAllowed:
            raise
        except (Refused, Damaged) as error:
            if _is_full(error):
                raise
            if len(wanted) == 1:
                return {wanted[0].digest: error}
            refused: dict[str, ClientError] = {}
            for small in wanted:
                refused |= self._send_together([small])
            return refused
        return {}

    def _send_large(self, large: _Large) -> None:
        label = large.found.label
        transfer = self._watch.begin(label, large.size)
        outcome: Outcome
        try:
            file = self._put(large, transfer)
            outcome = Stored(label, file.hash, file.size, file.is_new, _entry_now(large.found, file.hash, file.size))
        except (Unreachable, NotAllowed):
            raise
        except ClientError as error:
            if _is_full(error):
                raise
            outcome = Failed(label, error)
        finally:
            transfer.end()
        self._settle({large.ticket: outcome})

    def _put(self, large: _Large, transfer: Transfer) -> File:
        if large.size is not None:
            return self._put_source(large.found.path, self._saying.name, transfer)
        # opened once: what comes through a pipe is lost with whoever had it open
        try:
            stream = open(large.found.path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise LocalFault.of(large.found.path, error) from None
        with stream:
            return self._put_source(
                cast("BinaryIO", stream), self._saying.name or os.path.basename(large.found.path), transfer
            )

    def _put_source(self, source: str | BinaryIO, name: str | None, transfer: Transfer) -> File:
        return self._client.put(
            source, name=name, type=self._saying.media_type, expires_in=self._saying.expires_in, progress=transfer.at
        )

    def _settle(self, outcomes: dict[int, Outcome], freed: int = 0) -> None:
        with self._changed:
            self._outcomes.update(outcomes)
            self._held -= freed
            self._changed.notify_all()


def _is_full(error: ClientError) -> bool:
    """Tell whether the server's disk is full, which every other file would be told as well (RFC 4918, 11.5)."""
    return isinstance(error, TooMuch) and error.status == 507


def _read_whole(found: Found) -> tuple[bytes | None, os.stat_result]:
    """Read a small file; None where it changed meanwhile. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if found.is_followed else os.O_NOFOLLOW)
    handle = os.open(found.path, flags)
    try:
        before = os.fstat(handle)
        content = bytearray()
        # the kernel makes up files of size 0 that are longer, such as those of /proc
        while len(content) <= SMALL and (piece := os.read(handle, SMALL + 1)):
            content += piece
        after = os.fstat(handle)
    finally:
        os.close(handle)
    is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    is_whole = len(content) == after.st_size or (after.st_size == 0 and len(content) <= SMALL)
    return (bytes(content) if is_same and is_whole else None), after


def _entry(found: Found, digest: str, size: int, status: os.stat_result) -> FileEntry:
    return FileEntry(found.place, digest, size, status.st_mode & PERMISSION_BITS, status.st_mtime_ns)


def _entry_now(found: Found, digest: str, size: int) -> FileEntry | None:
    """Return what a manifest says of a file that was just sent; None where it is gone."""
    with suppress(OSError):
        return _entry(found, digest, size, os.stat(found.path, follow_symlinks=found.is_followed))
    return None
