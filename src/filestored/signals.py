"""Ending by a signal, from the first moment on."""

import signal
import sys
from types import FrameType
from typing import NoReturn


def leave_on_signal() -> None:
    """Let SIGTERM and SIGINT end the program in order, with status 0, until something else takes them over.

    Without a handler process 1 of a container would not even notice a SIGTERM. Call it from the main thread.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
