"""Ending by a signal, from the first moment on."""

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1

_has_come = False


def heed_signals() -> None:
    """Take note of SIGTERM and SIGINT until something else handles them. Call it from the main thread.

    Without a handler process 1 of a container would not even notice a SIGTERM. The handler raises nothing:
    libraries swallow what is raised in the middle of their work, and a store is not left half prepared.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)
    # there is nothing to reload yet; ignored it would stay ignored in programs that are called from here
    signal.signal(signal.SIGHUP, _pass_over)


def leave_if_told() -> None:
    """End the program with status 0 if a signal has come."""
    if _has_come:
        sys.exit(0)


def is_told_to_leave() -> bool:
    """Tell whether a signal has come."""
    return _has_come


def is_told_meanwhile() -> bool:
    """Tell whether a signal to leave waits for being let in, where they are blocked."""
    return not signal.sigpending().isdisjoint({signal.SIGTERM, signal.SIGINT})


def die_with_parent(parent: int) -> None:
    """Have the system end this process with its parent, however that ends; this one at once if it has (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # it may have ended before the line above
    if os.getppid() != parent:
        os._exit(1)


def _pass_over(number: int, frame: FrameType | None) -> None:
    pass


def _note(number: int, frame: FrameType | None) -> None:
    global _has_come
    _has_come = True
