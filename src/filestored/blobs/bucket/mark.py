"""What a bucket says of itself: that it is a store, since when, and which catalogue keeps it.

::

    <prefix>/.filestored/format.json   {"layout": 1, "algorithms": ["sha256"], "id": "…"}
                         catalogue     the id of the catalogue that keeps the store
"""

import json
import secrets
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.faults import Faults, lacks_conditions
from filestored.blobs.bucket.walking import digest_of, is_private, names_in
from filestored.blobs.layout import LAYOUT_VERSION
from filestored.digest import Algorithm
from filestored.errors import PutLost, StartError

if TYPE_CHECKING:
    from filestored.blobs.bucket.connecting import ObjectStore

MARK = ".filestored/format.json"
"""The key, below the prefix, of the object that says that a bucket is a store."""

_CATALOGUE = ".filestored/catalogue"
_LARGEST_BYTES = 64 * 1024
_PEEKED = 20
# from the first key, from the middle of the blobs, and behind all of them
_PEEKED_FROM = ("", "8", "fg")


class Mark(NamedTuple):
    """The algorithms that name the blobs, and what tells this store from all others."""

    algorithms: list[str]
    id: str

    def known(self) -> list[Algorithm]:
        """Return those of the algorithms that this version knows."""
        return [Algorithm(name) for name in self.algorithms if name in list(Algorithm)]


class Marks:
    """The objects that say what a bucket is."""

    def __init__(self, store: "ObjectStore", faults: Faults, address: BucketAddress) -> None:
        self._store = store
        self._faults = faults
        self._address = address

    def adopt(self, algorithms: Iterable[str]) -> Mark:
        """Return the bucket's mark, made where there is nothing yet, with these algorithms added where it lacks them.

        Several daemons may do it at once. Raises BlobStoreError, and StartError where the bucket is no store.
        """
        mark = self.read()
        if mark is None:
            self.require_store_layout()
            self._make(MARK, _written(Mark(list(algorithms), secrets.token_hex(16))))
            mark = self.read()
        if mark is None:
            raise StartError(f"the bucket {self._address} does not keep what is put into it")
        more = [name for name in algorithms if name not in mark.algorithms]
        if more:
            mark = Mark([*mark.algorithms, *more], mark.id)
            self._put(MARK, _written(mark))
        return mark

    def read(self) -> Mark | None:
        """Return the bucket's mark, None where it has none. Raises BlobStoreError, StartError."""
        text = self._get(MARK)
        if text is None:
            return None
        try:
            mark = json.loads(text)
            version, algorithms, own = mark["layout"], mark["algorithms"], mark["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise StartError(f"{self._address}/{MARK} is damaged; restore it from a backup or remove it") from error
        if not isinstance(version, int) or version > LAYOUT_VERSION:
            raise StartError(f"the store {self._address} was made by a newer version (layout {version}); upgrade")
        return Mark([str(name) for name in algorithms], str(own))

    def keep_for(self, catalogue: str, *, take_over: bool) -> str:
        """See BlobStore."""
        if take_over:
            self._put(_CATALOGUE, catalogue.encode())
        elif self._get(_CATALOGUE) is None:
            self._make(_CATALOGUE, catalogue.encode())
        return self.keeper()

    def keeper(self) -> str:
        """See BlobStore."""
        return (self._get(_CATALOGUE) or b"").decode("ascii", "replace").strip()

    def is_read_by_ranges(self) -> bool:
        """Tell whether the engine answers a range of the mark with just that. Raises BlobStoreError."""
        import obstore

        with self._faults.explained(always=True):
            whole = self._read(MARK)
            part = bytes(obstore.get_range(self._store, self._address.key(MARK), start=1, length=1))
        return part == whole[1:2]

    def _read(self, name: str) -> bytes:
        """Read a small object. Raises StartError where it says that it is a large one: it is not of ours."""
        import obstore

        found = obstore.get(self._store, self._address.key(name))
        if found.meta["size"] > _LARGEST_BYTES:
            raise StartError(f"{self._address}/{name} has {found.meta['size']} bytes: that is nothing of filestored's")
        return bytes(found.bytes())

    def _get(self, name: str) -> bytes | None:
        try:
            with self._faults.explained(always=True):
                return self._read(name)
        except FileNotFoundError:
            return None

    def _put(self, name: str, body: bytes) -> None:
        import obstore

        with self._faults.explained(always=True, puts=True):
            obstore.put(self._store, self._address.key(name), body, use_multipart=False)

    def _make(self, name: str, body: bytes) -> None:
        """Make an object unless it is there by now; where the engine has no such promise the last one counts."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        def create() -> bool:
            try:
                obstore.put(self._store, self._address.key(name), body, mode="create")
            except AlreadyExistsError:
                return True
            except BaseError as error:
                if not lacks_conditions(error):
                    raise
                return False
            return True

        try:
            with self._faults.explained(always=True, puts=True):
                is_made = create()
            if not is_made:
                self._put(name, body)
        except PutLost:
            # another's that was younger, or nothing
            if self._get(name) is None:
                raise

    def require_store_layout(self) -> None:
        """Raise StartError unless a bucket without a mark is empty or holds blobs, by a few of its keys.

        Raises BlobStoreError.
        """
        for start in _PEEKED_FROM:
            for name in islice(names_in(self._store, self._faults, self._address, after=start), _PEEKED):
                if digest_of(name) is None and not is_private(name):
                    shown = ascii(name[:200])[1:-1]
                    raise StartError(
                        f"{self._address} is neither empty nor a store (it holds {shown}); name another prefix with "
                        "--store"
                    )


def _written(mark: Mark) -> bytes:
    return json.dumps({"layout": LAYOUT_VERSION, "algorithms": mark.algorithms, "id": mark.id}).encode()
