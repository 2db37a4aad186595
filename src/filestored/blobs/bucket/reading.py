"""Blobs of a bucket that are being read, on and on over connections that break."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from filestored.blobs.bucket.faults import Faults
from filestored.blobs.store import PIECE, BlobHandle, Identity
from filestored.errors import BlobBroken, BlobGone, BlobStoreError, BlobStoreUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

    from filestored.blobs.bucket.connecting import ObjectStore

_PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.2
# of what was put in parts some engines remove these first
_REMOVED_SECONDS = 5.0


def identity_of(meta: "ObjectMeta") -> Identity:
    """Return what tells an object from another one under the same key: entity tag, time and size."""
    modified = meta["last_modified"]
    return meta["e_tag"] or "", int(modified.timestamp()) * 1_000_000_000 + modified.microsecond * 1000, meta["size"]


class BucketHandle(BlobHandle):
    """A blob of a bucket: what was told of it when it was looked for; a small one with its bytes.

    Nothing is held open between one reading and the next: a blob that is removed meanwhile cannot be read on.
    """

    __slots__ = ("_faults", "_key", "_store")

    def __init__(
        self, store: "ObjectStore", faults: Faults, key: str, identity: Identity, body: bytes | None = None
    ) -> None:
        super().__init__(identity, body)
        self._store = store
        self._faults = faults
        self._key = key

    def read(self, start: int, stop: int) -> bytes:
        """See BlobHandle."""
        return b"".join(self.pieces(start, stop))

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See BlobHandle."""
        import obstore

        end = self.size if stop is None else min(stop, self.size)
        if self.body is not None:
            yield self.body[start:end]
            return
        patience = _Patience()
        while start < end:
            try:
                with self._faults.explained():
                    got = obstore.get(self._store, self._key, options=self._options(start, end))
                    self._require_same(got.meta)
                    for piece in got.stream(min_chunk_size=PIECE):
                        start += len(piece)
                        yield bytes(piece)
                        # only now: the reader may have taken its time
                        patience.moved()
                if start < end:
                    raise BlobStoreUnavailable(f"{self._key} ended early")
            except FileNotFoundError:
                raise BlobGone(self._key) from None
            except BlobStoreError as error:
                time.sleep(patience.pause(error))

    async def stream(self, start: int, stop: int, piece: int = PIECE) -> AsyncGenerator[bytes, None]:
        """See BlobHandle."""
        import obstore

        patience = _Patience()
        while start < stop:
            try:
                with self._faults.explained():
                    got = await obstore.get_async(self._store, self._key, options=self._options(start, stop))
                    self._require_same(got.meta)
                    async for chunk in got.stream(min_chunk_size=piece):
                        start += len(chunk)
                        yield bytes(chunk)
                        # only now: the reader may have taken its time
                        patience.moved()
                if start < stop:
                    raise BlobStoreUnavailable(f"{self._key} ended early")
            except FileNotFoundError:
                raise BlobGone(self._key) from None
            except BlobStoreError as error:
                await asyncio.sleep(patience.pause(error))

    def close(self) -> None:
        """See BlobHandle."""

    def _options(self, start: int, stop: int) -> Any:
        """Ask for the whole object where the whole is wanted: not every engine knows ranges."""
        return {} if (start, stop) == (0, self.size) else {"range": (start, stop)}

    def _require_same(self, meta: "ObjectMeta") -> None:
        # its tag may be another: whoever stores the same bytes again may have put them in other parts
        if meta["size"] != self.size:
            raise BlobStoreError(f"{self._key} has {meta['size']} bytes by now instead of {self.size}")


class _Patience:
    """How long to ask again for bytes that do not come any more. Who has none yet is told at once."""

    def __init__(self) -> None:
        self._moved_at: float | None = None
        self._broken_at: float | None = None

    def moved(self) -> None:
        """Note that some came."""
        self._moved_at = time.monotonic()
        self._broken_at = None

    def pause(self, error: BlobStoreError) -> float:
        """Return how many seconds to wait before asking again; raise the error where that would not help."""
        if isinstance(error, BlobBroken):
            self._broken_at = self._broken_at or time.monotonic()
            if time.monotonic() - self._broken_at < _REMOVED_SECONDS:
                return _PAUSE_SECONDS
            raise error
        moved_at = self._moved_at
        if not error.is_passing or moved_at is None or time.monotonic() - moved_at > _PATIENCE_SECONDS:
            raise error
        return _PAUSE_SECONDS
