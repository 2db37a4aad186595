"""What an engine takes and does not keep: it is put again, and told as what may pass; and blobs of which parts miss."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from filestored.blobs.opening import adopt_blobs
from filestored.digest import Digest
from filestored.errors import BlobBroken, BlobGone, BlobStoreUnavailable, Busy, PutLost, StartError
from tests.blobs.conftest import BucketShelf, spool_of
from tests.blobs.fronts import Front
from tests.s3 import Bucket

MIB = 1 << 20
SMALL = os.urandom(1000)
IN_PARTS = os.urandom(MIB) * 17


def answer(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def error(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>It is so.</Message></Error>")


UNTAGGED = answer("202 Accepted")
UNFINISHED = error("202 Accepted", "InvalidRequest")
BROKEN = error("409 Conflict", "BrokenMPU")


@pytest.fixture
def shelf(fronted_shelf: BucketShelf) -> BucketShelf:
    return fronted_shelf


def put(shelf: BucketShelf, body: bytes) -> tuple[Digest, bool]:
    """Put a body; a large one out of a file, as it came."""
    with shelf.staging.hold(body) as staged:
        if len(body) > MIB:
            staged.name_in(shelf.blobs.staging)
        return staged.digest, shelf.blobs.bring(staged)


class Replies:
    """Some answers to requests of one kind, one after the other."""

    def __init__(self, is_meant: Callable[[bytes], bool], *answers: bytes) -> None:
        self.left = list(answers)
        self.asked = 0
        self._is_meant = is_meant

    def __call__(self, head: bytes) -> bytes | None:
        if not self._is_meant(head):
            return None
        self.asked += 1
        return self.left.pop(0) if self.left else None


def puts(head: bytes) -> bool:
    return head.startswith(b"PUT /")


def completes(head: bytes) -> bool:
    return head.startswith(b"POST /") and b"uploadId=" in head.partition(b"\r\n")[0]


def gets(head: bytes) -> bool:
    return head.startswith(b"GET /") and b".filestored" not in head.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("body", "is_meant", "lost"),
    [
        (SMALL, puts, UNTAGGED),
        (SMALL, puts, error("400 Bad Request", "RequestTimeout")),
        (SMALL, puts, error("409 Conflict", "OperationAborted")),
        (IN_PARTS, completes, UNFINISHED),
        (IN_PARTS, completes, error("400 Bad Request", "InvalidPart")),
        (IN_PARTS, completes, error("404 Not Found", "NoSuchUpload")),
    ],
)
def test_what_was_put_and_is_not_there_is_put_again(
    shelf: BucketShelf, front: Front, body: bytes, is_meant: Callable[[bytes], bool], lost: bytes
) -> None:
    front.replaces = replies = Replies(is_meant, lost)
    digest, is_new = put(shelf, body)
    assert (is_new, replies.asked) == (True, 2)
    assert shelf.bucket.blob(digest) == body


@pytest.mark.parametrize(("body", "is_meant", "lost"), [(SMALL, puts, UNTAGGED), (IN_PARTS, completes, UNFINISHED)])
def test_what_is_lost_time_and_again_may_be_tried_later(
    shelf: BucketShelf, front: Front, body: bytes, is_meant: Callable[[bytes], bool], lost: bytes
) -> None:
    front.replaces = replies = Replies(is_meant, *[lost] * 9)
    with pytest.raises(PutLost) as caught:
        put(shelf, body)
    assert (replies.asked, caught.value.is_passing) == (3, True)
    assert isinstance(caught.value.told(), Busy)
    replies.left.clear()
    # an engine that answers is there for others
    assert put(shelf, b"other")[1]


def test_a_blob_whose_parts_are_removed_first_is_gone(shelf: BucketShelf, front: Front) -> None:
    digest, _ = put(shelf, IN_PARTS)
    handle = shelf.blobs.open(digest, len(IN_PARTS))
    assert handle is not None
    front.replaces = Replies(gets, BROKEN)
    assert handle.read(0, len(IN_PARTS)) == IN_PARTS
    front.replaces = Replies(gets, BROKEN)
    shelf.blobs.remove(digest)
    with pytest.raises(BlobGone):
        handle.read(0, len(IN_PARTS))


def test_a_blob_whose_parts_stay_away_is_a_fault(shelf: BucketShelf, front: Front) -> None:
    digest, _ = put(shelf, IN_PARTS)
    handle = shelf.blobs.open(digest, len(IN_PARTS))
    assert handle is not None
    front.replaces = Replies(gets, *[BROKEN] * 99)
    began = time.monotonic()
    with pytest.raises(BlobBroken) as caught:
        handle.read(0, len(IN_PARTS))
    assert not caught.value.is_passing
    assert 4 < time.monotonic() - began < 20


def test_what_is_not_put_is_not_lost(shelf: BucketShelf, front: Front) -> None:
    digest, _ = put(shelf, IN_PARTS)
    handle = shelf.blobs.open(digest, len(IN_PARTS))
    assert handle is not None
    front.replaces = Replies(gets, error("400 Bad Request", "RequestTimeout"))
    with pytest.raises(BlobStoreUnavailable):
        handle.read(0, len(IN_PARTS))


def test_an_error_behind_a_status_that_was_sent_before_may_pass(shelf: BucketShelf, front: Front) -> None:
    front.replaces = Replies(completes, *[error("200 OK", "InternalError")] * 999)
    with pytest.raises(BlobStoreUnavailable, match="It is so"):
        put(shelf, IN_PARTS)


def test_daemons_that_start_together_take_the_mark_that_counts(
    bucket: Bucket, credentials: None, front: Front, tmp_path: Path
) -> None:
    def another_is_younger(head: bytes) -> bytes | None:
        if not puts(head):
            return None
        BucketShelf(spool_of(bucket, tmp_path / "another"), bucket).close()
        return UNTAGGED

    front.replaces = another_is_younger
    shelf = BucketShelf(spool_of(bucket, tmp_path / "spool", front.url), bucket)
    mark = bucket.get(".filestored/format.json")
    assert mark is not None
    assert shelf.blobs.id in mark.decode()
    shelf.close()


def test_a_mark_that_is_lost_is_told_as_that(bucket: Bucket, credentials: None, front: Front, tmp_path: Path) -> None:
    front.replaces = Replies(puts, UNTAGGED)
    with pytest.raises(StartError, match="does not say that it is there"):
        adopt_blobs(spool_of(bucket, tmp_path / "spool", front.url))
    assert bucket.get(".filestored/format.json") is None
