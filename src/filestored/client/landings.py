"""Where downloads land: memory, a stream, or a file that takes its name only when its hash is right."""

import errno
import fcntl
import io
import os
import secrets
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filestored.client.errors import Damaged, LocalFault
from filestored.client.steps import Answer, not_filestored
from filestored.client.verifying import Verifier
from filestored.digest import Algorithm, Digest

_PIECE = 1 << 20
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})

Watch = Callable[[int, int | None], None]
"""Told of progress: bytes so far, and bytes in all where that is known."""


def tell(watch: Watch | None, done: int, size: int | None) -> None:
    """Tell of progress whoever wants to know."""
    if watch is not None:
        watch(done, size)


class Arrival:
    """What all landings have in common: where it stands, and what the bytes are compared with.

    ``position`` is how many bytes of the file have come.
    """

    def __init__(self, digest: Digest, watch: Watch | None = None) -> None:
        self.digest = digest
        self.position = 0
        self.size: int | None = None
        self._verifier = Verifier(digest)
        self._is_expected = False
        self._passed_over = 0
        self._watch = watch

    def begin(self) -> None:
        """Make ready, and take in what is there from before, which ``position`` then counts. Raises LocalFault."""

    def open(self, answer: Answer) -> None:
        """Look at the header of an answer: what was there before is passed over where all comes again."""
        if not self._is_expected:
            self._is_expected = True
            if self._verifier.expect(answer) and self.position:
                self.recall()
        self._passed_over = self.position if answer.status != 206 else 0

    def write(self, piece: bytes) -> None:
        """Take the next piece. Raises LocalFault."""
        if self._passed_over:
            skipped = min(self._passed_over, len(piece))
            self._passed_over -= skipped
            piece = piece[skipped:]
        if self.size is not None and self.position + len(piece) > self.size:
            raise not_filestored()
        if piece:
            self._keep(piece)
            self._verifier.update(piece)
            self.position += len(piece)
            tell(self._watch, self.position, self.size)

    def recall(self) -> None:
        """Take in again what has come."""

    def is_right(self) -> bool:
        """Tell whether all that came is what the name says."""
        return self._verifier.is_right()

    def finish(self) -> None:
        """Compare the whole with its name. Raises Damaged."""
        if not self.is_right():
            raise damaged(self.digest)

    def abandon(self) -> None:
        """Clear up after a failure."""
        self._verifier.stop()

    def can_restart(self) -> bool:
        """Forget what came, and tell whether all may come again after it was found damaged."""
        return False

    def _keep(self, piece: bytes) -> None:
        """Put bytes where they belong."""


class MemoryLanding(Arrival):
    """Bytes in memory."""

    def __init__(self, digest: Digest, watch: Watch | None = None) -> None:
        super().__init__(digest, watch)
        self._content = bytearray()

    def content(self) -> bytes:
        """Return what came."""
        return bytes(self._content)

    def _keep(self, piece: bytes) -> None:
        self._content += piece


class StreamLanding(Arrival):
    """A stream that was given: what was written to it cannot be taken back."""

    def __init__(self, digest: Digest, stream: BinaryIO, watch: Watch | None = None) -> None:
        super().__init__(digest, watch)
        self._stream = stream

    def finish(self) -> None:
        """Flush, and compare the whole with its name. Raises Damaged, LocalFault."""
        try:
            self._stream.flush()
        except OSError as error:
            raise LocalFault.of(None, error) from None
        super().finish()

    def _keep(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._written(rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LocalFault.of(None, error) from None

    def _written(self, rest: memoryview) -> int:
        """Write some bytes; return how many it took: a raw stream may take less."""
        taken: int | None = self._stream.write(rest)
        if taken is None and isinstance(self._stream, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, "the stream takes no bytes now: one that waits is needed")
        return len(rest) if taken is None else taken


class FileLanding(Arrival):
    """A file, under a hidden name beside its place until all of it is there and right.

    What a broken run leaves there the next one goes on from. ``position`` begins with what was found.
    """

    def __init__(self, digest: Digest, target: Path, *, replace: bool, watch: Watch | None = None) -> None:
        super().__init__(digest, watch)
        self.target = target
        self.was_there = False
        """Whether another had put the same content in its place by the end."""
        self._replace = replace
        self._was_left = False
        self._is_own = True
        self._descriptor = -1
        # the descriptor of a file that is being closed may be another file's when it is written to
        self._lock = threading.Lock()
        self._partial = partial_path(target, digest)

    def begin(self) -> None:
        """Open it; blocks while what was left is hashed. Raises LocalFault."""
        try:
            if not self._open_left():
                # another process fetches the same, or the name is somebody else's
                self._is_own = False
                self._partial = self._partial.with_name(f"{self._partial.name}.{secrets.token_hex(8)}")
                self._descriptor = os.open(self._partial, _OPEN | os.O_EXCL, 0o666)
            self._was_left = os.fstat(self._descriptor).st_size > 0
        except OSError as error:
            raise LocalFault.of(self.target, error) from None
        self.recall()

    def _open_left(self) -> bool:
        """Open and lock the file that an earlier run may have left; tell whether it can be gone on with."""
        try:
            self._descriptor = os.open(self._partial, _OPEN, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR):
                return False
            raise
        with suppress(OSError):
            status = os.fstat(self._descriptor)
            # what has another name as well, or another owner, is not for us to write to
            is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
            if is_ours:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._partial)):
                    return True
        os.close(self._descriptor)
        self._descriptor = -1
        return False

    def recall(self) -> None:
        """Take in what an earlier run left; blocks for as long as that takes to hash. Raises LocalFault."""
        self.position = 0
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while piece := os.read(self._descriptor, _PIECE):
                self._verifier.update(piece)
                self.position += len(piece)
        except OSError as error:
            raise LocalFault.of(self._partial, error) from None

    def open(self, answer: Answer) -> None:
        """Look at the header of an answer. Raises LocalFault where the disk has no room for what is to come."""
        super().open(answer)
        if self.size is None:
            return
        try:
            disk = os.fstatvfs(self._descriptor)
        except OSError:
            return
        needed, free = self.size - self.position, disk.f_bavail * disk.f_frsize
        if needed > free:
            raise LocalFault(self.target, f"there is no room: it needs {needed} bytes, and the disk has {free} free")

    def finish(self) -> None:
        """Give the file its name. Raises Damaged, LocalFault."""
        try:
            super().finish()
        except Damaged:
            self._discard()
            raise
        try:
            self._publish()
        except FileExistsError:
            self._discard()
            if not has_content(self.target, self.digest, self.position):
                raise occupied(self.target) from None
            self.was_there = True
        except OSError as error:
            raise LocalFault.of(self.target, error) from None
        self._close()

    def _publish(self) -> None:
        if self._replace:
            os.replace(self._partial, self.target)
            return
        try:
            os.link(self._partial, self.target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._publish_without_links()
            return
        os.unlink(self._partial)

    def _publish_without_links(self) -> None:
        os.close(os.open(self.target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            os.replace(self._partial, self.target)
        except OSError:
            self.target.unlink(missing_ok=True)
            raise

    def _close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def can_restart(self) -> bool:
        """Forget what came where some of it was left by an earlier run, which may be what is damaged."""
        if not self._was_left:
            return False
        self._was_left = False
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.position = 0
        self._verifier.begin()
        return True

    def abandon(self) -> None:
        """Keep what came for the next run, if anything."""
        super().abandon()
        if self._descriptor >= 0:
            if not (self.position and self._is_own):
                with suppress(OSError):
                    self._partial.unlink(missing_ok=True)
            self._close()

    def _discard(self) -> None:
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _keep(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            with self._lock:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise LocalFault.of(self.target, error) from None


def partial_path(target: Path, digest: str) -> Path:
    """Return where a file takes shape: beside its place, hidden."""
    # a name has at most 255 bytes, and a character up to four
    begin = os.fsencode(target.name)[:100].decode(errors="ignore")
    return target.with_name(f".{begin}.{digest[:16]}.part")


def clear_partial(target: Path, digest: str) -> None:
    """Remove what a broken run left of a file that is in its place by now, unless another run is at work on it."""
    path = partial_path(target, digest)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            path.unlink()
    os.close(descriptor)


def damaged(digest: str) -> Damaged:
    """Return the error for bytes that are not what their name says."""
    return Damaged(f"what came for the hash {digest} has another one: it was damaged on the way, or at the server")


def occupied(target: Path) -> LocalFault:
    """Return the error for a name that another file has."""
    return LocalFault(target, "there is another file of this name; choose another place, or have it replaced")


def is_special(path: Path) -> bool:
    """Tell whether a path is a device, a pipe or a socket: written to as it is, and never replaced."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def has_content(path: Path, digest: Digest, size: int) -> bool:
    """Tell whether a regular file has these very bytes. Raises LocalFault."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            candidates = [each.new() for each in Algorithm if each.hex_length == len(digest) and each.is_available]
            while piece := file.read(_PIECE):
                for candidate in candidates:
                    candidate.update(piece)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return False
        raise LocalFault.of(path, error) from None
    return any(candidate.hexdigest() == digest for candidate in candidates)
