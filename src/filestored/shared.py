"""Counters that all workers of one daemon map: how they learn of each other's changes and uploads.

::

    generations   8192 × 8 bytes     a bucket of digests: a number that changes with each change to one of them
    uploads       64 × 8 bytes       a worker: uploads under way
    clients       64 × 1024 × 2      a worker, a bucket of client addresses: uploads under way
"""

import fcntl
import mmap
import os
import time
from pathlib import Path
from zlib import crc32

from filestored.digest import Digest

MAX_WORKERS = 64
_GENERATIONS = 8192
_CLIENTS = 1024
_UPLOADS_AT = _GENERATIONS * 8
_CLIENTS_AT = _UPLOADS_AT + MAX_WORKERS * 8
_SIZE = _CLIENTS_AT + MAX_WORKERS * _CLIENTS * 2


class Shared:
    """The mapped file, seen by one worker.

    A generation is never a count but a value that was not there before, so that two processes which write at
    once cannot bring an old one back.
    """

    def __init__(self, path: Path) -> None:
        """Map the file. Raises OSError where it cannot be made or the disk has no room for it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # a hole in a mapped file would end the process when the disk is full
        os.posix_fallocate(self._descriptor, 0, _SIZE)
        self._map = mmap.mmap(self._descriptor, _SIZE)
        view = memoryview(self._map)
        self.generations = view[:_UPLOADS_AT].cast("Q")
        """By slot (see :func:`slot_of`): a number that changes whenever something about a digest there does."""
        self._uploads = view[_UPLOADS_AT:_CLIENTS_AT].cast("Q")
        self._clients = view[_CLIENTS_AT:].cast("H")
        self._slot = self._claim_slot()

    def _claim_slot(self) -> int:
        """Take a slot that no living worker has; the lock on its byte ends with the process."""
        for slot in range(MAX_WORKERS):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                continue
            self._uploads[slot] = 0
            start = slot * _CLIENTS
            self._clients[start : start + _CLIENTS] = memoryview(bytes(2 * _CLIENTS)).cast("H")
            return slot
        raise OSError(f"more than {MAX_WORKERS} processes use this store")

    def close(self) -> None:
        """Unmap the file and give the slot back."""
        for view in (self.generations, self._uploads, self._clients):
            view.release()
        self._map.close()
        os.close(self._descriptor)

    def generation(self, digest: Digest) -> int:
        """Return a number that differs from now on whenever something about the digest has changed."""
        return self.generations[slot_of(digest)]

    def renew(self, digest: Digest) -> None:
        """Let every worker forget what it remembers of a digest. Call it after the change, before the answer."""
        self.generations[slot_of(digest)] = time.time_ns() * MAX_WORKERS % 2**64 + self._slot

    def uploads(self) -> int:
        """Return how many uploads are under way, in all workers."""
        return sum(self._uploads)

    def uploads_of(self, client: str) -> int:
        """Return how many uploads are under way from a client's address, in all workers.

        Two addresses out of 1024 may share a count.
        """
        return sum(self._clients[_bucket(client) :: _CLIENTS])

    def count_upload(self, client: str, step: int) -> None:
        """Note that an upload begins (1) or ends (-1) in this worker."""
        self._uploads[self._slot] += step
        self._clients[self._slot * _CLIENTS + _bucket(client)] += step


def slot_of(digest: Digest) -> int:
    """Return which of the generations a digest shares with some others."""
    return int(digest[:4], 16) % _GENERATIONS


def _bucket(client: str) -> int:
    return crc32(client.encode()) % _CLIENTS
