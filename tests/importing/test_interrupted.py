"""An import that is interrupted, or killed, goes on; files that change meanwhile; a full disk; a starting daemon."""

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_agreement, require_whole, sha256
from tests.bad_days.test_full_disk import MakeDisk, make_disk
from tests.care import Ended, begin, call, end
from tests.conftest import StartDaemon
from tests.importing.reports import import_, rows
from tests.processes import wait_until

__all__ = ["make_disk"]

FILES = 1500


def lay_many(source: Path, count: int = FILES, size: int = 5_000) -> set[str]:
    """Make files of different bytes; return their hashes."""
    digests = set()
    for number in range(count):
        folder = source / f"{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        body = b"%d" % number + os.urandom(size)
        (folder / f"{number}.bin").write_bytes(body)
        digests.add(sha256(body))
    return digests


def reported(store: Path) -> int:
    """Return how many lines the report has."""
    return sum(path.read_bytes().count(b"\n") for path in (store / ".filestored" / "imports").glob("*.jsonl"))


def interrupt(store: Path, source: Path, number: int, after: int) -> Ended:
    """Import, and send a signal when some files are imported."""
    process = begin(store, "import", str(source), "--json", wrapper=("env", "FILESTORED_MIN_FREE_SPACE=0"))
    assert wait_until(lambda: reported(store) > after or process.poll() is not None, seconds=60)
    return end(process, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_finishes_what_is_under_way_and_the_next_run_goes_on(tmp_path: Path, number: int) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    digests = lay_many(source)
    ended = interrupt(store, source, number, 20)
    assert ended.status == 130, ended
    assert ended.errors == "filestored: interrupted; the same command goes on from here\n"
    done = ended.json()[-1]["new"]
    assert 20 <= done < FILES
    # everything that is stored is in the report, and the other way round
    assert reported(store) == 1 + done == 1 + len(rows(store))
    require_agreement(store)
    assert list((store / ".filestored" / "tmp").iterdir()) == []
    summary, _ = import_(store, source)
    assert (summary["unchanged"], summary["new"], summary["failed"]) == (done, FILES - done, 0)
    assert set(rows(store)) == digests
    require_agreement(store)


def test_killed_it_goes_on_and_nothing_is_half_stored(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    digests = lay_many(source)
    for after in (1, 100, 250):
        ended = interrupt(store, source, signal.SIGKILL, after)
        assert ended.status == -signal.SIGKILL, ended
        require_whole(store)
    summary, _ = import_(store, source)
    assert summary["unchanged"] > 0
    assert summary["unchanged"] + summary["new"] + summary["known"] == FILES
    assert set(rows(store)) == digests
    require_agreement(store)


def test_a_report_that_ends_in_the_middle_of_a_line_is_gone_on_with(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay_many(source, 20)
    summary, _ = import_(store, source)
    report = Path(summary["report"])
    whole = report.read_bytes()
    report.write_bytes(whole[:-10])
    summary, _ = import_(store, source)
    assert (summary["unchanged"], summary["known"]) == (19, 1)
    states = Counter(json.loads(line).get("state") for line in report.read_bytes().splitlines())
    assert states == {None: 1, "new": 19, "known": 1}


def test_two_imports_of_one_source_do_not_run_at_once(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay_many(source)
    process = begin(store, "import", str(source))
    assert wait_until(lambda: reported(store) > 1 or process.poll() is not None)
    process.send_signal(signal.SIGSTOP)
    try:
        second = call(store, "import", str(source))
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.status == 1
    assert "another import is writing the report" in second.errors
    assert end(process).status == 0


def test_no_daemon_starts_where_an_import_is_at_work(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay_many(source)
    process = begin(store, "import", str(source))
    assert wait_until(lambda: reported(store) > 1 or process.poll() is not None)
    process.send_signal(signal.SIGSTOP)
    try:
        started = call(store, "run", "--port", "0")
    finally:
        process.send_signal(signal.SIGCONT)
    assert (started.status, started.errors.count("\n")) == (1, 1)
    assert "uses this store" in started.errors
    assert end(process).status == 0


def test_a_file_that_changes_while_it_is_read_is_a_failure_and_comes_with_the_next_run(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    (source / "growing").write_bytes(os.urandom(8_000_000))
    (source / "still").write_bytes(b"still")
    # each piece is read so late that what is appended meanwhile falls between two of them
    wrapper = (
        "strace", "-f", "-qq", "-o", "/dev/null", "-P", str(source / "growing"), "-e", "trace=pread64", "-e",
        "inject=pread64:delay_enter=300000",
    )  # fmt: skip
    process = begin(store, "import", str(source), "--json", wrapper=wrapper)
    # the small file is in the report when the large one has been begun
    assert wait_until(lambda: reported(store) > 1 or process.poll() is not None, seconds=60)
    with (source / "growing").open("ab") as file:
        file.write(b"more")
    ended = end(process)
    assert ended.status == 1, ended
    (told, summary) = ended.json()
    assert (told["source"], told["state"]) == ("growing", "failed")
    assert "import again" in told["reason"]
    assert (summary["new"], summary["failed"]) == (1, 1)
    assert blobs(store) == {sha256(b"still")}
    summary, _ = import_(store, source)
    assert (summary["new"], summary["unchanged"]) == (1, 1)
    require_agreement(store)


def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_room(tmp_path: Path, make_disk: MakeDisk) -> None:
    source = tmp_path / "source"
    digests = lay_many(source, 200, 100_000)
    store = make_disk("size=12m")
    ended = call(store, "import", str(source), "--json", env={"FILESTORED_MIN_FREE_SPACE": "1MiB"})
    assert ended.status == 1, ended
    assert ended.errors.count("\n") == 1
    assert "goes on from here" in ended.errors
    done = ended.json()[-1]["new"]
    assert 0 < done < 200
    require_agreement(store)
    assert len(rows(store)) == done
    subprocess.run(["mount", "-o", "remount,size=60m", str(store.parent)], check=True)
    ended = call(store, "import", str(source), "--json", env={"FILESTORED_MIN_FREE_SPACE": "1MiB"})
    assert ended.status == 0, ended
    assert ended.json()[-1]["unchanged"] == done
    assert set(rows(store)) == digests
    require_agreement(store)


def test_beside_a_daemon_under_load_nobody_loses_anything(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source = tmp_path / "source"
    digests = lay_many(source, 300, 5000)
    daemon = start_daemon("--workers", "2", "--anonymous", "full")
    uploaded: set[str] = set()
    enough = threading.Event()

    def upload() -> None:
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            while not enough.is_set():
                body = os.urandom(3000)
                assert client.post("/", content=body).text == sha256(body)
                uploaded.add(sha256(body))

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        summary, _ = import_(daemon.store, source)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert (summary["new"], summary["failed"]) == (300, 0)
    assert set(rows(daemon.store)) == digests | uploaded
    require_agreement(daemon.store)
