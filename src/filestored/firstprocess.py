"""What a container expects of its process 1: to pass signals on, and to collect processes that lost their parent.

The kernel hands every orphan of the container to process 1, and what nobody collects stays in its table; to process 1
itself it delivers no signal that it has no handler for. So the daemon is a child there, and what stays behind as
process 1 does nothing else.
"""

import os
import signal
from typing import NoReturn

_PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


def leave_first_process() -> None:
    """Go on as a child where this is process 1, else as before. Call it while there is one thread."""
    if os.getpid() == 1:
        go_on_as_child()


def go_on_as_child() -> None:
    """Return in a child of this process, which stands by until the child ends, and then ends with its exit status."""
    heeded = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    child = os.fork()
    if child == 0:
        # Ctrl-C comes to process 1 alone, and from there once
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _stand_by(child, heeded)


def _stand_by(child: int, heeded: frozenset[signal.Signals]) -> NoReturn:
    while True:
        number = signal.sigwait(heeded)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        status = _collect(child)
        if status is not None:
            os._exit(status)


def _collect(child: int) -> int | None:
    """Collect all processes that have ended; return the child's exit status as a shell would, None where it runs on."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code
