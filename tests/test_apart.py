"""Work done by a child: what comes back from it, and what does not stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from filestored.apart import begin_apart, call_apart
from filestored.errors import CatalogueBusy, FilestoredError, StartError
from tests.processes import wait_until


def test_what_it_returns_comes_back_and_nothing_else_does() -> None:
    seen: list[int] = []

    def work() -> dict[str, int]:
        seen.append(1)
        return {"pid": os.getpid()}

    assert call_apart(work)["pid"] != os.getpid()
    assert seen == []


def test_large_answers_come_back_whole() -> None:
    assert call_apart(lambda: b"x" * (3 << 20)) == b"x" * (3 << 20)


@pytest.mark.parametrize("error", [StartError("the store is gone"), CatalogueBusy("locked")])
def test_its_errors_are_raised_here(error: FilestoredError) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error) if isinstance(error, StartError) else FilestoredError) as raised:
        call_apart(work)
    assert str(error) in str(raised.value)


def test_a_library_that_is_missing_is_still_named() -> None:
    def work() -> None:
        raise ModuleNotFoundError("no", name="psycopg")

    with pytest.raises(ModuleNotFoundError) as raised:
        call_apart(work)
    assert raised.value.name == "psycopg"


def test_an_error_that_nobody_foresaw_is_one_line() -> None:
    def work() -> None:
        raise ZeroDivisionError("no way")

    with pytest.raises(StartError, match=r"^ZeroDivisionError: no way$"):
        call_apart(work)


def test_a_child_that_is_killed_is_told() -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(StartError, match=r"ended \(-9\) before it was done"):
        call_apart(work)


def test_who_is_told_to_leave_does_not_wait_for_what_may_break_off(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = (
        "import pathlib, sys, time\n"
        "from filestored.apart import call_apart\n"
        "from filestored.signals import heed_signals\n"
        "def work():\n"
        "    pathlib.Path(sys.argv[1]).touch()\n"
        "    time.sleep(600)\n"
        "heed_signals()\n"
        "call_apart(work, may_break_off=True)\n"
    )
    leaving = subprocess.Popen([sys.executable, "-c", code, str(begun)])
    assert wait_until(begun.exists)
    leaving.terminate()
    assert leaving.wait(60) == 0


def test_what_is_begun_goes_on_meanwhile(tmp_path: Path) -> None:
    def work() -> int:
        (tmp_path / "begun").touch()
        assert wait_until((tmp_path / "seen").exists)
        return os.getpid()

    finish = begin_apart(work)
    assert wait_until((tmp_path / "begun").exists)
    (tmp_path / "seen").touch()
    assert finish() != os.getpid()


def test_nothing_that_was_waiting_to_be_written_is_written_twice() -> None:
    code = "from filestored.apart import call_apart\nprint('once', end='')\ncall_apart(lambda: None)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "once"
