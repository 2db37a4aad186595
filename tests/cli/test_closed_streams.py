"""Standard streams that are closed, full or read by nobody: one line, the status for it, and the work is done."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from filestored.daemon import running, running_pid
from tests.bad_days.consistency import sha256
from tests.cli.calling import CLEAN
from tests.processes import wait_until

ROOT = Path(__file__).parent.parent.parent
# unbuffered, nothing would be left to be written at the end
BUFFERED = {name: value for name, value in CLEAN.items() if name != "PYTHONUNBUFFERED"}
MODULE = (sys.executable, "-m", "filestored")
FULL = "filestored: the token anna could not be printed and is revoked again: No space left on device\n"
NOBODY = "filestored: the token anna could not be printed and is revoked again: Broken pipe\n"


def _call(words: str, folder: Path, program: tuple[str, ...] = MODULE) -> tuple[int, str, str]:
    """Run a command, with redirections, in a folder; return exit status, standard output and standard error."""
    ended = subprocess.run(
        ["bash", "-c", f"exec {shlex.join(program)} {words}"],
        capture_output=True, text=True, timeout=90, cwd=folder, env=BUFFERED,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def _call_unread(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command whose output goes into a pipe that nobody reads; return exit status and standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*MODULE, *words], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=90, cwd=folder, env=BUFFERED
    )
    os.close(writer)
    return ended.returncode, ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder; the daemon of the store in it, if one runs, ends with the test."""
    yield tmp_path
    if running_pid(tmp_path / "store") is not None:
        assert _call("stop", tmp_path)[0] == 0


@pytest.fixture
def stored(folder: Path) -> Path:
    """A working folder with a store."""
    assert _call("token create bert --permissions read", folder)[0] == 0
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        *((words, 1) for words in ("config", "--help", "--version", "completion bash", "status", "token list")),
        *((words, 1) for words in ("scrub", "gc", "reindex", "import SOURCE", "copy-store store other", "doctor")),
        ("link --base http://a.example HASH", 7),
    ],
)
def test_a_full_disk_under_the_output_is_one_line(stored: Path, words: str, expected: int) -> None:
    (stored / "SOURCE").mkdir()
    if "HASH" in words:
        (stored / "SOURCE" / "f").write_bytes(b"x")
        assert _call("import --from folder SOURCE", stored)[0] == 0
    status, output, said = _call(f"{words.replace('HASH', sha256(b'x'))} >/dev/full", stored)
    assert (status, output) == (expected, "")
    assert re.fullmatch(r"filestored: (standard output: )?No space left on device\n", said)


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-", ">/dev/full 2>&1"])
def test_a_usage_mistake_that_cannot_be_told_keeps_its_status(folder: Path, stream: str) -> None:
    assert _call(f"nonsense {stream}", folder) == (2, "", "")
    assert _call(stream, folder) == (2, "", "")


def test_a_warning_that_cannot_be_written_does_not_keep_a_command_from_its_work(folder: Path) -> None:
    status, output, said = _call("config 2>/dev/full", folder, ("env", "FILESTORED_PROT=1", *MODULE))
    assert (status, said) == (0, "")
    assert "max-upload" in output


@pytest.mark.parametrize("end", [">/dev/full", None])
def test_a_restart_that_cannot_tell_of_it_starts_again_all_the_same(folder: Path, end: str | None) -> None:
    assert _call("start --host 127.0.0.1 --port 0 --workers 1", folder)[0] == 0
    before = running_pid(folder / "store")
    if end is None:
        assert _call_unread(folder, "restart") == (1, "")
    else:
        assert _call(f"restart {end}", folder)[::2] == (1, "filestored: standard output: No space left on device\n")
    after = running(folder / "store")
    assert after is not None
    assert after.pid != before
    assert httpx.get(f"{after.address}/healthz").status_code == 200


@pytest.mark.parametrize("program", [MODULE, (sys.executable, str(ROOT / "main.py"))], ids=["module", "main.py"])
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_run_works_with_closed_streams_and_logs_into_no_other_file(
    folder: Path, closed: str, program: tuple[str, ...]
) -> None:
    words = f"exec {shlex.join(program)} run --host 127.0.0.1 --port 0 --workers 1 {closed}"
    with subprocess.Popen(["bash", "-c", words], cwd=folder, env=BUFFERED) as process:
        try:
            assert wait_until(lambda: process.poll() is not None or _address(folder) != "")
            assert process.poll() is None
            address = _address(folder)
            assert wait_until(lambda: _answers(address))
            # a line of the log, which is written every 0.1 s, and by the last moment
            assert httpx.post(address, content=b"x").status_code == 200
        finally:
            process.terminate()
        assert process.wait(timeout=60) == 0
    noted = (folder / "store" / ".filestored" / "daemon.pid").read_text()
    assert re.fullmatch(rf"{process.pid}\n({re.escape(address)}\n)?", noted)


def _address(folder: Path) -> str:
    holder = running(folder / "store")
    return holder.address if holder else ""


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("words", ["scrub", "import SOURCE", "copy-store store other"])
def test_closed_streams_do_not_keep_a_store_from_its_care(stored: Path, words: str) -> None:
    (stored / "SOURCE").mkdir()
    assert _call(f"{words} >&-", stored) == (0, "", "")
    status, output, said = _call(f"{words} 2>&-", stored)
    assert (status, said) == (0, "")
    assert output.count("\n") == 1
    assert _call(f"{words} <&- >&- 2>&-", stored) == (0, "", "")


@pytest.mark.parametrize("end", [">/dev/full", ">&-", None])
def test_a_token_that_nobody_was_shown_is_none(folder: Path, end: str | None) -> None:
    words = ["token", "create", "anna", "--permissions", "read"]
    if end is None:
        assert _call_unread(folder, *words) == (1, NOBODY)
    else:
        status, output, said = _call(f"{shlex.join(words)} {end}", folder)
        assert (status, output) == (1, "")
        assert (
            said == FULL
            if end == ">/dev/full"
            else re.fullmatch(r"filestored: standard output is closed[^\n]*\n", said)
        )
    status, output, said = _call(shlex.join(words), folder)
    assert (status, said) == (0, "")
    assert output.startswith("fs-")


def test_a_running_daemon_grants_what_it_did_after_a_token_that_nobody_was_shown(folder: Path) -> None:
    assert _call("start --host 127.0.0.1 --port 0 --workers 1", folder)[0] == 0
    assert _call("token create anna --permissions read >/dev/full", folder)[0] == 1
    assert wait_until(lambda: httpx.post(_address(folder), content=b"x").status_code == 200)
