"""Removing from a bucket: by requests that the engine refuses once they are late, and answers that are none."""

import os
import time
from pathlib import Path

import httpx
import pytest

from filestored.blobs.bucket import removing
from filestored.blobs.bucket.connecting import REMOVE, connect
from filestored.blobs.presigning import presign_removals
from filestored.blobs.store import Permit
from filestored.digest import Digest
from filestored.errors import BlobStoreUnavailable
from tests.blobs.conftest import BucketShelf, spool_of
from tests.blobs.fronts import Front
from tests.blobs.requests import Counter
from tests.s3 import Bucket, S3Server

# a server of several programs may be started, and answers slowly on a busy machine
pytestmark = pytest.mark.timeout(400)

BODY = b"to be removed"
WAYS = pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "by a header"])


@pytest.fixture
def shelf(fronted_shelf: BucketShelf) -> BucketShelf:
    return fronted_shelf


def permit_of(shelf: BucketShelf, digest: Digest, *, is_signed: bool = True) -> Permit | None:
    return shelf.blobs.permits([digest])[digest] if is_signed else None


@WAYS
def test_a_removal_is_one_request(bucket: Bucket, credentials: None, tmp_path: Path, is_signed: bool) -> None:
    counter = Counter(bucket.server.endpoint)
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool", counter.url), bucket)
    digest, _ = shelf.put(BODY)
    with counter.counting() as requests:
        shelf.blobs.remove(digest, permit_of(shelf, digest, is_signed=is_signed))
        assert [line.partition("?")[0] for line in requests] == [
            f"DELETE /{bucket.name}/files/{digest[:2]}/{digest}"
        ]  # fmt: skip
    assert bucket.blob(digest) is None
    shelf.close()
    counter.close()


def test_the_engine_refuses_a_removal_that_is_late(bucket: Bucket, credentials: None, tmp_path: Path) -> None:
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool"), bucket)
    digest, _ = shelf.put(BODY)
    assert shelf.folder.bucket is not None
    store = connect(shelf.folder.bucket, REMOVE)
    (address,) = presign_removals(store, [f"files/{digest[:2]}/{digest}"], 1)
    time.sleep(3)
    assert httpx.delete(address).status_code == 403
    assert bucket.blob(digest) == BODY
    shelf.close()


def test_a_removal_that_a_frozen_engine_finds_late_is_not_carried_out(
    own_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(own_s3)
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(removing, "PERMIT_SECONDS", 5)
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool"), bucket)
    digest, _ = shelf.put(BODY)
    permit = permit_of(shelf, digest)
    with own_s3.frozen():
        with pytest.raises(BlobStoreUnavailable) as caught:
            shelf.blobs.remove(digest, permit)
        assert caught.value.was_sent
    # whatever it has in its sockets it answers before this
    for _ in range(3):
        assert bucket.blob(digest) == BODY
        time.sleep(1)
    shelf.close()


def test_who_was_held_up_sends_nothing(shelf: BucketShelf, front: Front) -> None:
    digest, _ = shelf.put(BODY)
    permit = permit_of(shelf, digest)
    assert permit is not None
    with pytest.raises(BlobStoreUnavailable, match="held up") as caught:
        shelf.blobs.remove(digest, permit._replace(until=time.clock_gettime(time.CLOCK_BOOTTIME) - 1))
    assert not caught.value.was_sent
    assert shelf.bucket.blob(digest) == BODY


def test_where_signing_is_refused_a_header_says_who_asks(shelf: BucketShelf) -> None:
    digest, _ = shelf.put(BODY)
    permit = permit_of(shelf, digest)
    assert permit is not None
    shelf.blobs.remove(digest, permit._replace(address=permit.address[:-4] + "0000"))
    assert shelf.bucket.blob(digest) is None
    assert shelf.blobs.permits([digest]) == {}


@WAYS
def test_a_removal_whose_connection_is_reset_may_be_carried_out(
    shelf: BucketShelf, front: Front, is_signed: bool
) -> None:
    digest, _ = shelf.put(BODY)
    permit = permit_of(shelf, digest, is_signed=is_signed)
    front.resets = b"DELETE /"
    with pytest.raises(BlobStoreUnavailable) as caught:
        shelf.blobs.remove(digest, permit)
    assert caught.value.was_sent


@WAYS
def test_a_removal_that_nobody_accepts_was_not_sent(
    bucket: Bucket, credentials: None, tmp_path: Path, is_signed: bool
) -> None:
    front = Front(bucket.server.endpoint)
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool", front.url), bucket)
    digest, _ = shelf.put(BODY)
    permit = permit_of(shelf, digest, is_signed=is_signed)
    front.close()
    with pytest.raises(BlobStoreUnavailable) as caught:
        shelf.blobs.remove(digest, permit)
    assert not caught.value.was_sent
    shelf.close()


@WAYS
def test_what_is_not_there_is_removed(shelf: BucketShelf, is_signed: bool) -> None:
    digest = Digest("ab" * 32)
    shelf.blobs.remove(digest, permit_of(shelf, digest, is_signed=is_signed))


@WAYS
def test_a_404_that_is_not_the_engines_removes_nothing(shelf: BucketShelf, front: Front, is_signed: bool) -> None:
    digest, _ = shelf.put(BODY)
    # the bucket has been there just now
    assert shelf.blobs.stat(Digest("ab" * 32)) is None
    front.is_lost = True
    with pytest.raises(BlobStoreUnavailable, match="no mark"):
        shelf.blobs.remove(digest, permit_of(shelf, digest, is_signed=is_signed))
    front.is_lost = False
    assert shelf.bucket.blob(digest) == BODY


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_404_that_is_not_the_engines_is_no_missing_blob(shelf: BucketShelf, front: Front, size: int) -> None:
    digest, _ = shelf.put(os.urandom(size))
    assert shelf.blobs.stat(Digest("ab" * 32)) is None
    front.is_lost = True
    with pytest.raises(BlobStoreUnavailable, match="no mark"):
        shelf.blobs.open(digest, size)
    front.is_lost = False
    assert shelf.blobs.open(digest, size) is not None
