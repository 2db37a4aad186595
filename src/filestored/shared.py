"""Counters that all workers of one daemon map: how they learn of each other's changes and uploads.

::

    generations   8192 × 8 bytes     a bucket of digests: a number that changes with each change to one of them
    uploads       64 × 8 bytes       a worker: uploads under way
    clients       64 × 1024 × 2      a worker, a bucket of client addresses: uploads under way
    counters      64 × 3072 × 8      a worker: what it has counted since the daemon started
    wanted        1024 × 8 bytes     a bucket of resumable uploads: a number that changes when one is waited for
    tokens        1 × 8 bytes        a number that changes when a token is made or revoked
    stopping      1 × 8 bytes        not 0 from when the daemon stops
    leaving       1 × 8 bytes        not 0 from when the daemon is told to stop, and will do so in a while
"""

import contextlib
import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterable
from operator import add
from pathlib import Path
from zlib import crc32

from filestored.digest import Digest

MAX_WORKERS = 64

COUNTERS = 3072
"""How many numbers each worker can count up."""

_GENERATIONS = 8192
_CLIENTS = 1024
_WANTED = 1024
_UPLOADS_AT = _GENERATIONS * 8
_CLIENTS_AT = _UPLOADS_AT + MAX_WORKERS * 8
_COUNTERS_AT = _CLIENTS_AT + MAX_WORKERS * _CLIENTS * 2
_WANTED_AT = _COUNTERS_AT + MAX_WORKERS * COUNTERS * 8
_TOKENS_AT = _WANTED_AT + _WANTED * 8
_STOPPING_AT = _TOKENS_AT + 8
_LEAVING_AT = _STOPPING_AT + 8
_SIZE = _LEAVING_AT + 8
_LEADER_BYTE = MAX_WORKERS


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
        self._clients = view[_CLIENTS_AT:_COUNTERS_AT].cast("H")
        self._counters = view[_COUNTERS_AT:_WANTED_AT].cast("Q")
        self._wanted = view[_WANTED_AT:_TOKENS_AT].cast("Q")
        self._stopping = view[_STOPPING_AT:_LEAVING_AT].cast("Q")
        self._leaving = view[_LEAVING_AT:].cast("Q")
        self.tokens = view[_TOKENS_AT:_STOPPING_AT].cast("Q")
        """One number, which changes when a token is made or revoked."""
        self._slot = self._claim_slot()
        self.counters = self._counters[self._slot * COUNTERS : (self._slot + 1) * COUNTERS]
        """This worker's own numbers. They go on where a worker that is no more has left them."""
        self._is_leader = False

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
        for view in (
            self.counters, self._counters, self._wanted, self._stopping, self._leaving, self.tokens, self.generations,
            self._uploads, self._clients,
        ):  # fmt: skip
            view.release()
        self._map.close()
        os.close(self._descriptor)

    def forget_counts(self) -> None:
        """Begin all counts of all workers at nothing, those of uploads too. Only while no worker runs."""
        self._stopping[0] = self._leaving[0] = 0
        for view, code in ((self._counters, "Q"), (self._uploads, "Q"), (self._clients, "H")):
            view[:] = memoryview(bytes(view.nbytes)).cast(code)  # type: ignore[call-overload]

    def sum_counters(self) -> list[int]:
        """Return the counters, those of all workers added up."""
        unused = bytes(8 * COUNTERS)
        totals = [0] * COUNTERS
        for slot in range(MAX_WORKERS):
            row = self._counters[slot * COUNTERS : (slot + 1) * COUNTERS]
            if row.tobytes() != unused:
                totals = list(map(add, totals, row.tolist()))
        return totals

    def lead(self) -> bool:
        """Tell whether this process is the one that does what only one should, from now until it ends."""
        if not self._is_leader:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LEADER_BYTE)
            except OSError:
                return False
            self._is_leader = True
        return True

    def generation(self, digest: Digest) -> int:
        """Return a number that differs from now on whenever something about the digest has changed."""
        return self.generations[slot_of(digest)]

    def renew(self, digest: Digest) -> None:
        """Let every worker forget what it remembers of a digest. Call it after the change, before the answer."""
        self.generations[slot_of(digest)] = self._new_number()

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

    def want(self, upload_id: str) -> None:
        """Tell whoever is writing to a resumable upload that another waits to do so."""
        self._wanted[crc32(upload_id.encode()) % _WANTED] = self._new_number()

    def wanted(self, upload_id: str) -> int:
        """Return a number that changes when somebody waits to write to a resumable upload, now and then to another."""
        return self._wanted[crc32(upload_id.encode()) % _WANTED]

    @property
    def is_stopping(self) -> bool:
        """Whether the daemon has been told to stop: what can go on later should end now."""
        return self._stopping[0] != 0

    @property
    def is_leaving(self) -> bool:
        """Whether the daemon has been told to stop, though it may go on for a while: nobody new should come."""
        return self._leaving[0] != 0 or self._stopping[0] != 0

    def _new_number(self) -> int:
        return time.time_ns() * MAX_WORKERS % 2**64 + self._slot


def renew_tokens(path: Path) -> None:
    """Have the workers that map a file look at the tokens anew, at once; nothing happens where there are none.

    They would within a second, too: the file is of no importance to whoever cannot write it.
    """
    _write_number(path, _TOKENS_AT)


def announce_stop(path: Path) -> None:
    """Tell the workers that map a file that they will be told to end."""
    _write_number(path, _STOPPING_AT)


def announce_leaving(path: Path) -> None:
    """Tell the workers that map a file that the daemon will stop in a while."""
    _write_number(path, _LEAVING_AT)


def _write_number(path: Path, place: int) -> None:
    """Write a new number to a place in the file, if there is one. By a process that has not mapped it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size >= _SIZE:
                os.pwrite(descriptor, (time.time_ns() % 2**64).to_bytes(8, sys.byteorder), place)
        finally:
            os.close(descriptor)


def have_forgotten(path: Path, digests: Iterable[Digest]) -> None:
    """Have the workers that map a file look anew at what they remember of these digests.

    They do so within a second anyway, which must do where as many processes map the file as can. Never call it in a
    process that has the file mapped: when any of its descriptors is closed the system lets go of the process's locks.
    """
    with contextlib.suppress(OSError), contextlib.closing(Shared(path)) as shared:
        for digest in digests:
            shared.renew(digest)


def slot_of(digest: Digest) -> int:
    """Return which of the generations a digest shares with some others."""
    return int(digest[:4], 16) % _GENERATIONS


def _bucket(client: str) -> int:
    return crc32(client.encode()) % _CLIENTS
