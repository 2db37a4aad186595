"""What is true of buckets alone: putting before publishing, answers that do not come, and the marks."""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filestored.blobs.address import BucketAddress
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import adopt_blobs, open_blobs
from filestored.digest import Algorithm, Digest
from filestored.errors import BlobGone, BlobStoreError, BlobStoreUnavailable, NotBrought, StartError
from tests.blobs.conftest import BucketShelf, spool_of
from tests.blobs.requests import Counter
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.s3 import Bucket, S3Server

LARGE = os.urandom(1 << 20) * 8


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    host, _, port = bucket.server.endpoint.removeprefix("http://").partition(":")
    made = Proxy((host, int(port)))
    yield made
    made.close()


@pytest.fixture
def far(bucket: Bucket, credentials: None, proxy: Proxy, tmp_path: Path) -> Iterator[BucketShelf]:
    """A store in a bucket behind a network that can fail."""
    shelf = BucketShelf(spool_of(bucket, tmp_path / "far", proxy.url), bucket)
    yield shelf
    shelf.close()


def lay_blob(bucket: Bucket, body: bytes) -> Digest:
    digest = digest_of(body)
    bucket.server.put(bucket.name, f"files/{digest[:2]}/{digest}", body)
    return digest


def test_bytes_are_put_before_they_are_published_and_only_where_they_are_not_there(bucket_shelf: BucketShelf) -> None:
    with bucket_shelf.staging.hold(b"first") as first, bucket_shelf.staging.hold(b"first") as second:
        assert bucket_shelf.blobs.bring(first) is True
        assert bucket_shelf.bucket.blob(first.digest) == b"first"
        assert bucket_shelf.blobs.bring(second) is False
        assert (first.is_brought, second.is_brought) == (True, False)
        assert (bucket_shelf.blobs.publish(first), bucket_shelf.blobs.publish(second)) == (True, False)
        assert os.listdir(bucket_shelf.blobs.staging) == []


def test_bytes_are_put_again_where_a_removal_may_still_happen(bucket_shelf: BucketShelf) -> None:
    digest, _ = bucket_shelf.put(b"again")
    with bucket_shelf.staging.hold(b"again") as staged:
        assert bucket_shelf.blobs.bring(staged, anew=True) is True
        assert staged.is_brought
    assert bucket_shelf.bucket.blob(digest) == b"again"


def test_what_is_gone_when_it_is_published_is_to_be_brought_again(bucket_shelf: BucketShelf) -> None:
    with bucket_shelf.staging.hold(b"raced") as staged:
        bucket_shelf.blobs.bring(staged)
        bucket_shelf.blobs.remove(staged.digest)
        bucket_shelf.blobs.foresee([staged.digest])
        with pytest.raises(NotBrought):
            bucket_shelf.blobs.publish(staged)
        bucket_shelf.blobs.forget_foreseen()
        bucket_shelf.blobs.bring(staged)
        assert bucket_shelf.blobs.publish(staged) is True


def test_what_is_foreseen_holds_in_its_thread_until_it_is_forgotten(bucket_shelf: BucketShelf) -> None:
    digest, _ = bucket_shelf.put(b"seen")
    bucket_shelf.blobs.foresee([digest, digest_of(b"never")])
    bucket_shelf.blobs.remove(digest)
    assert bucket_shelf.blobs.stat(digest) is not None
    assert bucket_shelf.blobs.stat(digest_of(b"never")) is None
    with ThreadPoolExecutor(1) as other:
        assert other.submit(bucket_shelf.blobs.stat, digest).result() is None
    bucket_shelf.blobs.forget_foreseen()
    assert bucket_shelf.blobs.stat(digest) is None


def test_a_small_blob_comes_with_one_request(
    bucket: Bucket, credentials: None, tmp_path: Path
) -> None:  # fmt: skip
    counter = Counter(bucket.server.endpoint)
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool", counter.url), bucket)
    digest, _ = shelf.put(b"small")
    with counter.counting() as requests:
        blob = shelf.blobs.open(digest, 5)
        assert blob is not None
        assert blob.body == b"small"
    assert requests == [f"GET /{bucket.name}/files/{digest[:2]}/{digest}"]
    with counter.counting() as requests:
        assert shelf.blobs.open(digest_of(b"none"), 5) is None
        assert shelf.blobs.is_in_place(digest, blob.identity)
    # what should be there and is not: is it the bucket?
    assert len(requests) == 2
    with counter.counting() as requests:
        shelf.blobs.remove(digest)
    assert [request.partition(" ")[0] for request in requests] == ["DELETE"]
    shelf.close()
    counter.close()


def test_reading_goes_on_where_connections_break(far: BucketShelf, proxy: Proxy, bucket: Bucket) -> None:
    digest = lay_blob(bucket, LARGE)
    blob = far.blobs.open(digest, len(LARGE))
    assert blob is not None
    pieces, cuts = [], 0
    for number, piece in enumerate(blob.pieces()):
        pieces.append(piece)
        if number % 8 == 3:
            cuts += proxy.cut()
    assert b"".join(pieces) == LARGE
    assert cuts

    async def stream() -> bytes:
        pieces, coming = [], blob.stream(5, len(LARGE))
        assert coming is not None
        async for piece in coming:
            pieces.append(piece)
            if len(pieces) == 3:
                await asyncio.to_thread(proxy.cut)
        return b"".join(pieces)

    assert asyncio.run(stream()) == LARGE[5:]


def test_a_blob_that_is_removed_while_it_is_read_is_gone(far: BucketShelf, bucket: Bucket) -> None:
    digest = lay_blob(bucket, LARGE)
    blob = far.blobs.open(digest, len(LARGE))
    assert blob is not None
    far.blobs.remove(digest)
    with pytest.raises(BlobGone):
        blob.read(0, 10)

    async def begin() -> None:
        pieces = blob.stream(0, 10)
        assert pieces is not None
        await anext(pieces)

    with pytest.raises(BlobGone):
        asyncio.run(begin())


def test_a_blob_that_is_replaced_by_a_shorter_one_is_not_read_on(far: BucketShelf, bucket: Bucket) -> None:
    digest = lay_blob(bucket, LARGE)
    blob = far.blobs.open(digest, len(LARGE))
    assert blob is not None
    bucket.server.put(bucket.name, f"files/{digest[:2]}/{digest}", b"short")
    for start, stop in ((0, len(LARGE)), (0, 3)):
        with pytest.raises(BlobStoreError, match="has 5 bytes by now"):
            blob.read(start, stop)


def test_a_bucket_that_cannot_be_reached_is_no_bucket_without_the_blob(far: BucketShelf, proxy: Proxy) -> None:
    digest, _ = far.put(b"there")
    proxy.vanish()
    with far.staging.hold(b"on its way") as staged:
        for ask in (
            lambda: far.blobs.open(digest, 5),
            lambda: far.blobs.open(digest),
            lambda: far.blobs.stat(digest_of(b"unknown")),
            lambda: far.blobs.foresee([digest]),
            lambda: far.blobs.bring(staged),
            lambda: far.blobs.remove(digest),
            lambda: far.blobs.require_usable(),
            lambda: list(far.blobs.walk(failed=lambda shard, error: None)),
        ):
            with pytest.raises(BlobStoreUnavailable) as caught:
                ask()
            assert caught.value.is_passing
            assert caught.value.told().status == 503
    proxy.come_back()

    def works() -> bool:
        try:
            return far.blobs.stat(digest) is not None
        except BlobStoreUnavailable:
            return False

    assert wait_until(works, seconds=30)


def test_what_was_certainly_not_sent_is_said(far: BucketShelf, proxy: Proxy) -> None:
    digest, _ = far.put(b"there")
    proxy.vanish()
    with pytest.raises(BlobStoreUnavailable) as caught:
        far.blobs.remove(digest)
    assert caught.value.was_sent is False


def test_a_removal_without_an_answer_may_have_been_sent(far: BucketShelf, own_s3: S3Server, tmp_path: Path) -> None:
    bucket = Bucket(own_s3)
    shelf = BucketShelf(spool_of(bucket, tmp_path / "own"), bucket)
    digest, _ = shelf.put(b"there")
    with own_s3.frozen(), pytest.raises(BlobStoreUnavailable) as caught:
        shelf.blobs.remove(digest)
    assert caught.value.was_sent is True
    shelf.close()


def test_bytes_count_as_put_also_where_that_failed(far: BucketShelf, proxy: Proxy) -> None:
    with far.staging.hold(b"perhaps") as staged:
        far.blobs.stat(staged.digest)
        proxy.vanish()
        with pytest.raises(BlobStoreUnavailable):
            far.blobs.bring(staged, anew=True)
        assert staged.is_brought


@pytest.mark.parametrize("size", [300 * 1024, len(LARGE), 40 << 20], ids=["small", "one part", "parts"])
def test_what_the_spool_gives_back_as_something_else_does_not_become_a_blob(
    bucket_shelf: BucketShelf, size: int
) -> None:
    body = (LARGE * (size // len(LARGE) + 1))[:size]

    with bucket_shelf.staging.hold(body) as staged:
        path = bucket_shelf.folder.private / "tmp" / staged.name_in(bucket_shelf.blobs.staging)
        path.chmod(0o600)
        with open(path, "r+b") as file:
            # in the very last bytes
            file.seek(size - 3)
            file.write(b"xyz")
        with pytest.raises(OSError, match="gives other bytes"):
            bucket_shelf.blobs.bring(staged)
        assert bucket_shelf.bucket.blob(staged.digest) is None
        with open(path, "r+b") as file:
            file.seek(size - 3)
            file.write(body[-3:])
        assert bucket_shelf.blobs.bring(staged) is True
        assert bucket_shelf.bucket.blob(staged.digest) == body


def test_a_bucket_that_is_gone_is_no_bucket_without_the_blob(bucket_shelf: BucketShelf) -> None:
    assert bucket_shelf.blobs.id
    bucket = bucket_shelf.bucket
    bucket.server.delete(bucket.name, "files/.filestored/format.json")
    assert bucket.server.request("DELETE", f"/{bucket.name}").status_code == 204
    for ask in (
        lambda: bucket_shelf.blobs.stat(digest_of(b"x")),
        lambda: bucket_shelf.blobs.open(digest_of(b"x")),
        lambda: bucket_shelf.blobs.open(digest_of(b"x"), 5),
        lambda: bucket_shelf.put(b"x"),
    ):
        with pytest.raises(BlobStoreError, match=r"no bucket|no store any more"):
            ask()


def test_daemons_that_start_together_make_one_store(bucket: Bucket, credentials: None, tmp_path: Path) -> None:
    def start(number: int) -> tuple[str, str]:
        blobs = open_blobs(spool_of(bucket, tmp_path / f"spool{number}"))
        try:
            return blobs.id, blobs.keep_for(f"catalogue {number}")
        finally:
            blobs.close()

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(start, range(6)))) == 1


def test_a_store_is_kept_by_one_catalogue_until_another_takes_it_over(bucket_shelf: BucketShelf) -> None:
    assert bucket_shelf.blobs.keep_for("one") == "one"
    assert bucket_shelf.blobs.keep_for("other") == "one"
    assert bucket_shelf.blobs.keep_for("other", take_over=True) == "other"
    assert bucket_shelf.blobs.keep_for("one") == "other"


@pytest.mark.parametrize("key", ["letter.txt", "ab/letter.txt", "zz/" + "f" * 64, "ab/" + "f" * 64, "gg"])
def test_a_prefix_with_anything_else_is_refused_and_left_alone(
    bucket: Bucket, credentials: None, tmp_path: Path, key: str
) -> None:
    bucket.server.put(bucket.name, f"files/{key}", b"mine")
    with pytest.raises(StartError, match="neither empty nor a store"):
        adopt_blobs(spool_of(bucket, tmp_path / "spool"))
    assert bucket.get(".filestored/format.json") is None


def test_a_prefix_laid_out_as_a_store_becomes_one_beside_other_prefixes(
    bucket: Bucket, credentials: None, tmp_path: Path
) -> None:
    digest = lay_blob(bucket, b"left by a copy")
    for other in ("files2/letter.txt", "filesx", "a/b"):
        bucket.server.put(bucket.name, other, b"a neighbour's")
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool"), bucket)
    assert len(shelf.blobs.id) == 32
    walk = shelf.blobs.walk(failed=lambda shard, error: None)
    assert (list(walk), walk.others) == ([digest], 0)
    shelf.close()


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (b"{", "damaged"),
        (b'{"layout": 1}', "damaged"),
        (b"[]", "damaged"),
        (b'{"layout": 99, "algorithms": [], "id": "x"}', "newer version"),
    ],
)
def test_a_mark_that_cannot_be_understood_is_refused(
    bucket: Bucket, credentials: None, tmp_path: Path, mark: bytes, reason: str
) -> None:
    bucket.server.put(bucket.name, "files/.filestored/format.json", mark)
    with pytest.raises(StartError, match=reason):
        adopt_blobs(spool_of(bucket, tmp_path / "spool"))
    assert bucket.get(".filestored/format.json") == mark


def test_the_algorithms_of_a_bucket_are_known_to_each_spool(bucket: Bucket, credentials: None, tmp_path: Path) -> None:
    first = spool_of(bucket, tmp_path / "first")
    adopt_blobs(first)
    md5 = StoreFolder.adopt(tmp_path / "second", Algorithm.MD5, first.bucket)
    adopt_blobs(md5)
    assert set(md5.algorithms()) == {Algorithm.SHA256, Algorithm.MD5}
    mark = json.loads(bucket.get(".filestored/format.json") or b"")
    assert mark["algorithms"] == ["sha256", "md5"]
    adopt_blobs(first)
    assert first.algorithms() == [Algorithm.MD5, Algorithm.SHA256]


def test_a_spool_belongs_to_one_bucket(bucket: Bucket, credentials: None, tmp_path: Path) -> None:
    spool = spool_of(bucket, tmp_path / "spool")
    assert StoreFolder.find(spool.path, Algorithm.SHA256, spool.bucket) == spool
    other = BucketAddress("s3", "other")
    # what was misspelled at the first start must not stay
    StoreFolder.adopt(spool.path, Algorithm.SHA256, other)
    assert StoreFolder.adopt(spool.path, Algorithm.SHA256, spool.bucket) == spool
    assert spool.identity()
    with pytest.raises(StartError, match=f"the spool of {bucket.url}, not of s3://other"):
        StoreFolder.adopt(spool.path, Algorithm.SHA256, other)
    with pytest.raises(StartError, match="is the spool of the bucket"):
        StoreFolder.adopt(spool.path, Algorithm.SHA256)
    store = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    with pytest.raises(StartError, match="is a store itself, not the spool"):
        StoreFolder.adopt(store.path, Algorithm.SHA256, spool.bucket)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(StartError, match="neither empty nor a spool"):
        StoreFolder.adopt(tmp_path / "mine", Algorithm.SHA256, spool.bucket)
