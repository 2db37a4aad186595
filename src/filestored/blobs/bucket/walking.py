"""Going through all blobs of a bucket in the order of their digests, whatever else lies there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.faults import Faults
from filestored.digest import Digest, parse_digest

if TYPE_CHECKING:
    from filestored.blobs.bucket.connecting import ObjectStore

_LISTED_AT_ONCE = 1000
_PRIVATE = ".filestored/"


class BucketWalk:
    """See Walk; engines list their keys in order. What lies beside the blobs is counted, also before ``after``."""

    def __init__(self, store: "ObjectStore", faults: Faults, address: BucketAddress, after: str = "") -> None:
        self.others = 0
        self._store = store
        self._faults = faults
        self._address = address
        self._after = after

    def __iter__(self) -> Iterator[Digest]:
        for name in names_in(self._store, self._faults, self._address, after=_name_before(self._after)):
            digest = digest_of(name)
            if digest is None:
                self.others += not name.startswith(_PRIVATE)
            elif digest > self._after:
                yield digest


def names_in(store: "ObjectStore", faults: Faults, address: BucketAddress, after: str = "") -> Iterator[str]:
    """List keys in order, without the prefix, those after a name only. Raises BlobStoreError."""
    import obstore

    cut = len(address.key(""))
    offset = address.key(after) if after else None
    batches = iter(obstore.list(store, address.prefix or None, offset=offset, chunk_size=_LISTED_AT_ONCE))
    while True:
        with faults.explained():
            batch = next(batches, None)
        if batch is None:
            return
        yield from (found["path"][cut:] for found in batch)


def digest_of(name: str) -> Digest | None:
    """Return the digest that names a blob, None for whatever else lies in a bucket."""
    shard, _, rest = name.partition("/")
    digest = parse_digest(rest)
    return digest if digest is not None and digest == rest and digest.startswith(shard) and len(shard) == 2 else None


def is_private(name: str) -> bool:
    """Tell whether a key is in the program's own corner."""
    return name.startswith(_PRIVATE)


def _name_before(after: str) -> str:
    return f"{after[:2]}/{after}" if len(after) > 2 else after
