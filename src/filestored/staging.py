"""Where bytes arrive: written, hashed and counted in one pass, and thrown away unless they are published."""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import count
from types import TracebackType

from filestored.blobs.flushing import start_writeback
from filestored.digest import Algorithm, Digest, Hash, algorithm_of, require_same
from filestored.pipeline import Pipeline

SMALL = 64 * 1024
"""Up to this many bytes a body stays in memory until it is committed."""

_PIECE = 1 << 20
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_ONLY = 0o444
# where a file system has no links, or allows no more of them
_NO_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOENT})
# longer writes make the kernel look for as large pieces of memory, which it takes up to ten times as long to find
_WRITE_BYTES = 64 * 1024


class Staged:
    """A whole body, hashed, not yet a blob. A ``with`` block that leaves nothing behind.

    Small bodies are still in memory; others lie in the staging folder. Used by one thread at a time.
    """

    __slots__ = (
        "_area",
        "_descriptor",
        "_is_handed_over",
        "_memory",
        "_name",
        "digest",
        "is_brought",
        "is_flushed",
        "others",
        "size",
    )

    def __init__(self, area: "Staging", digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.is_flushed = False
        self.is_brought = False
        """Whether a blob store has put the bytes where they are to be."""
        self.others: dict[str, bytes] = {}
        """Further hashes of the same bytes that were asked for, by algorithm."""
        self._area = area
        self._memory: bytes | None = None
        self._name: str | None = None
        self._descriptor: int | None = None
        self._is_handed_over = False

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_handed_over:
            self.discard()

    def require(self, announced_by: str, announced: Digest) -> None:
        """Raise DigestMismatch unless the bytes have a digest, of the store's algorithm or one asked for besides."""
        other = self.others.get(algorithm_of(announced, self._area.algorithm).value)
        require_same(announced_by, announced, self.digest if other is None else other.hex())

    def hand_over(self) -> None:
        """Give the bytes to the committer, whose thread discards them: leaving the ``with`` block no longer does."""
        self._is_handed_over = True

    def hold(self, body: bytes) -> None:
        """Keep a small body in memory until it is committed."""
        self._memory = body

    @property
    def memory(self) -> bytes | None:
        """The bytes of a small body; None where they have been written out, or are gone."""
        return self._memory if self._name is None else None

    def open_in(self, staging: int) -> int:
        """Open the file in the staging folder for reading; whoever asks closes it. Raises OSError."""
        if self._name is None or staging != self._area.handle:
            raise _gone()
        return os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging)

    def name_in(self, staging: int) -> str:
        """Return the name in the staging folder of the bytes: written out, and flushed where they must be durable.

        ``staging`` is the folder's handle: a blob store says with it which folder it renames from.
        """
        self.write_out()
        if self._area.flushes_bodies:
            self.flush()
        if self._name is None or staging != self._area.handle:
            raise _gone()
        return self._name

    def write_out(self) -> None:
        """Write the bytes to the staging folder where they are still in memory. All of them or none."""
        if self._name is not None or self._memory is None:
            return
        self.open_file()
        try:
            write_all(self._descriptor_or_fail(), [self._memory])
        except BaseException:
            self.discard()
            raise

    def open_file(self) -> None:
        """Make the file in the staging folder."""
        name = self._area.new_name()
        self.close_file()
        self._descriptor = os.open(name, _WRITE, _READ_ONLY, dir_fd=self._area.handle)
        self._name = name
        self.is_flushed = False

    def link(self, descriptor: int) -> None:
        """Give a file that is whole and flushed a second name, in the staging folder: a copy where it can have none."""
        name = self._area.new_name()
        try:
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._area.handle, follow_symlinks=True)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy(descriptor)
        else:
            self._name = name
        self.is_flushed = True

    def _copy(self, descriptor: int) -> None:
        self.open_file()
        try:
            copy_all(descriptor, self._descriptor_or_fail())
            if self._area.flushes_bodies:
                self.flush()
        except BaseException:
            self.discard()
            raise
        self.close_file()

    def append(self, pieces: list[bytes | memoryview]) -> None:
        """Write more bytes to the file."""
        write_all(self._descriptor_or_fail(), pieces)

    def _descriptor_or_fail(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the staged file is closed")
        return self._descriptor

    def start_flush(self) -> None:
        """Begin to bring the bytes to the disk without waiting for them."""
        if self._descriptor is not None and not self.is_flushed:
            start_writeback(self._descriptor)

    def flush(self) -> None:
        """Wait until the bytes survive a power cut. Nothing happens where they are still in memory.

        A flush that failed is never tried again: the system reports a lost page once, then forgets it.
        """
        if self._descriptor is not None and not self.is_flushed:
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._area.flush_failed()
                self._memory = None
                self.discard()
                raise
            self.is_flushed = True

    def is_published(self) -> None:
        """Note that the name in the staging folder is gone: the bytes are a blob now."""
        self._name = None

    def discard(self) -> None:
        """Let go of the bytes; remove them where they were not published. May be called twice."""
        self.close_file()
        if self._name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._area.handle)
            self._name = None

    def close_file(self) -> None:
        """Let go of the file, not of its name: many bodies may wait to be committed together."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Staging:
    """The folder in which bodies arrive, and the threads that write them."""

    def __init__(
        self,
        handle: int,
        algorithm: Algorithm,
        threads: Executor,
        *,
        durable: bool,
        flush_failed: Callable[[], None] = lambda: None,
        flushes_bodies: bool | None = None,
    ) -> None:
        """``handle`` is the folder's; ``durable`` flushes large bodies as soon as they are whole.

        ``flush_failed`` is called, in any thread, for each flush that the disk has failed. ``flushes_bodies`` False
        leaves bodies that come in one request as they are: a bucket has them before they are acknowledged.
        """
        self.handle = handle
        self.algorithm = algorithm
        self.threads = threads
        self.durable = durable
        self.flushes_bodies = durable if flushes_bodies is None else flushes_bodies
        self.flush_failed = flush_failed
        # a worker that was killed may have left files behind, and another may have its process id by now
        self._process = f"{os.getpid():x}-{secrets.token_hex(4)}"
        self._numbers = count()

    def new_name(self) -> str:
        """Return a name no other upload of any process has."""
        return f"{self._process}-{next(self._numbers):x}"

    def hold(self, body: bytes, others: tuple[str, ...] = ()) -> Staged:
        """Stage a small body that is already in memory."""
        staged = Staged(self, Digest(self.algorithm.new(body).hexdigest()), len(body))
        staged.hold(body)
        staged.others = {name: Algorithm(name).new(body).digest() for name in others}
        return staged

    def receive(self, others: tuple[str, ...] = ()) -> "Receiver":
        """Begin to stage a body of any size; ``others`` names further hashes to take on the way."""
        return Receiver(self, others)

    def link(self, descriptor: int, digest: Digest, size: int) -> Staged:
        """Stage a whole file of the same file system that is flushed already; it keeps the name it has.

        Blocks, for long where the file system has no links. Raises OSError.
        """
        staged = Staged(self, digest, size)
        staged.link(descriptor)
        return staged

    def clear(self) -> int:
        """Remove what a crash left behind; return how many there were. Only while no daemon runs."""
        names = os.listdir(self.handle)
        for name in names:
            os.unlink(name, dir_fd=self.handle)
        return len(names)


class Receiver:
    """A body on its way in: an ``async with`` block that leaves nothing behind unless :meth:`finish` ran."""

    def __init__(self, area: Staging, others: tuple[str, ...]) -> None:
        self.size = 0
        self._area = area
        self._hash = area.algorithm.new()
        self._others: dict[str, Hash] = {name: Algorithm(name).new() for name in others}
        self._pipeline = Pipeline(area.threads, self._take)
        self._staged = Staged(area, Digest(""), 0)
        self._is_on_disk = False
        self._is_finished = False

    async def __aenter__(self) -> "Receiver":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.discard()

    async def discard(self) -> None:
        """Let go of the body, unless it is finished: then it is the caller's."""
        if not self._is_finished:
            # the thread may still write to the file that is about to be closed
            await self._pipeline.abandon()
            await asyncio.get_running_loop().run_in_executor(self._area.threads, self._staged.discard)

    async def write(self, piece: bytes | memoryview) -> None:
        """Take in more bytes. Raises OutOfSpace where the disk is full."""
        self.size += len(piece)
        await self._pipeline.write(piece)

    async def finish(self, *, may_hold: bool = True) -> Staged:
        """Return the whole body, staged. The caller closes it.

        A small one stays in memory, unless ``may_hold`` is False.
        """
        await self._pipeline.settle()
        staged, pieces = self._staged, self._pipeline.hand_over()
        if may_hold and not self._is_on_disk and self.size <= SMALL:
            staged.hold(b"".join(pieces))
            self._update(pieces)
        else:
            await self._pipeline.run(self._take_last, pieces)
        self._pipeline.close()
        staged.digest = Digest(self._hash.hexdigest())
        staged.size = self.size
        staged.others = {name: hash_.digest() for name, hash_ in self._others.items()}
        self._is_finished = True
        return staged

    def _update(self, pieces: list[bytes | memoryview]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            for other in self._others.values():
                other.update(piece)

    def _take(self, pieces: list[bytes | memoryview]) -> None:
        self._update(pieces)
        if not self._is_on_disk:
            self._staged.open_file()
            self._is_on_disk = True
        self._staged.append(pieces)
        if self._area.flushes_bodies:
            # while the rest is still arriving, so that the flush at the end finds little to do
            self._staged.start_flush()

    def _take_last(self, pieces: list[bytes | memoryview]) -> None:
        self._take(pieces)
        if self._area.flushes_bodies:
            self._staged.flush()
        self._staged.close_file()


def _gone() -> OSError:
    return OSError(errno.ENOENT, "the staged bytes are gone")


def copy_all(source: int, target: int) -> None:
    """Write a whole file to where another ends. Raises OSError."""
    position = 0
    while piece := os.pread(source, _PIECE, position):
        write_all(target, [piece])
        position += len(piece)


def write_all(descriptor: int, pieces: list[bytes | memoryview]) -> None:
    """Write all pieces, however little the system takes at a time."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest[:_WRITE_BYTES]) :]
