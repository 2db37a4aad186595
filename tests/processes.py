"""Looking at a daemon's processes from outside, and waiting for what takes a moment."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], bool], *, seconds: float = 20) -> bool:
    """Wait for something that takes a moment; tell whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def worker_pids(supervisor: int) -> list[int]:
    """Return the processes that answer requests, oldest first."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if not _has_ended(pid)]


def _has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        # it has ended this moment
        return True
