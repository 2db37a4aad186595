"""Processes as ``/proc`` shows them: what belongs together, the CPU time and memory it takes, where it runs."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _STATE, _USER, _SYSTEM = 3, 0, 11, 12
"""Where fields of ``/proc/PID/stat`` stand, counted after the command's name (proc(5))."""

STOP_SECONDS = 6.0
"""How long a program may take to end after SIGTERM before it is killed."""


class Tree:
    """A program started here, in a session of its own, together with all its descendants.

    ``output`` receives what it prints. Every process is signalled by its id, found through the session.
    """

    def __init__(self, command: list[str], output: Path, env: Mapping[str, str] | None = None) -> None:
        self.output = output
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, start_new_session=True
            )

    def has_ended(self) -> bool:
        """Tell whether the first process is gone."""
        return self._process.poll() is not None

    def pids(self) -> list[int]:
        """Return the ids of all its live processes."""
        return [pid for pid in _all_pids() if _session_of(pid) == self._process.pid]

    def cpu_seconds(self) -> float:
        """Return the CPU time its live processes have used so far."""
        return sum(_cpu_seconds(pid) for pid in self.pids())

    def memory(self) -> int:
        """Return the bytes of memory its processes take: proportional set size, shared pages counted once."""
        return sum(_memory(pid) for pid in self.pids())

    def pin(self, cpus: set[int]) -> None:
        """Let all its threads run on ``cpus`` only."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(int(thread), cpus)

    def stop(self) -> None:
        """End it: ask the first process, then kill by id what is left after ``STOP_SECONDS``."""
        if not self.has_ended():
            self._process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    def _left(self) -> list[int]:
        self._process.poll()
        return self.pids()

    def printed(self) -> str:
        """Return the end of what it has printed."""
        return self.output.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def running_on(cpus: set[int]) -> Iterator[None]:
    """Run this thread, and the processes started meanwhile, on ``cpus`` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds() -> float:
    """Return the CPU time the whole machine has spent: interrupts and what the host took away included."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, stat.readline().split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / _TICKS


def own_seconds() -> tuple[float, float]:
    """Return the CPU time spent by this process, and by those of its children that have ended."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    # the name, in parentheses, may itself hold spaces and parentheses
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _session_of(pid: int) -> int | None:
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[_STATE] == "Z" else int(fields[_SESSION])


def _cpu_seconds(pid: int) -> float:
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS


def _memory(pid: int) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    return 0
