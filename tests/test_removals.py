"""Removals in the catalogue, on both databases, and the steps by which a bucket carries them out."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from filestored.blobs.address import BucketAddress
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobStore
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import FileRecord, now_milliseconds
from filestored.changes import Change
from filestored.digest import Algorithm, Digest
from filestored.removals import (
    SENT_LIFE_MS,
    EndRemovals,
    SendRemovals,
    remove_from_bucket,
    settle_removals,
    take_out_of_bucket,
)
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
