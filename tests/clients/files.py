"""Files to upload, and what must be stored of them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Daemon


@dataclass(frozen=True)
class Sample:
    """A file of random bytes on this machine, and its digest."""

    path: Path
    digest: str
    size: int


def make_sample(folder: Path, size: int, name: str = "sample.bin") -> Sample:
    """Write a file that no store holds yet."""
    body = os.urandom(size)
    path = folder / name
    path.write_bytes(body)
    return Sample(path, hashlib.sha256(body).hexdigest(), size)


def assert_stored(daemon: Daemon, sample: Sample) -> None:
    """Check that the store holds the very bytes, under their digest."""
    blob = daemon.blob(sample.digest)
    assert blob.stat().st_size == sample.size
    assert blob.read_bytes() == sample.path.read_bytes()
