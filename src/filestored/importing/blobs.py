"""A store as a source: of simple_filestorage_httpd_api, or of filestored. Its blobs alone, proved by their names."""

import os
from collections.abc import Iterator
from pathlib import Path

from filestored.blobs.layout import StoreFolder
from filestored.blobs.walking import Walk
from filestored.digest import Algorithm, Digest
from filestored.importing.folder import modified
from filestored.importing.source import Content, Expected, FileContent, Item, Left, version_of


class StoreSource:
    """All blobs of a store. Whatever else lies there is counted."""

    kind = "store"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_of_filestored = (root / ".filestored" / "catalogue.sqlite3").exists()
        """Whether it has a catalogue, which says more of its blobs than comes over."""

    def __iter__(self) -> Iterator[Item | Left]:
        failures: list[Left] = []

        def failed(shard: str, error: OSError) -> None:
            reason = f"the folder cannot be listed: {error.strerror or error}"
            failures.append(Left(shard, reason, is_fault=True))

        names = Walk(StoreFolder(self.root, Algorithm.SHA256), failed=failed)
        for digest in names:
            yield self._look(digest)
            while failures:
                yield failures.pop()
        yield from failures
        if names.others:
            yield Left("", f"names in the store that are no blobs: {names.others}")

    def _look(self, digest: Digest) -> Item | Left:
        key = f"{digest[:2]}/{digest}"
        try:
            status = os.stat(self.root / key, follow_symlinks=False)
        except OSError as error:
            return Left(key, f"it cannot be looked at: {error.strerror or error}", is_fault=True)
        algorithms = tuple(algorithm for algorithm in Algorithm if algorithm.hex_length == len(digest))
        expected = Expected(digest, algorithms, "its name")
        return Item(key, status.st_size, version_of(status), created_at=modified(status), expected=expected)

    def open(self, item: Item) -> Content:
        """See Source."""
        return FileContent(os.fspath(self.root / item.key), item)
