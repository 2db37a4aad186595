"""What is uploaded: bytes in memory or a file on disk, read by offset, and hashed ahead of being sent."""

import os
import stat
import threading
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from filestored.client.errors import LocalFault, SourceChanged, shown
from filestored.digest import Algorithm

PIECE = 512 << 10
"""Bytes read and sent at a time."""


class Source(Protocol):
    """Bytes of a known size, in bytes, that can be read again from anywhere. Its methods may block."""

    size: int

    @property
    def identity(self) -> str | None:
        """What it is known by in another run, with what changes when its bytes do; None where it will not be there."""

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes of a range. Raises SourceChanged where they are there no more, LocalFault."""

    def require_unchanged(self) -> None:
        """Raise SourceChanged where it is not what it was when it was opened."""

    def close(self) -> None:
        """Let it go."""


class BytesSource:
    """Bytes in memory."""

    identity: str | None = None

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = memoryview(content)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        return bytes(self._content[start:end])

    def require_unchanged(self) -> None:
        """Do nothing: bytes do not change."""

    def close(self) -> None:
        """Let the bytes go."""
        self._content.release()


class PathSource:
    """A file on disk, held open: what takes its place under its name meanwhile does not matter."""

    _status: os.stat_result

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self.size = 0
        self._descriptor = -1
        self._stream: BinaryIO | None = None

    def open(self) -> None:
        """Open it; blocks until a pipe has a writer. Raises LocalFault."""
        try:
            # once only: what came through a pipe is lost with whoever had it open
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalFault.of(self.path, error) from None
        except ValueError as error:
            raise LocalFault(self.path, str(error)) from None
        self._status = os.fstat(self._descriptor)
        self.size = self._status.st_size

    @property
    def is_regular(self) -> bool:
        """Whether it has a size and can be read from anywhere: no pipe, device or folder."""
        return stat.S_ISREG(self._status.st_mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self._status.st_mode)

    @property
    def identity(self) -> str | None:
        """Its path, size and time of change."""
        return f"{os.path.realpath(self.path)}\n{self.size}\n{self._status.st_mtime_ns}"

    def stream(self) -> BinaryIO:
        """Return it as a stream, for what is no regular file."""
        self._stream, self._descriptor = open(self._descriptor, "rb", buffering=0), -1  # noqa: SIM115
        return self._stream

    def read_whole(self, limit: int) -> bytes | None:
        """Return all there is, None where it is more than ``limit`` bytes. What has no size is read until it ends.

        Raises SourceChanged, LocalFault.
        """
        content = bytearray()
        try:
            while piece := os.read(self._descriptor, PIECE):
                content += piece
                if len(content) > limit:
                    return None
        except OSError as error:
            raise LocalFault.of(self.path, error) from None
        # what the kernel makes up, such as /proc, has size 0
        if self.size and len(content) != self.size:
            raise self._changed()
        self.require_unchanged()
        return bytes(content)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes of a range. Raises SourceChanged where the file has become shorter, LocalFault."""
        try:
            piece = os.pread(self._descriptor, end - start, start)
            while len(piece) < end - start and (
                more := os.pread(self._descriptor, end - start - len(piece), start + len(piece))
            ):
                piece += more
        except OSError as error:
            raise LocalFault.of(self.path, error) from None
        if len(piece) < end - start:
            raise self._changed()
        return piece

    def require_unchanged(self) -> None:
        """Raise SourceChanged where size or time of change are others than at the beginning."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise self._changed()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._stream is not None:
            self._stream.close()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{shown(self.path)}: it changed while it was read; nothing of it is stored")


class HashAhead:
    """The digest of a source, worked out by a thread of its own while the source is being sent."""

    def __init__(self, source: Source, algorithm: Algorithm) -> None:
        self._source = source
        self._algorithm = algorithm
        self._ended = threading.Event()
        self._is_stopped = False
        self._digest = ""
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether there is a digest, or an error."""
        return self._ended.is_set()

    def digest(self) -> str:
        """Wait for the digest. Raises SourceChanged, LocalFault."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._digest

    def stop(self) -> None:
        """End the thread, finished or not."""
        self._is_stopped = True
        self._thread.join()

    def _run(self) -> None:
        try:
            hashed = self._algorithm.new()
            for piece in pieces(self._source, 0, self._source.size):
                if self._is_stopped:
                    return
                hashed.update(piece)
            self._source.require_unchanged()
            self._digest = hashed.hexdigest()
        except Exception as error:
            self._error = error
        finally:
            self._ended.set()


def pieces(source: Source, start: int, end: int) -> Iterator[bytes]:
    """Return the bytes of a range, a piece at a time."""
    for at in range(start, end, PIECE):
        yield source.read(at, min(at + PIECE, end))
