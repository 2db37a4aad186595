"""Blobs in a bucket: how they are put, found, read and removed."""

import errno
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from loguru import logger

from filestored.blobs.bucket import connecting
from filestored.blobs.bucket.connecting import connect
from filestored.blobs.bucket.faults import Faults
from filestored.blobs.bucket.mark import Mark, Marks
from filestored.blobs.bucket.reading import BucketHandle, identity_of
from filestored.blobs.bucket.removing import Remover
from filestored.blobs.bucket.walking import BucketWalk
from filestored.blobs.layout import StoreFolder, require_in_place
from filestored.blobs.presigning import presign
from filestored.blobs.store import BlobStat, Failed, Identity, Permit, StagedBytes
from filestored.digest import Digest, Hash, algorithm_of
from filestored.errors import BlobStoreError, BlobStoreUnavailable, NotBrought, PutLost, StartError

if TYPE_CHECKING:
    from filestored.blobs.bucket.connecting import ObjectStore

SMALL = 64 * 1024
"""Up to this many bytes a blob comes with the answer that finds it."""

_QUARANTINE = ".filestored/quarantine"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOKERS = 32
# whoever only reads has fewer, and waits for none of those that hold locks
_READERS_LOOKERS = 16
_FORESEE_SECONDS = 4.0
# a form of a thousand files takes longer, but nobody who waits for its locks gives up meanwhile
_FORESEE_MOST_SECONDS = 8.0
_FORESEEN_A_SECOND = 64
# up to this many bytes a body is put by one request, which a part is as well
_PART = 16 << 20
# of a body that is being put: what its parts under way take
_PUT_MEMORY = 32 << 20
_MAX_PARTS = 9000
# what is larger the engines do not copy by themselves, or take longer for than a request may
_COPIED = 256 << 20
_TRUSTED_SECONDS = 1.0
# seconds before what was not kept is put again, and by when after it was put first: others wait for the thread
_PUT_PAUSES = (0.2, 1.0)
_PUT_AGAIN_WITHIN = 15.0
_PIECE = 1 << 20


class BucketBlobStore:
    """A :class:`~filestored.blobs.store.BlobStore` in a bucket; the local folder is its spool.

    Nothing is asked before the first call. The promises of the methods are those of BlobStore.
    """

    removes_at_once = False

    def __init__(self, folder: StoreFolder) -> None:
        """Open the spool and prepare connections. Raises OSError, StartError."""
        assert folder.bucket is not None
        self._folder = folder
        self._address = folder.bucket
        self._faults = Faults(self._address)
        self._looking, self._reading, self._streaming, self._writing, self._removing = self._connect()
        self._remover = Remover(self._removing, self._faults, self._address)
        self._marks = Marks(self._reading, self._faults, self._address)
        self._seen = Marks(self._looking, self._faults, self._address)
        self._mark: Mark | None = None
        self._there_until = 0.0
        self._is_closed = False
        self._lookers = ThreadPoolExecutor(_LOOKERS, "look")
        self._readers_lookers = ThreadPoolExecutor(_READERS_LOOKERS, "look for readers")
        self._foreseen = threading.local()
        self._spool = folder.private / "tmp"
        self.staging = os.open(self._spool, _DIRECTORY)

    def _connect(self) -> "list[ObjectStore]":
        clocks = (connecting.LOOK, connecting.READ, connecting.STREAM, connecting.WRITE, connecting.REMOVE)
        return [connect(self._address, clock) for clock in clocks]

    def close(self) -> None:
        """See BlobStore."""
        # what is still being put ends with its next piece: the interpreter waits for the threads
        self._is_closed = True
        for threads in (self._lookers, self._readers_lookers):
            threads.shutdown(wait=False, cancel_futures=True)
        self._remover.close()
        os.close(self.staging)

    @property
    def id(self) -> str:
        """See BlobStore. Makes a store of an empty bucket. Raises BlobStoreError, StartError."""
        if self._mark is None:
            own = [self._folder.algorithm.value]
            named = [each.value for each in self._folder.algorithms() if each.value not in own]
            self._mark = self._marks.adopt([*named, *own])
            self._folder.record_algorithms(self._mark.known())
        return self._mark.id

    def keep_for(self, catalogue: str, *, take_over: bool = False) -> str:
        """See BlobStore. Raises BlobStoreError."""
        return self._marks.keep_for(catalogue, take_over=take_over)

    def keeper(self) -> str:
        """See BlobStore."""
        return self._seen.keeper()

    def open(self, digest: Digest, size: int | None = None) -> BucketHandle | None:
        """See BlobStore."""
        import obstore

        key = self._key(digest)
        if size is None or size > SMALL:
            identity = self._head(key, self._reading)
            if identity is None:
                # an answer to HEAD does not say whether it is the blob that is not there, or the bucket
                self._require_bucket(anew=size is not None)
                return None
            return BucketHandle(self._streaming, self._faults, key, identity)
        try:
            with self._faults.explained():
                got = obstore.get(self._reading, key)
                identity = identity_of(got.meta)
                # what is larger than it should be is nobody's to serve
                body = bytes(got.bytes()) if identity[2] == size else None
        except FileNotFoundError:
            # it should be there; and what lies between may say of everything that it is not
            self._require_bucket(anew=True)
            return None
        return BucketHandle(self._streaming, self._faults, key, identity, body)

    def stat(self, digest: Digest) -> BlobStat | None:
        """See BlobStore."""
        identity = self.identity(digest)
        return None if identity is None else BlobStat(identity[2], identity[1] // 1_000_000_000)

    def identity(self, digest: Digest) -> Identity | None:
        """See BlobStore."""
        foreseen: dict[Digest, Identity | None] | None = getattr(self._foreseen, "blobs", None)
        if foreseen is not None and digest in foreseen:
            return foreseen[digest]
        identity = self._look(digest)
        if identity is None:
            # see open
            self._require_bucket()
        if foreseen is not None:
            foreseen[digest] = identity
        return identity

    def is_in_place(self, digest: Digest, identity: Identity) -> bool:
        """See BlobStore."""
        return True

    def bring(self, staged: StagedBytes, *, anew: bool = False) -> bool:
        """See BlobStore."""
        if not anew:
            found = self._look(staged.digest)
            if found is not None and found[2] == staged.size:
                return False
        # before the first byte: what seems to have failed may be carried out later
        staged.is_brought = True
        self._put(staged)
        return True

    def _put(self, staged: StagedBytes) -> None:
        until = time.monotonic() + _PUT_AGAIN_WITHIN
        for pause in (*_PUT_PAUSES, None):
            try:
                self._put_once(staged)
                break
            except PutLost as error:
                logger.warning("{} took {} and has not kept it: {}", self._address, staged.digest, error.reason)
                if pause is None or time.monotonic() > until or self._is_closed:
                    raise
                time.sleep(pause)

    def _put_once(self, staged: StagedBytes) -> None:
        body = staged.memory
        if body is not None:
            self._put_at_once(staged.digest, body)
            return
        descriptor = staged.open_in(self.staging)
        with open(descriptor, "rb", buffering=0) as file:
            if staged.size <= _PART:
                body = file.read()
                self._require_named(staged.digest, self._hash(staged.digest, body))
                self._put_at_once(staged.digest, body)
            else:
                pieces = iter(partial(file.read, _PIECE), b"")
                self._put_in_parts(self._key(staged.digest), self._proved(staged.digest, pieces), staged.size)

    def _proved(self, digest: Digest, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the pieces on; raise OSError at their end, before the last of them counts, unless they have that name.

        The spool is not flushed, so that what a disk could not write it may give back as something else.
        """
        hash_ = self._hash(digest)
        for piece in pieces:
            if self._is_closed:
                raise BlobStoreUnavailable("this process ends")
            hash_.update(piece)
            yield piece
        self._require_named(digest, hash_)

    def _hash(self, digest: Digest, body: bytes = b"") -> Hash:
        return algorithm_of(digest, self._folder.algorithm).new(body)

    def _require_named(self, digest: Digest, hash_: Hash) -> None:
        if hash_.hexdigest() != digest:
            raise OSError(errno.EIO, f"the spool gives other bytes than it was given for {digest}")

    def _put_at_once(self, digest: Digest, body: bytes) -> None:
        import obstore

        with self._stored_or_failed(), self._faults.explained(puts=True):
            obstore.put(self._writing, self._key(digest), body, use_multipart=False)

    def _put_in_parts(self, key: str, pieces: Iterator[bytes], size: int) -> None:
        import obstore

        part = max(_PART, -(-size // _MAX_PARTS))
        together = max(1, _PUT_MEMORY // part)
        with self._stored_or_failed(), self._faults.explained(puts=True):
            obstore.put(
                self._writing, key, pieces, use_multipart=True, chunk_size=part, max_concurrency=together
            )  # fmt: skip

    @contextmanager
    def _stored_or_failed(self) -> Iterator[None]:
        """Have whatever ends a put mean that nothing is stored: it may also be a part that is not found."""
        try:
            yield
        except FileNotFoundError as error:
            raise PutLost("the object store lost an upload on its way") from error

    def foresee(self, digests: Iterable[Digest], *, for_reader: bool = False) -> None:
        """See BlobStore. Four seconds at most, eight for some hundreds of blobs. Raises BlobStoreError."""
        threads = self._readers_lookers if for_reader else self._lookers
        asked = {digest: threads.submit(self._look, digest) for digest in digests}
        seconds = min(max(_FORESEE_SECONDS, len(asked) / _FORESEEN_A_SECOND), _FORESEE_MOST_SECONDS)
        until = time.monotonic() + seconds
        _, late = wait(asked.values(), seconds)
        for each in late:
            each.cancel()
        if late:
            raise BlobStoreUnavailable(f"{len(asked) - len(late)} of {len(asked)} blobs were found in {seconds:g} s")
        found = {digest: each.result() for digest, each in asked.items()}
        if None in found.values():
            self._require_bucket_within(threads, until - time.monotonic())
        self._foreseen.blobs = found

    def _require_bucket_within(self, threads: ThreadPoolExecutor, seconds: float) -> None:
        """Raise BlobStoreError unless the bucket is seen to be there within some seconds. See open."""
        if time.monotonic() <= self._there_until:
            return
        looked = threads.submit(self._require_bucket)
        if looked not in wait([looked], seconds).done:
            looked.cancel()
            raise BlobStoreUnavailable("the object store does not say in time whether the bucket is there")
        looked.result()

    def forget_foreseen(self) -> None:
        """See BlobStore."""
        self._foreseen.blobs = None

    def needs(self, staged: StagedBytes) -> bool:
        """See BlobStore."""
        identity = self.identity(staged.digest)
        return identity is None or identity[2] != staged.size

    def publish(self, staged: StagedBytes) -> bool:
        """See BlobStore."""
        if self.needs(staged):
            raise NotBrought(staged.digest)
        return staged.is_brought

    def flush(self, digests: Iterable[Digest]) -> None:
        """See BlobStore."""

    def flush_everything(self) -> bool:
        """See BlobStore."""
        return True

    def permits(self, digests: Sequence[Digest]) -> Mapping[Digest, Permit]:
        """See BlobStore."""
        signed = self._remover.permits([self._key(digest) for digest in digests])
        return dict(zip(digests, signed, strict=False))

    def remove(self, digest: Digest, permit: Permit | None = None) -> bool:
        """See BlobStore. One request, of at most 15 s; an error's ``was_sent`` tells whether it may happen later."""
        try:
            self._remover.remove(self._key(digest), permit)
        except FileNotFoundError:
            # some engines say that there was none; but so does what lies between of everything
            self._require_bucket(anew=True)
        return True

    def quarantine(self, digest: Digest, identity: Identity) -> str | None:
        """Copy a damaged blob to where it is out of the way; return its key there, None where it is another by now.

        It stays under its name as well: whoever asked removes it as any other. May take long.
        """
        if self._look(digest) != identity:
            return None
        target = self._free_key(digest)
        if identity[2] <= _COPIED:
            self._copy(self._key(digest), target)
        else:
            handle = BucketHandle(self._streaming, self._faults, self._key(digest), identity)
            self._put_in_parts(target, handle.pieces(), identity[2])
        return target

    def _copy(self, source: str, target: str) -> None:
        import obstore

        with self._stored_or_failed(), self._faults.explained(puts=True):
            obstore.copy(self._streaming, source, target)

    def _free_key(self, digest: Digest) -> str:
        """Return a key in quarantine that nothing has: the digest, or with a number after it."""
        key, number = self._address.key(f"{_QUARANTINE}/{digest}"), 0
        base = key
        while self._head(key) is not None:
            number += 1
            key = f"{base}.{number}"
        return key

    def walk(self, after: str = "", *, failed: Failed) -> BucketWalk:
        """See BlobStore."""
        return BucketWalk(self._writing, self._faults, self._address, after)

    def free_bytes(self) -> int:
        """See BlobStore."""
        space = os.fstatvfs(self.staging)
        return space.f_bavail * space.f_frsize

    def require_usable(self) -> None:
        """See BlobStore."""
        require_in_place(self._spool, self.staging)
        try:
            mark = self._seen.read()
        except StartError as error:
            raise BlobStoreError(str(error)) from error
        if mark is None:
            # or it is none that answers
            raise BlobStoreUnavailable(f"{self._address} is no store, or not any more: it has no mark")

    def presigned(self, digest: Digest, seconds: float, headers: Mapping[str, str]) -> tuple[str, bool] | None:
        """See BlobStore."""
        with self._faults.explained():
            return presign(self._reading, self._key(digest), seconds, headers)

    def _require_bucket(self, *, anew: bool = False) -> None:
        """Raise BlobStoreError unless the bucket has been there within the last second, or, ``anew``, is now."""
        if anew or time.monotonic() > self._there_until:
            self.require_usable()
            self._there_until = time.monotonic() + _TRUSTED_SECONDS

    def _key(self, digest: Digest) -> str:
        return self._address.key(f"{digest[:2]}/{digest}")

    def _look(self, digest: Digest) -> Identity | None:
        return self._head(self._key(digest))

    def _head(self, key: str, store: "ObjectStore | None" = None) -> Identity | None:
        import obstore

        try:
            with self._faults.explained():
                return identity_of(obstore.head(store or self._looking, key))
        except FileNotFoundError:
            return None
