"""What every blob store promises, on a disk and in a bucket."""

import asyncio
import hashlib
import os

import pytest

from filestored.digest import Digest
from tests.blobs.conftest import Shelf


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("body", [b"", b"body"], ids=["empty", "small"])
def test_what_is_published_is_found_and_read(shelf: Shelf, body: bytes) -> None:
    digest, is_new = shelf.put(body)
    assert (digest, is_new) == (digest_of(body), True)
    for size in (None, len(body)):
        blob = shelf.blobs.open(digest, size)
        assert blob is not None
        assert (blob.size, blob.read(0, len(body)), b"".join(blob.pieces())) == (len(body), body, body)
        half = len(body) // 2
        assert (blob.read(half, len(body)), b"".join(blob.pieces(0, half))) == (body[half:], body[:half])
        assert blob.identity == shelf.blobs.identity(digest)
        assert shelf.blobs.is_in_place(digest, blob.identity)
        stat = shelf.blobs.stat(digest)
        assert stat is not None
        assert (stat.size, stat.modified) == (blob.size, blob.modified)
        blob.close()


def test_a_large_body_comes_back_as_it_was_whole_and_in_parts(shelf: Shelf) -> None:
    body = os.urandom(1 << 20) * 33

    async def stage() -> tuple[Digest, bool]:
        async with shelf.staging.receive() as receiver:
            for start in range(0, len(body), 1 << 20):
                await receiver.write(body[start : start + (1 << 20)])
            with await receiver.finish() as staged:
                shelf.blobs.bring(staged)
                is_new = shelf.blobs.publish(staged)
                if shelf.blobs.removes_at_once:
                    staged.is_published()
                return staged.digest, is_new

    digest, is_new = asyncio.run(stage())
    assert (digest, is_new) == (digest_of(body), True)
    blob = shelf.blobs.open(digest, len(body))
    assert blob is not None
    pieces = list(blob.pieces())
    assert (b"".join(pieces), max(map(len, pieces)) <= 4 << 20) == (body, True)
    assert blob.read(5_000_000, 9_000_000) == body[5_000_000:9_000_000]

    async def stream() -> bytes:
        pieces = blob.stream(3, len(body) - 5)
        assert pieces is not None
        return b"".join([piece async for piece in pieces])

    if not shelf.blobs.removes_at_once:
        assert asyncio.run(stream()) == body[3:-5]
    blob.close()


def test_of_what_is_not_there_nothing_is_found_and_removing_it_is_no_error(shelf: Shelf) -> None:
    digest = digest_of(b"never stored")
    assert shelf.blobs.open(digest) is None
    assert shelf.blobs.open(digest, 12) is None
    assert shelf.blobs.open(digest, 1 << 20) is None
    assert (shelf.blobs.stat(digest), shelf.blobs.identity(digest)) == (None, None)
    shelf.blobs.remove(digest)


def test_storing_the_same_bytes_again_changes_nothing(shelf: Shelf) -> None:
    digest, _ = shelf.put(b"twice")
    identity = shelf.blobs.identity(digest)
    assert shelf.put(b"twice") == (digest, False)
    assert shelf.blobs.identity(digest) == identity


def test_a_blob_of_another_size_is_damaged_and_is_replaced(shelf: Shelf) -> None:
    digest = digest_of(b"whole")
    shelf.lay(f"{digest[:2]}/{digest}", b"who")
    damaged = shelf.blobs.open(digest, 5)
    assert damaged is not None
    assert damaged.size == 3
    damaged.close()
    assert shelf.put(b"whole") == (digest, True)
    blob = shelf.blobs.open(digest, 5)
    assert blob is not None
    assert b"".join(blob.pieces()) == b"whole"


def test_what_is_removed_is_gone_and_can_be_stored_again(shelf: Shelf) -> None:
    digest, _ = shelf.put(b"short life")
    assert shelf.blobs.remove(digest) is True
    assert shelf.blobs.stat(digest) is None
    assert shelf.put(b"short life") == (digest, True)
    assert shelf.blobs.stat(digest) is not None


def test_the_walk_gives_all_digests_in_order_and_counts_what_else_lies_there(shelf: Shelf) -> None:
    assert shelf.blobs.id
    stored = sorted(shelf.put(b"%d" % number)[0] for number in range(30))
    shelf.lay("letter.txt", b"a stranger's")
    shelf.lay(f"{stored[0][:2]}/letter.txt", b"another")
    for after in ("", stored[0], stored[14], "7", stored[7][:2], stored[-1]):
        walk = shelf.blobs.walk(after, failed=lambda shard, error: pytest.fail(f"{shard}: {error}"))
        assert list(walk) == [digest for digest in stored if digest > after]
        if not after:
            assert walk.others == 2


def test_a_damaged_blob_is_set_aside_beside_earlier_ones_unless_it_is_another_by_now(shelf: Shelf) -> None:
    places = []
    for _ in range(2):
        digest, _ = shelf.put(b"damaged")
        identity = shelf.blobs.identity(digest)
        assert identity is not None
        assert shelf.blobs.quarantine(digest, (identity[0], identity[1], identity[2] + 1)) is None
        places.append(str(shelf.blobs.quarantine(digest, identity)))
        # of a bucket whoever asked removes it, as any other
        shelf.blobs.remove(digest)
        assert shelf.blobs.quarantine(digest, identity) is None
    assert [place.rpartition("/")[2] for place in places] == [digest, f"{digest}.1"]
    assert list(shelf.blobs.walk(failed=lambda shard, error: None)) == []


def test_a_store_is_known_by_an_id_that_stays(shelf: Shelf) -> None:
    own = shelf.blobs.id
    assert len(own) == 32
    again = Shelf(shelf.folder)
    assert again.blobs.id == own
    again.close()


def test_it_says_that_it_can_be_used_and_how_much_room_is_left(shelf: Shelf) -> None:
    shelf.blobs.require_usable()
    assert shelf.blobs.free_bytes() > 0
