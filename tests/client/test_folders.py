"""Folders from Python: the same as the commands do, without one."""

import os
import threading
from itertools import count
from pathlib import Path

import pytest

from filestored.client import Client, NotAllowed, Unreachable
from filestored.client.folders import exit_status, find_all, put_all, walk
from filestored.client.manifest import FolderEntry, Manifest
from filestored.client.ordered import in_order
from filestored.client.outcomes import Failed, Noted, Stored, Transfer, Watch
from filestored.client.restoring import restore
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.tokens import make_token


class Counting(Watch):
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files = 0
        self.bytes = 0
        self.transfers = 0

    def begin(self, label: str, size: int | None) -> Transfer:
        watch = self

        class Counted(Transfer):
            position = 0

            def at(self, position: int, size: int | None) -> None:
                with watch.lock:
                    watch.bytes += position - self.position
                    self.position = position

            def end(self) -> None:
                with watch.lock:
                    watch.files += 1
                    watch.transfers += 1

        return Counted()

    def done(self, size: int) -> None:
        with self.lock:
            self.files += 1
            self.bytes += size


def test_a_folder_goes_and_comes_back_from_python(start_daemon: StartDaemon, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    sizes = [0, 1, 1000, 1_048_576, 1_048_577, 20_000_000]
    for size in sizes:
        (tree / "sub" / str(size)).write_bytes(os.urandom(size))
    sent, received = Counting(), Counting()
    with Client(start_daemon("--workers", "1").url, state=None) as client:
        outcomes = list(put_all(client, walk(str(tree)), watch=sent))
        entries = [outcome.entry for outcome in outcomes if not isinstance(outcome, Failed) and outcome.entry]
        manifest = Manifest(client.algorithm(), tuple(entries))
        restored = list(restore(client, manifest, str(tmp_path / "back"), watch=received))
    assert [outcome.is_new for outcome in outcomes if isinstance(outcome, Stored)] == [True] * len(sizes)
    assert all(isinstance(outcome, Noted) for outcome in restored)
    assert isinstance(entries[0], FolderEntry)
    assert [entry.path for entry in entries[1:]] == sorted(f"sub/{size}" for size in sizes)
    assert (sent.files, sent.bytes, sent.transfers) == (len(sizes), sum(sizes), 2)
    assert (received.files, received.bytes) == (len(sizes), sum(sizes))
    for size in sizes:
        assert (tmp_path / "back" / "sub" / str(size)).read_bytes() == (tree / "sub" / str(size)).read_bytes()


def test_what_ends_everything_is_raised_however_many_threads_meet_it(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_token(store, "somebody", "write")
    url = start_daemon("--workers", "1", store=store).url
    for number in range(200):
        (tmp_path / f"f{number}").write_text(str(number))
    names = [str(tmp_path / f"f{number}") for number in range(200)]
    before = threading.active_count()
    for where, error in ((url, NotAllowed), ("http://127.0.0.1:1", Unreachable)):
        with Client(where, state=None) as client:
            with pytest.raises(error):
                list(put_all(client, find_all(names, is_recursive=False), jobs=8))
            assert wait_until(lambda: threading.active_count() <= before)


def test_a_token_that_may_only_write_is_enough_to_store(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    token = make_token(store, "writer", "write")
    url = start_daemon("--workers", "1", store=store).url
    sizes = (10, 2_000_000, 20_000_000)
    for size in sizes:
        (tmp_path / str(size)).write_bytes(os.urandom(size))
    names = [str(tmp_path / str(size)) for size in sizes]
    with Client(url, token, state=None) as client:
        for is_new in (True, False):
            outcomes = list(put_all(client, find_all(names, is_recursive=False)))
            assert all(isinstance(outcome, Stored) for outcome in outcomes)
            assert is_new or not any(isinstance(each, Stored) and each.is_new and each.size < 20 for each in outcomes)


def test_a_file_that_would_expire_is_stored_for_ever_when_it_is_put_again(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    sizes = (10, 2_000_000)
    for size in sizes:
        (tmp_path / str(size)).write_bytes(os.urandom(size))
    names = [str(tmp_path / str(size)) for size in sizes]
    with Client(start_daemon("--workers", "1").url, state=None) as client:
        first = [
            each for each in put_all(client, find_all(names, is_recursive=False), expires_in="1h")
            if isinstance(each, Stored)
        ]  # fmt: skip
        assert all(client.info(each.hash).expires_at is not None for each in first)
        list(put_all(client, find_all(names, is_recursive=False)))
        assert len(first) == 2
        assert all(client.info(each.hash).expires_at is None for each in first)


def test_a_caller_that_has_enough_leaves_no_thread_at_work(start_daemon: StartDaemon, tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"f{number}").write_bytes(os.urandom(2000))
    before = threading.active_count()
    with Client(start_daemon("--workers", "1").url, state=None) as client:
        outcomes = put_all(client, walk(str(tmp_path)))
        next(iter(outcomes))
        outcomes.close()  # type: ignore[attr-defined]
        assert wait_until(lambda: threading.active_count() <= before)


def test_results_come_in_order_with_few_ahead() -> None:
    taken = count()
    begun = []

    def tasks() -> "count[int]":
        return taken

    def work(task: int) -> int:
        begun.append(task)
        return task * 2

    results = in_order(work, tasks(), threads=4, ahead=10)
    assert [next(results) for _ in range(100)] == [number * 2 for number in range(100)]
    results.close()
    # an endless number of tasks: no more were taken than may wait
    assert next(taken) <= 100 + 11
    assert sorted(begun) == list(range(len(begun)))


def test_what_work_raises_comes_in_its_turn() -> None:
    def work(task: int) -> int:
        if task == 5:
            raise ValueError(task)
        return task

    results = in_order(work, range(100), threads=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)


def test_exit_statuses_are_one_or_the_one() -> None:
    unreachable, refused = Unreachable("x"), NotAllowed(401, "", "x")
    assert exit_status([]) == 0
    assert exit_status([unreachable, unreachable]) == 5
    assert exit_status([unreachable, refused]) == 1


def test_the_paths_of_files_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    found = [
        each.entry.path if isinstance(each, Noted) else each.place
        for each in walk(str(tmp_path), below="x/")
        if not isinstance(each, Failed)
    ]
    assert found == ["x/a", "x/a/b", "x/a/b/c"]
