"""What the machine gives: a clock that is right, and enough open files."""

import ctypes
import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filestored.doctor.findings import Finding, Situation, fault, good, skipped, warning

_LEAST_FILES = 4096
_TIME_ERROR = 5
_TIMEX_BYTES = 512
_FUTURE_SECONDS = 120


def check_clock(situation: Situation) -> Iterator[Finding]:
    """See whether the clock is kept right, and has not gone back behind what was written before."""
    shown = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    newest = _newest(situation.folder.private)
    if newest > time.time() + _FUTURE_SECONDS:
        ahead = datetime.fromtimestamp(newest, UTC)
        yield fault(
            f"the clock says {shown}, and the store was written to at {ahead:%Y-%m-%d %H:%M:%S}",
            "set the clock right before lifetimes, links and tokens are judged by it",
        )
        return
    # asking changes nothing: the structure's first field, what is to be set, is zero (man adjtimex(2))
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        yield skipped(f"{shown}; whether it is kept right cannot be told here")
    elif state == _TIME_ERROR:
        yield warning(f"{shown}; nothing keeps it right", "let systemd-timesyncd or chrony do so")
    else:
        yield good(f"{shown}, kept right")


def _newest(private: Path) -> float:
    """Return when the newest of the program's own files was written, in seconds since 1970; 0 where there are none."""
    try:
        return max((entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(private)), default=0)
    except OSError:
        return 0


def check_limits(situation: Situation) -> Iterator[Finding]:
    """See how many files and connections a process may have open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _LEAST_FILES:
        yield warning(
            f"a process may open {hard} files and connections", "raise it: ulimit -Hn, LimitNOFILE= of the unit"
        )
    else:
        yield good(
            f"a process may open {'any number of' if hard == resource.RLIM_INFINITY else hard} files and connections"
        )
