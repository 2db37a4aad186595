"""What a worker counts, and where each count lies among its :attr:`Shared.counters`.

::

    0 … 7               single numbers: bytes, failed flushes, expired files, requests passed on
    8 + 41 × line …     a route (a method of an address): 27 × requests by status, 13 × by duration,
                        1 × their duration in µs

All workers of a daemon have the same table of routes, and so the same layout; what they have counted is added up when
somebody asks (:meth:`Shared.sum_counters`). Counting is plain addition without a lock: each number of a worker is
counted up by one thread only, the one that runs the event loop. What other threads come to know is counted by a
:class:`Tally`.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

OTHER = "other"
"""Stands for addresses and methods that are not in the table of routes, and for statuses not in ``STATUSES``."""

SENT_BYTES = 0
"""Bytes of the bodies of answers."""

RECEIVED_BYTES = 1
"""Bytes of the bodies of requests."""

FAILED_FLUSHES = 2
"""Flushes of bytes, folders or the catalogue that the disk has failed. By Tally: several threads flush."""

EXPIRED_FILES = 3
"""Files that were deleted because their time had come."""

FORWARDED_REQUESTS = 4
"""Requests that were passed on to another daemon of the cluster."""

STATUSES = (
    200, 201, 204, 206, 302, 304, 307,
    400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 416, 422, 423, 431, 460,
    500, 503, 507,
)  # fmt: skip
"""The statuses that are told apart. 460 is tus's for a wrong checksum."""

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0)
"""The durations up to which requests are counted together, in seconds."""

_FASTEST = BUCKETS[0]
_FIRST_LINE = 8
_DURATIONS = len(STATUSES) + 1
_MICROSECONDS = _DURATIONS + len(BUCKETS) + 1
_WIDTH = _MICROSECONDS + 1
_OTHER_STATUS = len(STATUSES)
_STATUS_PLACES = {status: place for place, status in enumerate(STATUSES)}
_STATUS_LABELS = (*map(str, STATUSES), OTHER)


@dataclass(frozen=True, slots=True)
class RouteCounts:
    """What has been counted of one route.

    ``requests`` by status, those that occurred; ``durations`` are the requests of each of ``BUCKETS`` and, last, those
    that took longer; ``seconds`` is how long all took together.
    """

    path: str
    method: str
    requests: dict[str, int]
    durations: tuple[int, ...]
    seconds: float


class RequestCounts:
    """Counts requests by route, status and duration, in a worker's own counters. For the event loop's thread only."""

    def __init__(self, counters: "memoryview[int]", routes: Iterable[tuple[str, str]]) -> None:
        """``routes`` are the (path, method) of the table. Raises ValueError where there are more than fit."""
        named = list(routes)
        lines = dict.fromkeys([*named, *((path, OTHER) for path, _ in named), (OTHER, OTHER)])
        self._starts = {line: _FIRST_LINE + number * _WIDTH for number, line in enumerate(lines)}
        self._other = self._starts[OTHER, OTHER]
        self._counters = counters
        if (needed := _FIRST_LINE + len(lines) * _WIDTH) > len(counters):
            raise ValueError(f"{needed} counters are needed for this table of routes: raise shared.COUNTERS")

    def line(self, path: str, method: str) -> int:
        """Return where the counters of a route begin; other methods of a path share a line, as do other paths."""
        starts = self._starts
        return starts.get((path, method)) or starts.get((path, OTHER)) or self._other

    def count(self, line: int, status: int, seconds: float, sent: int) -> None:
        """Count a request and the bytes of its answer's body. Half a microsecond: every small download pays it."""
        counters = self._counters
        counters[line + _STATUS_PLACES.get(status, _OTHER_STATUS)] += 1
        counters[line + _DURATIONS + (0 if seconds <= _FASTEST else bisect_left(BUCKETS, seconds))] += 1
        counters[line + _MICROSECONDS] += int(seconds * 1_000_000)
        counters[SENT_BYTES] += sent

    def count_received(self, size: int) -> None:
        """Count the bytes of a request's body."""
        self._counters[RECEIVED_BYTES] += size

    def read(self, totals: list[int]) -> Iterator[RouteCounts]:
        """Return what ``totals``, the counters of all workers, say of each route that was asked for."""
        for (path, method), start in self._starts.items():
            numbers = totals[start : start + _WIDTH]
            if any(numbers):
                requests = {label: number for label, number in zip(_STATUS_LABELS, numbers, strict=False) if number}
                durations = tuple(numbers[_DURATIONS:_MICROSECONDS])
                yield RouteCounts(path, method, requests, durations, numbers[_MICROSECONDS] / 1_000_000)


class Tally:
    """One of a worker's counters that any thread may count up, the only way it is: for what is rare.

    Adding to a number is reading and writing, between which another thread may do the same; hence the lock.
    """

    def __init__(self, counters: "memoryview[int]", number: int) -> None:
        self._counters = counters
        self._number = number
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count one more."""
        with self._lock:
            self._counters[self._number] += 1
