"""Going through all blobs of a store in the order of their digests, whatever else lies there."""

import errno
import heapq
import os
from collections.abc import Callable, Iterator

from filestored.blobs.layout import StoreFolder
from filestored.digest import Digest, parse_digest

_SHARDS = tuple(f"{number:02x}" for number in range(256))
_BESIDE_BLOBS = (".filestored", "lost+found")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# names held at once; a folder with more is read again for each as many, since it gives its names in no order
_MOST_NAMES = 50_000


class Walk:
    """The digests of all blobs in their order, those after ``after`` only. It takes the same memory for any store.

    What is stored meanwhile may be met or not, and what is met may be gone by then: look at each when you come to it.
    """

    def __init__(self, folder: StoreFolder, after: str = "", *, failed: Callable[[str, OSError], None]) -> None:
        """``failed`` is called for each folder of blobs that the system cannot list, and is left out."""
        self.others = 0
        """Names met so far that are no blobs."""
        self._folder = folder
        self._after = after
        self._failed = failed

    def __iter__(self) -> Iterator[Digest]:
        with os.scandir(self._folder.path) as entries:
            self.others += sum(not _may_hold_blobs(entry) for entry in entries)
        for shard in _SHARDS:
            if shard >= self._after[:2]:
                yield from self._in_shard(shard)

    def _in_shard(self, shard: str) -> Iterator[Digest]:
        digests, others = self._list(shard, self._after)
        self.others += others
        yield from digests
        while len(digests) == _MOST_NAMES:
            digests, _ = self._list(shard, digests[-1])
            yield from digests

    def _list(self, shard: str, after: str) -> tuple[list[Digest], int]:
        """Return the next blobs of a folder, in order, and how many of its names are no blobs."""
        others = 0

        def blobs(handle: int) -> Iterator[Digest]:
            nonlocal others
            with os.scandir(handle) as entries:
                for entry in entries:
                    digest = _digest_of(entry, shard)
                    if digest is None:
                        others += 1
                    elif digest > after:
                        yield digest

        try:
            handle = os.open(self._folder.path / shard, _DIRECTORY)
            try:
                return heapq.nsmallest(_MOST_NAMES, blobs(handle)), others
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._failed(shard, error)
            return [], 0


def _may_hold_blobs(entry: "os.DirEntry[str]") -> bool:
    return entry.name in _BESIDE_BLOBS or (entry.name in _SHARDS and entry.is_dir(follow_symlinks=False))


def _digest_of(entry: "os.DirEntry[str]", shard: str) -> Digest | None:
    """Return the digest that names a blob, None for whatever else lies in its folder."""
    digest = parse_digest(entry.name)
    if digest is None or digest != entry.name or not digest.startswith(shard):
        return None
    return digest if entry.is_file(follow_symlinks=False) else None
