"""Ending by a signal, from the first moment on."""

import signal
import sys
from types import FrameType

_has_come = False


def heed_signals() -> None:
    """Take note of SIGTERM and SIGINT until something else handles them. Call it from the main thread.

    Without a handler process 1 of a container would not even notice a SIGTERM. The handler raises nothing:
    libraries swallow what is raised in the middle of their work, and a store is not left half prepared.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)


def leave_if_told() -> None:
    """End the program with status 0 if a signal has come."""
    if _has_come:
        sys.exit(0)


def is_told_to_leave() -> bool:
    """Tell whether a signal has come."""
    return _has_come


def _note(number: int, frame: FrameType | None) -> None:
    global _has_come
    _has_come = True
