"""The filestore: owners, lives and the blobs they share."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from filestored import recovery
from filestored.access import Permission, Principal, by_link
from filestored.api.downloads import Downloads
from filestored.api.limits import Limits
from filestored.api.stalls import Stalls
from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import Added, FileRecord, Wish, now_milliseconds
from filestored.catalogue.transaction import Transaction
from filestored.changes import AddFiles
from filestored.digest import Algorithm, Digest
from filestored.errors import Forbidden, NotFound, OutOfSpace, TooLarge
from filestored.filestore import Filestore

USER = Permission.READ | Permission.WRITE | Permission.DELETE
ANNA, BORIS = Principal("anna", USER), Principal("boris", USER)
ADMIN = Principal("root", USER | Permission.ADMIN)


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    folder = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    recovery.prepare(folder, None, durable=True)
    return folder


@pytest.fixture(params=[True, False], ids=["full", "relaxed"])
def store(folder: StoreFolder, request: pytest.FixtureRequest) -> Iterator[Filestore]:
    opened = Filestore(folder, None, durable=request.param)
    yield opened
    opened.close()


async def add(store: Filestore, who: Principal, body: bytes, wish: Wish | None = None) -> Added:
    with store.hold(body) as staged:
        (added,) = await store.add(who, [(staged, wish or Wish())])
    return added


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


def path_of(folder: StoreFolder, digest: Digest) -> Path:
    return folder.path / digest[:2] / digest


def test_a_blob_goes_with_its_last_owner(store: Filestore, folder: StoreFolder) -> None:
    async def story() -> None:
        digest = (await add(store, ANNA, b"shared")).file.digest
        assert (await add(store, BORIS, b"shared")).is_new
        await store.delete(ANNA, digest)
        with pytest.raises(NotFound):
            await store.delete(ANNA, digest)
        assert path_of(folder, digest).read_bytes() == b"shared"
        await store.delete(BORIS, digest)
        assert not path_of(folder, digest).exists()

    run(story)


def test_an_admin_deletes_for_all(store: Filestore) -> None:
    async def story() -> None:
        digest = (await add(store, ANNA, b"x")).file.digest
        await add(store, BORIS, b"x")
        await store.delete(ADMIN, digest)
        with pytest.raises(NotFound):
            await store.open(ANNA, digest)

    run(story)


def test_readers_are_told_their_own_name_else_the_first_owners(store: Filestore) -> None:
    async def story() -> None:
        digest = (await add(store, ANNA, b"x", Wish(name="annas.txt"))).file.digest
        await asyncio.sleep(0.005)
        await add(store, BORIS, b"x", Wish(name="boriss.txt"))
        names = [(await store.open(who, digest)).record for who in (ANNA, BORIS, ADMIN)]
        assert [record and record.name for record in names] == ["annas.txt", "boriss.txt", "annas.txt"]

    run(story)


def test_without_a_permission_nothing_happens(store: Filestore) -> None:
    async def story() -> None:
        nobody = Principal("nobody", Permission(0))
        digest = (await add(store, ANNA, b"x")).file.digest
        with pytest.raises(Forbidden):
            await add(store, nobody, b"y")
        with pytest.raises(Forbidden):
            await store.open(nobody, digest)
        with pytest.raises(Forbidden):
            await store.delete(nobody, digest)
        assert (await store.open(ANNA, digest)).blob.size == 1

    run(story)


def test_an_upload_after_expiry_begins_a_new_life(store: Filestore) -> None:
    async def story() -> None:
        past = Wish(name="old", expires_at=now_milliseconds() - 1)
        digest = (await add(store, ANNA, b"x", past)).file.digest
        with pytest.raises(NotFound):
            await store.open(ANNA, digest)
        again = await add(store, ANNA, b"x")
        assert again.is_new
        assert (again.file.name, again.file.expires_at) == (None, None)
        assert (await store.open(ANNA, digest)).blob.size == 1

    run(story)


def test_a_delete_and_an_upload_of_the_same_bytes_in_any_order(store: Filestore, folder: StoreFolder) -> None:
    async def story() -> None:
        for _ in range(30):
            digest = (await add(store, ANNA, b"x")).file.digest
            deletion = asyncio.create_task(store.delete(ANNA, digest))
            await add(store, BORIS, b"x")
            await deletion
            assert path_of(folder, digest).read_bytes() == b"x"
            await store.delete(BORIS, digest)

    run(story)


def test_many_small_uploads_at_once_are_all_there(store: Filestore, folder: StoreFolder) -> None:
    async def story() -> None:
        bodies = [os.urandom(100) for _ in range(300)]
        added = await asyncio.gather(*(add(store, ANNA, body) for body in bodies))
        for body, item in zip(bodies, added, strict=True):
            assert path_of(folder, item.file.digest).read_bytes() == body
        assert os.listdir(folder.private / "tmp") == []

    run(story)


def test_a_receiver_left_early_leaves_nothing(store: Filestore, folder: StoreFolder) -> None:
    async def fail() -> None:
        async with store.receive() as receiver:
            await receiver.write(os.urandom(3 << 20))
            raise ZeroDivisionError

    async def story() -> None:
        with pytest.raises(ZeroDivisionError):
            await fail()
        async with store.receive() as receiver:
            await receiver.write(os.urandom(3 << 20))
            staged = await receiver.finish()
        with staged:
            assert len(os.listdir(folder.private / "tmp")) == 1
        assert os.listdir(folder.private / "tmp") == []

    run(story)


def test_removals_that_a_crash_left_undone_are_carried_out_at_start(folder: StoreFolder) -> None:
    store = Filestore(folder, None, durable=True)

    async def story() -> None:
        gone = (await add(store, ANNA, b"gone")).file.digest
        kept = (await add(store, ANNA, b"kept")).file.digest
        with store._catalogue.transaction() as transaction:
            transaction.delete(transaction.find(gone), are_last=True)
            transaction.add_removal(gone)
            transaction.add_removal(kept)

    run(story)
    store.close()
    (folder.private / "tmp" / "leftover").write_bytes(b"half a body")
    recovery.prepare(folder, None, durable=True)
    assert sorted(path.read_bytes() for path in folder.path.glob("??/*")) == [b"kept"]
    assert os.listdir(folder.private / "tmp") == []


def test_room_is_kept_free(folder: StoreFolder) -> None:
    store = Filestore(folder, None, durable=False, min_free_bytes=1 << 62)
    with pytest.raises(OutOfSpace, match="free"):
        store.require_room(1)
    store.close()


def test_an_upload_refused_after_its_batch_has_failed_leaves_nothing(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes were published by the attempt that failed; meanwhile another worker has used the quota up."""
    store, other = (Filestore(folder, None, durable=False) for _ in range(2))
    limited = Principal("anna", USER, quota=100)
    flush = type(store._catalogue).transaction
    attempts = []

    @contextlib.contextmanager
    def fail_first(
        catalogue: Catalogue, names: Iterable[str] = (), *, must_last: bool = False
    ) -> Iterator[Transaction]:
        with flush(catalogue, names, must_last=must_last) as transaction:
            yield transaction
            attempts.append(transaction)
            if len(attempts) == 1:
                raise ValueError("the first attempt fails when all is done")
        return

    async def story() -> None:
        monkeypatch.setattr(store._catalogue, "transaction", fail_first.__get__(store._catalogue))
        added = AddFiles("anna", [(store.hold(b"x" * 90), Wish())], limited.quota)
        innocent = AddFiles("boris", [(store.hold(b"innocent"), Wish())])
        waiting = [store._committer.submit(change) for change in (added, innocent)]
        take = added.carry_out

        def used_up_meanwhile(transaction: Transaction, blobs: DiskBlobStore, now: int) -> list[Added]:
            if attempts:
                transaction.insert(FileRecord(Digest("ab" * 32), "anna", None, "a/b", 50, 1, None), is_first=True)
            return take(transaction, blobs, now)

        monkeypatch.setattr(added, "carry_out", used_up_meanwhile)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], TooLarge)
        assert not path_of(folder, added.digests[0]).exists()
        assert path_of(folder, innocent.digests[0]).read_bytes() == b"innocent"

    run(story)
    store.close()
    other.close()


def test_what_is_remembered_is_not_read_by_who_may_not(store: Filestore) -> None:
    async def story() -> None:
        digest = (await add(store, ANNA, b"remembered")).file.digest
        downloads = Downloads(store, Limits(), Stalls())
        await downloads.find(ANNA, digest)
        for blind in (Principal("anna", Permission.WRITE), by_link(Digest("cd" * 32), 2**60)):
            with pytest.raises(Forbidden):
                await downloads.find(blind, digest)
        assert await store.find_stored(Principal("boris", Permission.DELETE), digest) is None

    run(story)
