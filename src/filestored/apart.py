"""Work that needs much memory once, done by a process that then ends: where it was done, libraries stay loaded."""

import os
import pickle
import select
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from filestored.errors import FilestoredError, StartError
from filestored.signals import die_with_parent, is_told_to_leave, leave_if_told

T = TypeVar("T")

_LOOKED_AT_EVERY_SECONDS = 0.1
_PIECE = 65536


def call_apart(work: Callable[[], T], *, may_break_off: bool = False) -> T:
    """Return what ``work`` returns in a child of this process, whose imports end with it.

    With ``may_break_off`` a signal that tells this process to leave ends both at once; otherwise the work is done to
    its end. Raises the FilestoredError or ImportError that it raises, StartError for anything else, also where the
    child is killed. Call it while there is one thread.
    """
    return begin_apart(work, may_break_off=may_break_off)()


def begin_apart(work: Callable[[], T], *, may_break_off: bool = False) -> Callable[[], T]:
    """Begin what :func:`call_apart` does; what is returned waits for the end of it, and has to be called."""
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if may_break_off:
                die_with_parent(parent)
            os.close(reader)
            with open(writer, "wb") as told:
                told.write(_outcome(work))
            status = 0
        finally:
            # nothing of the parent's is flushed or closed twice
            os._exit(status)
    os.close(writer)
    return partial(_finish, child, reader, may_break_off)


def _finish(child: int, reader: int, may_break_off: bool) -> Any:
    answer = _answer(reader, child if may_break_off else None)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0 or not answer:
        # a signal to all processes of the terminal may have ended it
        leave_if_told()
        raise StartError(f"a process that prepares the start ended ({status}) before it was done")
    result, failure = pickle.loads(answer)  # noqa: S301 - from this very program
    if failure is not None:
        raise failure
    return result


def _answer(reader: int, breakable: int | None) -> bytes:
    """Read what the child tells, to the end; end a ``breakable`` one when this process is told to leave."""
    pieces: list[bytes] = []
    with open(reader, "rb", buffering=0) as told:
        while True:
            if select.select([told], [], [], _LOOKED_AT_EVERY_SECONDS)[0]:
                piece = told.read(_PIECE)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
            elif breakable is not None and is_told_to_leave():
                os.kill(breakable, signal.SIGKILL)
                return b""


def _outcome(work: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except (FilestoredError, ImportError) as error:
        failure: Exception = error
    except Exception as error:
        failure = StartError(f"{type(error).__name__}: {error}")
    try:
        pickle.loads(pickle.dumps(failure))  # noqa: S301 - an exception with arguments of its own may not come back
    except Exception:
        failure = StartError(str(failure))
    return pickle.dumps((None, failure))
