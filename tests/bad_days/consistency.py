"""What must hold of a store after every bad day."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def blobs(store: Path) -> set[str]:
    """Return the names of all blobs on the disk."""
    return {path.name for path in store.glob("[0-9a-f][0-9a-f]/*")}


def rows(store: Path) -> dict[str, int]:
    """Return the size of each digest that the catalogue names."""
    with closing(sqlite3.connect(store / ".filestored" / "catalogue.sqlite3", timeout=20)) as catalogue:
        return dict(catalogue.execute("SELECT digest, size FROM files").fetchall())


def removals(store: Path) -> list[str]:
    """Return the blobs whose removal is decided but not carried out."""
    with closing(sqlite3.connect(store / ".filestored" / "catalogue.sqlite3", timeout=20)) as catalogue:
        return [digest for (digest,) in catalogue.execute("SELECT digest FROM removals")]


def require_whole(store: Path) -> None:
    """Check that every blob is what its name says, every row has its blob, and no removal is left undone."""
    for digest in blobs(store):
        assert sha256((store / digest[:2] / digest).read_bytes()) == digest
    for digest, size in rows(store).items():
        blob = store / digest[:2] / digest
        assert blob.is_file(), f"{digest} has a row but no blob"
        assert blob.stat().st_size == size
    assert removals(store) == []


def require_agreement(store: Path) -> None:
    """Check besides that no blob is there that no row names."""
    require_whole(store)
    assert blobs(store) == set(rows(store))
