"""Process 1 of a container: signals come through, orphans are collected, the exit status is the daemon's."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import EVERYTHING
from tests.processes import wait_until

_SUBREAPER = """
import ctypes, os, signal, subprocess, sys, time
from filestored.firstprocess import go_on_as_child
# orphans come to this process as they would to process 1 (man prctl(2), PR_SET_CHILD_SUBREAPER)
ctypes.CDLL(None).prctl(36, 1)
go_on_as_child()
"""


@contextlib.contextmanager
def standing_by(code: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that stands by for one that runs ``code``."""
    with subprocess.Popen(
        [sys.executable, "-c", _SUBREAPER + textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.mark.parametrize(
    ("code", "status"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_it_ends_as_the_daemon_ends(code: str, status: int) -> None:
    with standing_by(code) as process:
        assert process.wait(30) == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_come_through(number: signal.Signals) -> None:
    code = """
        heard = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: heard.append(number))
        print("waits", flush=True)
        while not heard:
            time.sleep(0.01)
        time.sleep(0.2)
        print(*map(int, heard))
    """
    with standing_by(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        assert process.stdout.read() == f"{int(number)}\n"
        assert process.wait(30) == 0


def test_orphans_are_collected_and_the_daemons_own_children_left_to_it() -> None:
    code = """
        leaving = ["sh", "-c", "(exec sleep 0.2 >&-) & echo $!"]
        print(*(subprocess.run(leaving, capture_output=True, text=True).stdout.strip() for _ in range(5)), flush=True)
        print(subprocess.run(["sh", "-c", "exit 5"]).returncode, flush=True)
        signal.pause()
    """
    with standing_by(code) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        assert len(pids) == 5
        assert wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
        assert process.stdout.readline() == "5\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def namespace() -> list[str]:
    """Return the words that run a command as process 1; leave the test out where the system does not allow it."""
    unshare = shutil.which("unshare") or ""
    for more in ([], ["--user", "--map-root-user"]):
        words = [unshare, *more, "--pid", "--fork", "--mount-proc", "--kill-child"]
        if unshare and subprocess.run([*words, "true"], capture_output=True, timeout=30).returncode == 0:
            return words
    assert not EVERYTHING or os.geteuid(), "root may make no namespace here"
    pytest.skip("this system does not let one be process 1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_as_process_1_stops_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        outside = subprocess.Popen(
            [*namespace(), sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", "0",
             "--workers", "1", "--store", str(tmp_path / "store")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        assert wait_until(lambda: " serves " in log.read_text(), seconds=60)
        url = (tmp_path / "store/.filestored/daemon.pid").read_text().split()[1]

        def answers() -> bool:
            try:
                return httpx.get(f"{url}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        assert wait_until(answers, seconds=60)
        (first,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        os.kill(int(first), number)
        assert outside.wait(60) == 0
        assert log.read_text().rstrip().endswith("stopped")
    finally:
        outside.kill()


def test_nobody_but_process_1_becomes_a_child() -> None:
    code = """
import os
from filestored.firstprocess import leave_first_process
before = os.getpid()
leave_first_process()
print(before == os.getpid())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
