"""Ending requests that make no progress: one timer for all of them instead of one each."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from types import TracebackType
from weakref import WeakSet

_TICK_SECONDS = 0.25
_MAX_TIMEOUT_SECONDS = 2_000_000
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class Stalled(Exception):
    """No byte came or went for as long as is allowed."""


class Guard:
    """A ``with`` block that is left with Stalled when :meth:`moved` is not called for ``timeout`` seconds.

    May be entered again and again, by one task; each time begins anew.
    """

    __slots__ = ("_has_fired", "_has_to_end", "_moves", "_seen", "_since", "_stalls", "_task", "_timeout")

    def __init__(self, stalls: "Stalls", timeout: float, has_to_end: Callable[[float], bool]) -> None:
        self._stalls = stalls
        self._timeout = timeout
        self._has_to_end = has_to_end
        self._task: asyncio.Task[object] | None = None
        self._moves = 0
        self._seen = -1
        self._since = 0.0
        self._has_fired = False

    def __enter__(self) -> "Guard":
        if self._task is None:
            self._task = asyncio.current_task()
        self._moves += 1
        self._stalls.guards.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stalls.guards.discard(self)
        if self._has_fired and self._task is not None:
            self._task.uncancel()
            self._stalls.stalled.add(self._task)
            if kind is asyncio.CancelledError:
                raise Stalled from None

    def forget(self) -> None:
        """Let go of the task: one that was ended would otherwise keep itself, and all it had, for a long time."""
        self._task = None

    def moved(self) -> None:
        """Note that a byte came or went."""
        self._moves += 1

    def look(self, now: float) -> None:
        """End the block where nothing has moved for too long."""
        if self._moves != self._seen:
            self._seen, self._since = self._moves, now
        silent = now - self._since
        is_over = silent >= self._timeout or self._has_to_end(silent)
        if is_over and not self._has_fired and self._task is not None:
            self._has_fired = True
            self._task.cancel()


class Stalls:
    """All guards of one event loop."""

    def __init__(self) -> None:
        self.guards: set[Guard] = set()
        self.stalled: WeakSet[asyncio.Task[object]] = WeakSet()
        """The tasks of which a guard has ended something."""
        self._timer: asyncio.TimerHandle | None = None

    def guard(self, timeout: float, has_to_end: Callable[[float], bool] = lambda _: False) -> Guard:
        """Return a block that ends when nothing moves for ``timeout`` seconds, give or take half a second.

        It ends earlier where ``has_to_end`` says so, which is told for how many seconds nothing has moved.
        """
        if self._timer is None:
            self._schedule()
        return Guard(self, timeout, has_to_end)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        for guard in list(self.guards):
            guard.look(now)
        self._schedule()


def drop_stalled_readers(timeout: float) -> None:
    """Have the system end this process's connections whose client takes nothing for ``timeout`` seconds (RFC 5482).

    The server would otherwise keep them for as long as the client likes, to hand over what the request left behind.
    """
    milliseconds = int(min(timeout, _MAX_TIMEOUT_SECONDS) * 1000)
    for name in os.listdir("/proc/self/fd"):
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:
            continue
        with contextlib.suppress(OSError):
            # a connection has from its beginning what is set where it is accepted
            if candidate.family in _INTERNET and candidate.type == socket.SOCK_STREAM:
                candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        # it is the server's, and stays open
        candidate.detach()
