"""Removals in the catalogue, on both databases, and the steps by which a bucket carries them out."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from filestored import removals
from filestored.access import ALL, Principal
from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket import removing
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobStore
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import FileRecord, Wish, now_milliseconds
from filestored.catalogue.transaction import Transaction
from filestored.changes import AddFiles, Change
from filestored.committer import Committer
from filestored.digest import Algorithm, Digest
from filestored.errors import BlobStoreUnavailable, NotFound, TooLarge
from filestored.reading import Reader
from filestored.removals import (
    SENT_LIFE_MS,
    EndRemovals,
    SendRemovals,
    remove_from_bucket,
    settle_removals,
    take_out_of_bucket,
)
from filestored.shared import Shared
from filestored.staging import Staging
from tests.bad_days.consistency import sha256
from tests.s3 import Bucket, S3Server

# servers of several programs are started, and answer slowly on a busy machine
pytestmark = pytest.mark.timeout(400)

ONE, TWO, THREE = (Digest(sha256(name)) for name in (b"one", b"two", b"three"))


@pytest.fixture
def catalogue(address: Address) -> Iterator[Catalogue]:
    Catalogue.prepare(address)
    with closing(Catalogue(address, durable=True)) as catalogue:
        yield catalogue


@pytest.fixture
def blobs(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    with closing(opened(bucket, bucket.server.endpoint, tmp_path / "spool", monkeypatch)) as blobs:
        yield blobs


def opened(bucket: Bucket, endpoint: str, spool: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    place = BucketAddress("s3", bucket.name, "files", endpoint=endpoint)
    return open_blobs(StoreFolder.adopt(spool, Algorithm.SHA256, place))


def decide(catalogue: Catalogue, *digests: Digest) -> None:
    with catalogue.transaction(digests) as transaction:
        for digest in digests:
            transaction.add_removal(digest)


def name(catalogue: Catalogue, digest: Digest) -> None:
    """Give a blob a file."""
    with catalogue.transaction([digest]) as transaction:
        transaction.insert(FileRecord(digest, "a", None, "a/b", 3, now_milliseconds(), None), is_first=True)


def put(bucket: Bucket, digest: Digest, body: bytes) -> None:
    bucket.server.put(bucket.name, f"files/{digest[:2]}/{digest}", body)


def doing(catalogue: Catalogue, blobs: BlobStore) -> Callable[[Change[Any]], Any]:
    """Return what carries out a change in a transaction of its own."""

    def do(change: Change[Any]) -> Any:
        with catalogue.transaction(change.names) as transaction:
            return change.carry_out(transaction, blobs, now_milliseconds())

    return do


def sent(catalogue: Catalogue, *digests: Digest) -> dict[Digest, int | None]:
    return {digest: removal.sent_at for digest, removal in catalogue.removals_of(digests).items()}


def age(catalogue: Catalogue, digest: Digest) -> None:
    """Make a removal that was sent as old as if its life were over: a moment that others have noted."""
    with catalogue.transaction([digest]) as transaction:
        transaction.drop_removal(digest)
        transaction.add_removal(digest, sent_at=now_milliseconds() - SENT_LIFE_MS - 1000)


def test_a_removal_is_sent_by_one_only_until_it_is_old(catalogue: Catalogue, blobs: BlobStore) -> None:
    do = doing(catalogue, blobs)
    decide(catalogue, ONE, TWO)
    first = do(SendRemovals([ONE, TWO, THREE]))
    assert set(first) == {ONE, TWO}
    assert do(SendRemovals([ONE, TWO])) == {}
    assert not catalogue.has_due_removals(SENT_LIFE_MS)
    age(catalogue, ONE)
    assert catalogue.has_due_removals(SENT_LIFE_MS)
    again = do(SendRemovals([ONE, TWO]))
    assert set(again) == {ONE}
    assert again[ONE] >= first[ONE]


def test_who_comes_late_ends_no_removal_that_another_has_sent_since(catalogue: Catalogue, blobs: BlobStore) -> None:
    do = doing(catalogue, blobs)
    decide(catalogue, ONE)
    age(catalogue, ONE)
    old = sent(catalogue, ONE)[ONE]
    assert old is not None
    new = do(SendRemovals([ONE]))
    do(EndRemovals({ONE: old}, {}))
    do(EndRemovals({}, {ONE: old}))
    assert sent(catalogue, ONE) == new
    do(EndRemovals({}, new))
    assert sent(catalogue, ONE) == {ONE: None}
    do(EndRemovals(do(SendRemovals([ONE])), {}))
    assert sent(catalogue, ONE) == {}


def test_more_digests_are_asked_for_than_one_statement_takes(catalogue: Catalogue) -> None:
    digests = [Digest(sha256(b"%d" % number)) for number in range(250)]
    decide(catalogue, *digests[::2])
    assert set(catalogue.removals_of(digests)) == set(digests[::2])
    assert catalogue.removals_of([]) == {}


def test_what_has_a_file_again_is_not_removed(catalogue: Catalogue, blobs: BlobStore, bucket: Bucket) -> None:
    for digest, body in ((ONE, b"one"), (TWO, b"two")):
        put(bucket, digest, body)
    name(catalogue, TWO)
    decide(catalogue, ONE, TWO)
    with ThreadPoolExecutor(4) as threads:
        assert remove_from_bucket([ONE, TWO], blobs, doing(catalogue, blobs), threads) == set()
    assert (bucket.blob(ONE), bucket.blob(TWO)) == (None, b"two")
    assert sent(catalogue, ONE, TWO) == {}


def test_what_is_left_undone_is_settled_but_not_what_may_still_be_on_its_way(
    catalogue: Catalogue, blobs: BlobStore, bucket: Bucket
) -> None:
    for digest, body in ((ONE, b"one"), (TWO, b"two"), (THREE, b"three")):
        put(bucket, digest, body)
    decide(catalogue, ONE, TWO, THREE)
    doing(catalogue, blobs)(SendRemovals([TWO, THREE]))
    age(catalogue, THREE)
    assert settle_removals(catalogue, blobs, flush=True, is_patient=True) == set()
    assert [bucket.blob(digest) for digest in (ONE, TWO, THREE)] == [None, b"two", None]
    assert set(sent(catalogue, ONE, TWO, THREE)) == {TWO}


def test_what_no_server_has_heard_of_may_be_sent_again_at_once(
    catalogue: Catalogue, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(bucket, "http://127.0.0.1:9", tmp_path / "spool", monkeypatch)) as away:
        decide(catalogue, ONE)
        assert settle_removals(catalogue, away, flush=True) == {ONE}
    assert sent(catalogue, ONE) == {ONE: None}


def test_what_may_have_reached_a_frozen_server_is_not_sent_again_at_once(
    catalogue: Catalogue, own_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(own_s3)
    with closing(opened(bucket, own_s3.endpoint, tmp_path / "spool", monkeypatch)) as blobs:
        decide(catalogue, ONE)
        with own_s3.frozen():
            assert settle_removals(catalogue, blobs, flush=True) == {ONE}
        assert sent(catalogue, ONE)[ONE] is not None
        assert not catalogue.has_due_removals(SENT_LIFE_MS)


def test_a_damaged_blob_goes_though_it_has_a_file_unless_it_is_another_by_now(
    catalogue: Catalogue, blobs: BlobStore, bucket: Bucket
) -> None:
    put(bucket, ONE, b"eno")
    name(catalogue, ONE)
    found = blobs.identity(ONE)
    put(bucket, ONE, b"one")
    is_still = partial(lambda: blobs.identity(ONE) == found)
    assert not take_out_of_bucket(catalogue, blobs, ONE, is_still)
    assert bucket.blob(ONE) == b"one"
    assert take_out_of_bucket(catalogue, blobs, ONE, lambda: True)
    assert bucket.blob(ONE) is None
    assert sent(catalogue, ONE) == {}


@pytest.mark.parametrize("was_decided", [False, True])
def test_a_damaged_blob_stays_where_the_decision_took_too_long(
    catalogue: Catalogue, blobs: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, was_decided: bool
) -> None:
    put(bucket, ONE, b"eno")
    if was_decided:
        decide(catalogue, ONE)
    monkeypatch.setattr(removals, "_BEGUN_WITHIN_SECONDS", -1.0)
    with pytest.raises(BlobStoreUnavailable, match="took too long"):
        take_out_of_bucket(catalogue, blobs, ONE, lambda: True)
    assert bucket.blob(ONE) == b"eno"
    # nobody has to wait for what was not sent
    assert sent(catalogue, ONE) == ({ONE: None} if was_decided else {})


def test_a_damaged_blob_that_no_server_has_heard_of_holds_nobody_up(
    catalogue: Catalogue, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(bucket, "http://127.0.0.1:9", tmp_path / "spool", monkeypatch)) as away:
        with pytest.raises(BlobStoreUnavailable):
            take_out_of_bucket(catalogue, away, ONE, lambda: True)
    assert sent(catalogue, ONE) == {}


def test_a_removal_is_signed_before_it_counts_as_sent(
    catalogue: Catalogue, own_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine finds it late as well where the catalogue took its time between."""
    monkeypatch.setattr(removing, "PERMIT_SECONDS", 2)
    bucket = Bucket(own_s3)
    with closing(opened(bucket, own_s3.endpoint, tmp_path / "spool", monkeypatch)) as blobs:
        put(bucket, ONE, b"one")
        decide(catalogue, ONE)
        do = doing(catalogue, blobs)

        def slowly(change: Change[Any]) -> Any:
            outcome = do(change)
            time.sleep(3)
            return outcome

        with ThreadPoolExecutor(4) as threads:
            assert remove_from_bucket([ONE], blobs, slowly, threads) == {ONE}
        assert bucket.blob(ONE) == b"one"
        assert sent(catalogue, ONE) == {ONE: None}


def test_a_clock_that_is_set_back_holds_nobody_up_for_longer_than_a_minute(
    catalogue: Catalogue, blobs: BlobStore, bucket: Bucket
) -> None:
    put(bucket, ONE, b"one")
    with catalogue.transaction([ONE]) as transaction:
        transaction.add_removal(ONE, sent_at=now_milliseconds() + 3_600_000)
    assert catalogue.has_due_removals(SENT_LIFE_MS)
    assert settle_removals(catalogue, blobs, flush=True, is_patient=True) == set()
    # its request may still be on its way, and is not sent beside it
    assert bucket.blob(ONE) == b"one"
    since = sent(catalogue, ONE)[ONE]
    assert since is not None
    assert since <= now_milliseconds() + 1000
    assert not catalogue.has_due_removals(SENT_LIFE_MS)
    age(catalogue, ONE)
    assert settle_removals(catalogue, blobs, flush=True, is_patient=True) == set()
    assert bucket.blob(ONE) is None


def test_an_old_removal_is_not_forgotten_for_an_upload_that_is_refused(
    blobs: BlobStore, bucket: Bucket, tmp_path: Path
) -> None:
    """Else a process that is killed before it takes back what it has put leaves a deleted file in the bucket."""
    path = tmp_path / "catalogue.sqlite3"
    Catalogue.prepare(path)
    with closing(Catalogue(path, durable=True)) as catalogue, closing(sqlite3.connect(path)) as observer:
        age(catalogue, ONE)
        observer.execute("CREATE TABLE made (digest)")
        observer.execute("CREATE TRIGGER made AFTER INSERT ON removals BEGIN INSERT INTO made VALUES (new.digest); END")
        observer.commit()
        with pytest.raises(TooLarge):
            asyncio.run(upload_one(catalogue, blobs, tmp_path, quota=0))
        assert observer.execute("SELECT * FROM made").fetchall() == []
        assert bucket.blob(ONE) is None
        # one that is kept has no removal any more
        age(catalogue, ONE)
        asyncio.run(upload_one(catalogue, blobs, tmp_path, quota=None))
        assert sent(catalogue, ONE) == {}
        assert bucket.blob(ONE) == b"one"


async def upload_one(catalogue: Catalogue, blobs: BlobStore, folder: Path, quota: int | None) -> None:
    """Upload as the daemon does, and carry out all that follows from it."""
    committer = Committer(blobs, catalogue, durable=True, changed=lambda digest: None, reserve=folder / "reserve")
    with ThreadPoolExecutor(1) as threads:
        staged = Staging(blobs.staging, Algorithm.SHA256, threads, durable=False).hold(b"one")
        try:
            await committer.submit(AddFiles("a", [(staged, Wish())], quota))
        finally:
            await asyncio.to_thread(committer.close)


def test_what_nobody_names_is_no_file_any_more_once_it_is_to_go(
    catalogue: Catalogue, blobs: BlobStore, bucket: Bucket, tmp_path: Path
) -> None:
    put(bucket, ONE, b"one")
    shared = Shared(tmp_path / "shared")
    reader = Reader(blobs, catalogue, shared, Algorithm.SHA256)
    principal = Principal("a", ALL)
    file = reader.open(principal, ONE)
    assert reader.is_still(principal, file)
    decide(catalogue, ONE)
    assert not reader.is_still(principal, file)
    with pytest.raises(NotFound):
        reader.open(principal, ONE)


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_what_must_last_is_flushed_whatever_else_is(address: Address, durable: bool, flushed: bool) -> None:
    Catalogue.prepare(address)
    with closing(Catalogue(address, durable=durable)) as catalogue:
        for must_last in (True, False, True):
            with catalogue.transaction(flushed=flushed, must_last=must_last) as transaction:
                is_flushed = flushes(transaction)
            assert is_flushed == (must_last or (durable and flushed))


def flushes(transaction: Transaction) -> bool:
    """Tell whether a transaction is flushed when it commits, as the database says."""
    session: Any = transaction._session
    if hasattr(session, "execute"):
        ((level,),) = session.connection.execute("PRAGMA synchronous").fetchall()
        return bool(level >= 2)
    ((level,),) = session.connection.execute("SHOW synchronous_commit").fetchall()
    return bool(level != "off")
