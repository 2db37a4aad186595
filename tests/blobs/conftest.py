"""Stores on a disk and in a bucket."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filestored.blobs.address import BucketAddress
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import adopt_blobs, open_blobs
from filestored.blobs.store import BlobStore
from filestored.digest import Algorithm, Digest
from filestored.staging import Staging
from tests.blobs.fronts import Front
from tests.s3 import Bucket

MakeFolder = Callable[[], StoreFolder]


class Shelf:
    """A blob store with a staging area, and what it takes to store a body in it."""

    def __init__(self, folder: StoreFolder) -> None:
        self.folder = folder
        adopt_blobs(folder)
        self.blobs: BlobStore = open_blobs(folder)
        self._threads = ThreadPoolExecutor(1)
        self.staging = Staging(self.blobs.staging, folder.algorithm, self._threads, durable=False)

    def put(self, body: bytes) -> tuple[Digest, bool]:
        """Store a body as the daemon does; return its digest, and whether that changed the store."""
        with self.staging.hold(body) as staged:
            self.blobs.bring(staged)
            self.blobs.foresee([staged.digest])
            try:
                is_new = self.blobs.publish(staged)
            finally:
                self.blobs.forget_foreseen()
            if is_new and self.blobs.removes_at_once:
                staged.is_published()
            self.blobs.flush([staged.digest])
            return staged.digest, is_new

    def lay(self, name: str, body: bytes) -> None:
        """Put something there that the program has not."""
        if self.folder.bucket is None:
            path = self.folder.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(body)
        else:
            raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""
        self._threads.shutdown()
        self.blobs.close()


class BucketShelf(Shelf):
    """A store in a bucket."""

    def __init__(self, folder: StoreFolder, bucket: Bucket) -> None:
        super().__init__(folder)
        self.bucket = bucket

    def lay(self, name: str, body: bytes) -> None:
        """See Shelf."""
        self.bucket.server.put(self.bucket.name, f"files/{name}", body)


def spool_of(bucket: Bucket, path: Path, endpoint: str | None = None) -> StoreFolder:
    """Return a spool of a test's bucket."""
    address = BucketAddress("s3", bucket.name, "files", endpoint or bucket.server.endpoint)
    return StoreFolder.adopt(path, Algorithm.SHA256, address)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    """What says to the bucket who asks."""
    for name, value in bucket.server.variables().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket_shelf(tmp_path: Path, bucket: Bucket, credentials: None) -> Iterator[BucketShelf]:
    """An empty store in a bucket."""
    made = BucketShelf(spool_of(bucket, tmp_path / "spool"), bucket)
    yield made
    made.close()


@pytest.fixture
def front(bucket: Bucket) -> Iterator[Front]:
    """What stands before a bucket, and may misbehave."""
    made = Front(bucket.server.endpoint)
    yield made
    made.close()


@pytest.fixture
def fronted_shelf(bucket: Bucket, credentials: None, front: Front, tmp_path: Path) -> Iterator[BucketShelf]:
    """An empty store in a bucket behind that."""
    made = BucketShelf(spool_of(bucket, tmp_path / "spool", front.url), bucket)
    yield made
    made.close()


@pytest.fixture(params=["disk", "bucket"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """An empty store, on a disk and in a bucket."""
    if request.param == "bucket":
        yield request.getfixturevalue("bucket_shelf")
        return
    made = Shelf(StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256))
    yield made
    made.close()
