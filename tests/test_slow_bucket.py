"""What a bucket that is slow, or was taken over, or out of reach, must not do to all others who wait."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from filestored import carriers, keeping, recovery
from filestored.access import Permission, Principal
from filestored.blobs.address import BucketAddress
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobStore
from filestored.carriers import Carriers
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import FileRecord, Wish, now_milliseconds
from filestored.changes import AddFiles, Change, DeleteFile, EndFiles
from filestored.digest import Algorithm, Digest
from filestored.errors import BlobStoreError, BlobStoreUnavailable, Busy, StorageFault, TooLarge
from filestored.filestore import Filestore
from filestored.keeping import Keeping
from filestored.pending import Pending
from filestored.reindex import Reindex
from filestored.removals import SendRemovals
from filestored.removers import Removers
from filestored.staging import Staging
from tests.bad_days.consistency import sha256
from tests.processes import wait_until
from tests.s3 import free_ports
from tests.slow_s3 import SlowS3, slow_s3

USER = Permission.READ | Permission.WRITE | Permission.DELETE
ANNA = Principal("anna", USER)
YEAR_MS = 365 * 86400 * 1000


@pytest.fixture
def engine() -> Iterator[SlowS3]:
    with slow_s3() as made:
        yield made


@pytest.fixture
def folder(engine: SlowS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreFolder:
    return folder_at(engine.url, tmp_path / "spool", monkeypatch)


def folder_at(endpoint: str, spool: Path, monkeypatch: pytest.MonkeyPatch) -> StoreFolder:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return StoreFolder.adopt(spool, Algorithm.SHA256, BucketAddress("s3", "b", "files", endpoint, "us-east-1", True))


@pytest.fixture
def blobs(folder: StoreFolder) -> Iterator[BlobStore]:
    with closing(open_blobs(folder)) as blobs:
        assert blobs.id
        yield blobs


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    Catalogue.prepare(tmp_path / "rows")
    with closing(Catalogue(tmp_path / "rows", durable=False)) as made:
        yield made


def names(count: int, kind: str = "blob") -> list[Digest]:
    return [Digest(sha256(f"{kind} {number}".encode())) for number in range(count)]


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 120))


def test_readers_who_ask_for_much_hold_up_no_commit(engine: SlowS3, blobs: BlobStore) -> None:
    engine.has_all = True
    engine.seconds["HEAD"] = 1.0

    def read(reader: int) -> None:
        with suppress(BlobStoreUnavailable):
            blobs.foresee(names(100, f"of reader {reader}"), for_reader=True)

    with ThreadPoolExecutor(4) as readers:
        asked = [readers.submit(read, number) for number in range(4)]
        assert wait_until(lambda: engine.requests["HEAD"] >= 16)
        blobs.foresee(names(1))
        assert not all(each.done() for each in asked)


def test_many_blobs_are_given_more_time(engine: SlowS3, blobs: BlobStore) -> None:
    engine.has_all = True
    # of 32 at once: some five seconds for all
    engine.seconds["HEAD"] = 0.3
    blobs.foresee(names(500))
    assert blobs.stat(names(500)[-1]) is not None


def test_that_the_bucket_is_there_is_seen_in_the_time_that_is_left(engine: SlowS3, blobs: BlobStore) -> None:
    engine.seconds.update(HEAD=2.5, GET=2.5)
    with pytest.raises(BlobStoreUnavailable, match="in time"):
        blobs.foresee(names(1))


def test_what_was_not_foreseen_is_looked_up_once_in_a_transaction(engine: SlowS3, blobs: BlobStore) -> None:
    blobs.foresee([])
    for _ in range(5):
        assert blobs.stat(names(1)[0]) is None
    assert engine.requests["HEAD"] == 1
    blobs.forget_foreseen()
    assert blobs.stat(names(1)[0]) is None
    assert engine.requests["HEAD"] == 2


def test_what_several_changes_are_about_is_foreseen(catalogue: Catalogue) -> None:
    (digest,) = names(1)
    with catalogue.transaction([digest]) as transaction:
        transaction.insert(FileRecord(digest, "anna", None, "a/b", 3, now_milliseconds(), None), is_first=True)
        assert DeleteFile(digest, "anna").asks(transaction) == []
        assert DeleteFile(digest, "anna").asks(transaction, {digest}) == [digest]


def test_reindex_asks_a_slow_bucket_about_few_at_a_time(
    engine: SlowS3, folder: StoreFolder, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.has_all = True
    # of 32 at once all 200 would take ten seconds
    engine.seconds["HEAD"] = 1.5
    reindex = Reindex(folder, catalogue, failed=lambda shard, error: None)
    with closing(open_blobs(folder)) as blobs:

        class Walk(list[Digest]):
            others = 0

        monkeypatch.setattr(type(blobs), "walk", lambda self, after="", *, failed: Walk(names(100)))
        reindex.run()
    assert reindex.added == 100


def test_removals_that_wait_in_an_outage_wait_together(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody listens there
    folder = folder_at(f"http://127.0.0.1:{free_ports(1)[0]}", tmp_path / "spool", monkeypatch)
    lock, sent = threading.Lock(), 0
    told: list[Pending[Any]] = []
    digests = names(24)
    with catalogue.transaction(digests) as transaction:
        for digest in digests:
            transaction.add_removal(digest)
    with closing(open_blobs(folder)) as blobs:

        def do(change: Change[Any]) -> Any:
            nonlocal sent
            with lock:
                sent += isinstance(change, SendRemovals)
                with catalogue.transaction(change.names) as transaction:
                    return change.carry_out(transaction, blobs, now_milliseconds())

        removers = Removers(blobs, Keeping(blobs, catalogue), do, told.extend)
        waiting: list[Pending[Any]] = [Pending(DeleteFile(digest, None), Future()) for digest in digests]
        for pending in waiting:
            pending.change.removed = list(pending.change.digests)
            removers.carry_out([pending])
        assert wait_until(lambda: len(told) == len(waiting), seconds=120)
        removers.close()
    assert {id(pending) for pending in told} == {id(pending) for pending in waiting}
    assert all(isinstance(pending.error, Busy) for pending in waiting)
    # four begin at once, and find all others waiting when they are over
    assert sent <= 12


def test_an_upload_that_waits_for_long_for_the_bucket_is_refused(
    engine: SlowS3, folder: StoreFolder, blobs: BlobStore, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "LARGE_BYTES", 1)
    monkeypatch.setattr(carriers, "_QUEUED_SECONDS", 1.0)
    monkeypatch.setattr(carriers, "_QUEUE_LOOKED_AT_EVERY_SECONDS", 0.1)
    carried: list[Pending[Any]] = []
    staging = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=False)
    bringing = Carriers(blobs, catalogue, Keeping(blobs, catalogue), carried.append)
    engine.holds_puts.set()
    bodies = [staging.hold(b"body %d" % number) for number in range(6)]
    waiting: list[Pending[Any]] = [Pending(AddFiles("anna", [(staged, Wish())]), Future()) for staged in bodies]
    for pending in waiting[:4]:
        bringing.carry(pending)
    assert wait_until(lambda: engine.requests["PUT"] == 5)
    for pending in waiting[4:]:
        bringing.carry(pending)
    assert wait_until(lambda: len(carried) == 2)
    assert all(isinstance(pending.error, Busy) for pending in waiting[4:])
    engine.holds_puts.clear()
    assert wait_until(lambda: len(carried) == 6)
    assert [pending.error for pending in waiting[:4]] == [None] * 4
    bringing.close()


def test_a_stop_waits_for_what_is_taken_back(engine: SlowS3, folder: StoreFolder) -> None:
    recovery.prepare(folder, None, durable=True)
    store = Filestore(folder, None, durable=False)
    engine.seconds["DELETE"] = 2.0

    async def add() -> None:
        with store.hold(b"too much") as staged, pytest.raises(TooLarge):
            await store.add(Principal("anna", USER, quota=3), [(staged, Wish())])

    run(add)
    store.close()
    digest = Digest(sha256(b"too much"))
    with closing(Catalogue(folder.catalogue_file, durable=False)) as rows:
        assert rows.removals_of([digest]) == {}
    assert not any(path.endswith(digest) for path in engine.objects)


def test_a_clock_that_is_ahead_ends_nothing_where_others_keep_the_catalogue_too(
    address: Address, blobs: BlobStore
) -> None:
    (digest,) = names(1)
    soon = now_milliseconds() + YEAR_MS // 2
    Catalogue.prepare(address)
    with closing(Catalogue(address, durable=True)) as catalogue:
        with catalogue.transaction([digest]) as transaction:
            transaction.insert(FileRecord(digest, "anna", None, "a/b", 3, now_milliseconds(), soon), is_first=True)
        with catalogue.transaction() as transaction:
            ended = EndFiles().carry_out(transaction, blobs, now_milliseconds() + YEAR_MS)
        assert ended == (0 if catalogue.is_shared else 1)


def test_a_daemon_whose_bucket_was_taken_over_puts_and_removes_nothing_more(
    engine: SlowS3, folder: StoreFolder, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_ASKED_EVERY_SECONDS", 0.0)
    recovery.prepare(folder, None, durable=True)
    store = Filestore(folder, None, durable=False)

    async def story() -> None:
        with store.hold(b"kept") as staged:
            (added,) = await store.add(ANNA, [(staged, Wish())])
        store.require_usable()
        blobs.keep_for("another", take_over=True)
        before = dict(engine.objects)
        with pytest.raises(BlobStoreError, match="another catalogue"):
            store.require_usable()
        with store.hold(b"more") as staged, pytest.raises(StorageFault):
            await store.add(ANNA, [(staged, Wish())])
        with pytest.raises(Busy):
            await store.delete(ANNA, added.file.digest)
        assert engine.objects == before

    run(story)
    store.close()


_BROKEN = """
import asyncio, sys
from pathlib import Path
from filestored.blobs.layout import StoreFolder
from filestored.changes import Change
from filestored.digest import Algorithm
from filestored.filestore import Filestore
from filestored import recovery

class Body:
    is_flushed = True
    def discard(self):
        raise ValueError("broken")

class Broken(Change):
    def carry_out(self, transaction, blobs, now):
        return None

async def story(store):
    await store._committer.submit(Broken([], [Body()]))

folder = StoreFolder.adopt(Path(sys.argv[1]), Algorithm.SHA256)
recovery.prepare(folder, None, durable=True)
asyncio.run(story(Filestore(folder, None, durable=False)))
"""


def test_a_process_whose_committer_breaks_off_ends_so_that_nobody_waits_for_ever(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _BROKEN, tmp_path / "store"], capture_output=True, timeout=100)
    assert ended.returncode == 1
    assert b"this process ends" in ended.stderr
