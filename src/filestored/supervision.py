"""How Granian's supervisor waits, stops, and starts workers anew: what the daemon needs otherwise than it has it."""

import contextlib
import ctypes
import gc
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from filestored.errors import StartError
from filestored.service import Service
from filestored.shared import announce_leaving, announce_stop
from filestored.signals import is_told_meanwhile

if TYPE_CHECKING:
    from granian.server.common import AbstractServer

_DEATHS = 5
_DEATHS_SECONDS = 30.0
_SIGNAL_SECONDS = 0.2
# so seldom that it does not count as dying again and again
_UNTIL_TRIED_AGAIN_SECONDS = 6.0
_HEEDED = frozenset({signal.SIGINT, signal.SIGTERM})


class Rest(threading.Event):
    """What the supervisor waits on; SIGINT and SIGTERM come through only meanwhile.

    Workers inherit the mask of the moment they are started in: Ctrl-C reaches the supervisor alone, which tells them
    when to end; SIGTERM they let in when they can heed it. Here is also where it is seen that a stop or a reload
    (SIGHUP) begins, and a reload ends.
    """

    def __init__(
        self,
        granian: "AbstractServer[Any]",
        shared_file: Path,
        stop_delay: float,
        service: Service,
        require_reloadable: Callable[[], None],
    ) -> None:
        """``stop_delay`` is for how many seconds everything is still served once the daemon is told to stop.

        ``require_reloadable`` raises StartError where new workers could not start.
        """
        super().__init__()
        self._granian = granian
        self._shared_file = shared_file
        self._stop_delay = stop_delay
        self._service = service
        self._require_reloadable = require_reloadable
        self._ends: float | None = None
        self._is_reloading = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)

    def wait(self, timeout: float | None = None) -> bool:
        """See Event. When it is over because the daemon is told to stop, the workers know that."""
        if self._is_reloading:
            self._is_reloading = False
            logger.info("the workers are replaced")
            self._service.reloaded()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
        try:
            # Granian forgets a stop that comes at the moment it begins to reload
            is_set = self._granian.interrupt_signal or super().wait(self._left() if timeout is None else timeout)
            if self._is_to_go_on():
                # the time that is left is waited for the next time Granian comes here
                self.clear()
            return is_set
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
            self._look()

    def _look(self) -> None:
        if self._granian.interrupt_signal:
            # what can go on later ends at once, and is kept
            announce_stop(self._shared_file)
            self._service.stopping()
        elif self._granian.reload_signal:
            self._begin_reload()

    def _begin_reload(self) -> None:
        """Have Granian replace the workers one after the other, unless they could not start, or are to end anyway."""
        try:
            if self._ends is not None:
                raise StartError("the daemon is about to stop")
            self._require_reloadable()
        except StartError as error:
            logger.error("nothing is reloaded: {}", error)
            self._granian.reload_signal = False
            self.clear()
            if self._granian.interrupt_signal or self._granian.interrupt_children:
                self.set()
        else:
            logger.info("the workers are being replaced; the certificate is read anew")
            self._service.reloading()
            self._is_reloading = True

    def _left(self) -> float | None:
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def _is_to_go_on(self) -> bool:
        """Tell whether the daemon goes on for a while though it was told to stop; a second signal ends that."""
        granian = self._granian
        if self._ends is None and granian.interrupt_signal and self._stop_delay:
            announce_leaving(self._shared_file)
            logger.info("told to stop: that begins in {:g} seconds, or when told once more", self._stop_delay)
            self._service.leaving(self._stop_delay)
            self._ends = time.monotonic() + self._stop_delay
            granian.interrupt_signal = False
        elif self._ends is not None and self._left() == 0:
            granian.interrupt_signal = True
        # a worker that has ended meanwhile is Granian's to start anew
        return self._ends is not None and not granian.interrupt_signal and not granian.interrupt_children


class Respawned(dict[int, float]):
    """When each worker was started anew (monotonic seconds), which Granian looks at before it does so once more.

    It gives up, and ends the daemon, where the same one dies twice within 5.5 s. Here that takes five deaths more
    than there are workers within half a minute: one may be the system's doing, for want of memory, and the next one
    just as well. Which worker it is does not count, since Granian forgets all but the last.
    """

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._times: deque[float] = deque(maxlen=_DEATHS + workers)

    def __setitem__(self, worker: int, moment: float) -> None:
        self._times.append(moment)
        super().__setitem__(worker, moment)

    def get(self, worker: int, default: Any = None) -> Any:
        """Return when a worker was started last, where they are too often; else what says that it is long ago."""
        is_often = len(self._times) == self._times.maxlen and self._times[-1] - self._times[0] < _DEATHS_SECONDS
        return self._times[-1] if is_often else default


def replace_with_care(granian: "AbstractServer[Any]") -> None:
    """Have Granian look for a stop between the workers it replaces, and try again where one cannot be started.

    It would replace all of them first, several seconds each; and end, with the others still serving, where the system
    has no process or memory left for the moment.
    """
    replace = granian._respawn_workers

    def replace_one_by_one(workers: list[int], spawn_target: Any, target_loader: Any, delay: float = 0) -> None:
        for index in workers:
            # one that has died is replaced all the same, which is quick: with --stop-delay it is still needed
            if delay and is_told_meanwhile():
                return
            old = granian.wrks[index]
            try:
                replace([index], spawn_target, target_loader, delay)
            except OSError as error:
                logger.error("a worker cannot be started, which is tried again: {}", error)
                if old not in granian.wrks:
                    granian.wrks.insert(index, old)
                if not old.is_alive():
                    granian.interrupt_children.append(index)
                    granian.main_loop_interrupt.set()
                _pause(_UNTIL_TRIED_AGAIN_SECONDS)

    granian._respawn_workers = replace_one_by_one  # type: ignore[method-assign]


def _pause(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not is_told_meanwhile():
        time.sleep(_SIGNAL_SECONDS)


def end_workers(granian: "AbstractServer[Any]") -> None:
    """End the workers that still run, at once. Blocks until they have ended."""
    for worker in granian.wrks:
        if worker.is_alive():
            worker.kill()
            worker.join()


def give_memory_back() -> None:
    """Give the system back what only starting has needed."""
    gc.collect()
    # not every C library has it
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def quiet_when_stopping(granian: "AbstractServer[Any]") -> Iterator[None]:
    """Keep the log free of the alarm about workers that a stop of the whole process group has ended as well."""

    def is_news(record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("Unexpected exit"):
            return True
        # the same signal may not have been seen by the supervisor yet
        time.sleep(_SIGNAL_SECONDS)
        return not granian.interrupt_signal

    granian_logger = logging.getLogger("_granian")
    granian_logger.addFilter(is_news)
    try:
        yield
    finally:
        granian_logger.removeFilter(is_news)
