"""What can be done to the store inside a write transaction: add, change and delete files, end those that expire."""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from filestored.blobs.store import BlobStore
from filestored.catalogue.records import NOBODY, Added, FileChange, FileRecord, UploadRecord, Wish
from filestored.catalogue.transaction import Transaction
from filestored.digest import Digest
from filestored.errors import Busy, NotFound, TooLarge
from filestored.staging import Staged

MAX_UNDER_WAY = 10_000
"""How many resumable uploads an owner may have that are not complete."""

T_co = TypeVar("T_co", covariant=True)


class Change(ABC, Generic[T_co]):
    """Something to do to the store inside a write transaction. May be carried out again after a failure."""

    frees_space = False
    """Whether it makes room on the disk, so that a full disk must not keep it from being done."""

    must_last = False
    """Whether it has to survive a power cut even where others need not: the world outside goes by it."""

    def __init__(self, digests: list[Digest], staged: list[Staged] | None = None, names: Iterable[str] = ()) -> None:
        """``names`` is what nobody else may change meanwhile, besides the digests."""
        self.digests = digests
        """What it changes."""
        self.names = [*digests, *names]
        """What nobody else changes meanwhile: digests, ids of uploads, what an owner keeps."""
        self.staged = staged or []
        """The bytes it publishes."""
        self.published: list[Digest] = []
        """The blobs it has published that were not there before."""
        self.removed: list[Digest] = []
        """The blobs it has decided to remove."""

    @property
    def claims(self) -> list[Digest]:
        """The digests that have a file afterwards whose blob must stay from then on."""
        return []

    def asks(self, transaction: Transaction, shared: Container[Digest] = ()) -> list[Digest]:
        """Return the blobs that are looked at when it is carried out: a bucket looks at those of many at once.

        ``shared`` are those that other changes of the same transaction are about, too.
        """
        return self.digests

    @abstractmethod
    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> T_co:
        """Do it; what it returns is the answer once everything is durable.

        Raises RequestError, before anything is done, where it must not be done.
        """


class AddFiles(Change[list[Added]]):
    """Publish staged bodies and record their files: all of them or none."""

    def __init__(
        self, owner: str, bodies: list[tuple[Staged, Wish]], quota: int | None = None, names: Iterable[str] = ()
    ) -> None:
        """``quota`` is how many bytes the owner may keep in all; for ``names`` see Change."""
        staged = [staged for staged, _ in bodies]
        super().__init__([each.digest for each in staged], staged, [*names, *_counted_for(owner, quota)])
        self._owner = owner
        self._bodies = bodies
        self._quota = quota

    @property
    def claims(self) -> list[Digest]:
        """See Change."""
        return self.digests

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> list[Added]:
        """Publish and record. Raises TooLarge where the owner would keep more than the quota."""
        if self._quota is not None:
            self._require_quota(self._quota, transaction, now)
        return [self._add(transaction, blobs, staged, wish, now) for staged, wish in self._bodies]

    def _require_quota(self, quota: int, transaction: Transaction, now: int) -> None:
        sizes = {staged.digest: staged.size for staged in self.staged}
        owned = {
            digest
            for digest in sizes
            if any(file.owner == self._owner and file.is_live(now) for file in transaction.find(digest))
        }
        more = sum(size for digest, size in sizes.items() if digest not in owned)
        kept = transaction.bytes_of(self._owner, now)
        if more and kept + more > quota:
            raise over_quota(quota, kept, more)

    def _add(self, transaction: Transaction, blobs: BlobStore, staged: Staged, wish: Wish, now: int) -> Added:
        if _publish(staged, blobs):
            self.published.append(staged.digest)
        rows = transaction.find(staged.digest)
        unclaimed = [file for file in rows if file.owner == NOBODY]
        if unclaimed:
            transaction.delete(unclaimed, are_last=len(rows) == 1)
            rows = [file for file in rows if file.owner != NOBODY]
        old = next((file for file in rows if file.owner == self._owner), None)
        new = _merge(old, self._owner, staged, wish, now)
        if old is None:
            transaction.insert(new, is_first=not rows)
        elif new != old:
            transaction.update(new)
        return Added(new, is_new=old is None or not old.is_live(now))


class TakeOver(Change[bool]):
    """Take a blob over from another store, with its files as they are there: names, owners and times.

    The outcome is whether anything had to be changed here. Where an owner has the file already it becomes what it is
    there. A file without owner is taken only where nobody has one.
    """

    def __init__(self, digest: Digest, files: Sequence[FileRecord], staged: Staged | None) -> None:
        """``staged`` None leaves the blob as it is: it is here already. Without ``files`` the blob has no row."""
        super().__init__([digest], [staged] if staged else [])
        self._files = files

    @property
    def claims(self) -> list[Digest]:
        """See Change."""
        return self.digests

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> bool:
        """Publish and record. Raises NotFound where the blob that was here has been deleted meanwhile."""
        digest = self.digests[0]
        has_changed = False
        for staged in self.staged:
            if _publish(staged, blobs):
                self.published.append(digest)
                has_changed = True
        if not self.staged and blobs.stat(digest) is None:
            raise NotFound(f"The blob {digest} has been deleted meanwhile.")
        expired = [row for row in transaction.find(digest) if not row.is_live(now)]
        if expired:
            # else the blob would go with them, though it was only just taken over
            transaction.delete(expired, are_last=len(expired) == len(transaction.find(digest)))
            has_changed = True
        for file in self._files:
            has_changed |= self._record(transaction, file)
        return has_changed

    def _record(self, transaction: Transaction, file: FileRecord) -> bool:
        rows = transaction.find(file.digest)
        if file in rows or (file.owner == NOBODY and rows):
            return False
        unclaimed = [row for row in rows if row.owner == NOBODY]
        if unclaimed:
            transaction.delete(unclaimed, are_last=len(rows) == len(unclaimed))
            rows = [row for row in rows if row.owner != NOBODY]
        old = next((row for row in rows if row.owner == file.owner), None)
        if old is not None and old.size == file.size:
            transaction.update(file)
            return True
        if old is not None:
            transaction.delete([old], are_last=len(rows) == 1)
            rows.remove(old)
        transaction.insert(file, is_first=not rows)
        return True


def _publish(staged: Staged, blobs: BlobStore) -> bool:
    """Give staged bytes their name; tell whether that changed the store."""
    has_changed = blobs.publish(staged)
    if has_changed and blobs.removes_at_once:
        # a bucket has a copy of them
        staged.is_published()
    return has_changed


class FinishUpload(AddFiles):
    """Make a whole upload the file it was sent for, and note that on it."""

    def __init__(
        self, upload: UploadRecord, body: tuple[Staged, Wish], quota: int | None, parts: Sequence[UploadRecord] = ()
    ) -> None:
        """``upload`` is as it will be, ``parts`` what it was joined from: these are over with it."""
        super().__init__(upload.owner, [body], quota, [upload.id, *(part.id for part in parts)])
        self._upload = upload
        self._parts = parts

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> list[Added]:
        """Publish, record and note. Raises TooLarge as :class:`AddFiles`, NotFound where a part has been ended."""
        for part in self._parts:
            if transaction.find_upload(part.id) != part:
                raise NotFound(f"The part {part.id} is not there any more, or was joined already.")
        added = super().carry_out(transaction, blobs, now)
        for part in self._parts:
            transaction.change_upload(replace(part, joined_as=self._upload.id))
        if transaction.find_upload(self._upload.id) is None:
            transaction.add_upload(self._upload)
        else:
            transaction.change_upload(self._upload)
        return added


def kept_by(owner: str) -> str:
    """Return the name under which a transaction holds still how much an owner keeps."""
    return f"kept by {owner}"


def _counted_for(owner: str, quota: int | None) -> list[str]:
    """Return what has to hold still while it is seen whether a quota has room."""
    return [] if quota is None else [kept_by(owner)]


def over_quota(quota: int, kept: int, more: int) -> TooLarge:
    """Return the error for an upload that would make an owner keep more than allowed; all in bytes."""
    return TooLarge(
        f"This token may keep {quota} bytes in all and keeps {kept}; {more} more do not fit. Delete files first."
    )


def _merge(old: FileRecord | None, owner: str, staged: Staged, wish: Wish, now: int) -> FileRecord:
    """Return the file after an upload: what is given replaces, what is not stays, the longer life wins."""
    if old is None or not old.is_live(now):
        media_type = wish.media_type or wish.guessed_type
        created_at = now if wish.created_at is None else wish.created_at
        return FileRecord(staged.digest, owner, wish.name, media_type, staged.size, created_at, wish.expires_at)
    lives = (old.expires_at, wish.expires_at)
    return replace(
        old,
        name=wish.name or old.name,
        media_type=wish.media_type or old.media_type,
        expires_at=None if None in lives else max(life for life in lives if life is not None),
    )


class ChangeFile(Change[FileRecord | None]):
    """Change what is said about an owner's file; None where there is none, or its blob is missing or damaged."""

    def __init__(self, digest: Digest, owner: str, change: FileChange, *, of_anybody: bool = False) -> None:
        """``of_anybody`` takes the file of whoever came first where the owner has none."""
        super().__init__([digest])
        self._owner = owner
        self._change = change
        self._of_anybody = of_anybody

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> FileRecord | None:
        """Change it."""
        live = [file for file in transaction.find(self.digests[0]) if file.is_live(now)]
        mine = [file for file in live if file.owner == self._owner] or (live if self._of_anybody else [])
        if not mine:
            return None
        old = mine[0]
        blob = blobs.stat(old.digest)
        if blob is None or blob.size != old.size:
            return None
        new = self._change.of(old)
        if new != old:
            transaction.update(new)
        return new


class DeleteFile(Change[bool]):
    """Delete an owner's file, or everybody's; the blob goes with the last."""

    frees_space = True

    def __init__(self, digest: Digest, owner: str | None, *, takes_unclaimed: bool = True) -> None:
        """``owner`` None deletes for all; ``takes_unclaimed`` also what no owner is known of."""
        super().__init__([digest])
        self._owner = owner
        self._takes_unclaimed = takes_unclaimed

    def asks(self, transaction: Transaction, shared: Container[Digest] = ()) -> list[Digest]:
        """See Change: where anybody keeps it, it is there, unless another deletes it first."""
        is_kept = any(file.owner != NOBODY for file in transaction.find(self.digests[0]))
        return [] if is_kept and self.digests[0] not in shared else self.digests

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> bool:
        """Delete the rows and decide on the blob; False where there was no such file."""
        digest = self.digests[0]
        rows = transaction.find(digest)
        mine = [file for file in rows if self._owner in (file.owner, None)]
        existed = any(file.is_live(now) for file in mine)
        self.removed = []
        if any(file.owner != NOBODY for file in rows if file not in mine):
            transaction.delete(mine, are_last=False)
            return existed
        if not mine:
            # no row, or one without owner: what nobody keeps is anybody's who may read it
            if blobs.stat(digest) is None or not self._takes_unclaimed:
                return False
            # what another delete has decided on already is tried again, but was that one's to delete
            existed = not transaction.is_going(digest)
        transaction.delete(rows, are_last=True)
        transaction.add_removal(digest)
        self.removed = [digest]
        return existed


class BeginUpload(Change[None]):
    """Note an upload that is going to be sent in pieces."""

    def __init__(self, upload: UploadRecord) -> None:
        super().__init__([], names=[kept_by(upload.owner)])
        self._upload = upload

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> None:
        """Note it. Raises Busy where its owner has as many under way as allowed."""
        count, _ = transaction.uploads_under_way(self._upload.owner)
        if count >= MAX_UNDER_WAY:
            raise Busy(f"{count} uploads of yours are not complete, as many as allowed; go on with those or end them.")
        transaction.add_upload(self._upload)


class NoteUpload(Change[bool]):
    """Note how far an upload has come; False where it was ended meanwhile."""

    def __init__(self, upload: UploadRecord, quota: int | None) -> None:
        """``upload`` is as it is now; ``quota`` is how many bytes its owner may keep in all."""
        super().__init__([], names=[upload.id, *_counted_for(upload.owner, quota)])
        self._upload = upload
        self._quota = quota

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> bool:
        """Note it. Raises TooLarge where more than the quota is under way: many may have begun to send at once."""
        known = transaction.find_upload(self._upload.id)
        if known is None:
            return False
        _, under_way = transaction.uploads_under_way(self._upload.owner)
        more = self._upload.flushed - known.flushed
        if self._quota is not None and under_way + more > self._quota:
            raise TooLarge(
                f"This token may keep {self._quota} bytes in all, and has {under_way} in unfinished uploads; {more} "
                "more do not fit. Complete or end some of these first."
            )
        transaction.change_upload(self._upload)
        return True


class EndUpload(Change[bool]):
    """Forget an upload; False where it was forgotten already."""

    frees_space = True

    def __init__(self, upload_id: str, *, only_if_expired: bool = False) -> None:
        """``only_if_expired`` leaves one that somebody has gone on with after all."""
        super().__init__([], names=[upload_id])
        self._upload_id = upload_id
        self._only_if_expired = only_if_expired

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> bool:
        """Forget it; whoever asks for that removes the bytes."""
        upload = transaction.find_upload(self._upload_id)
        if upload is None or (self._only_if_expired and upload.expires_at > transaction.no_later(now)):
            return False
        return transaction.remove_upload(self._upload_id)


class EndFiles(Change[int]):
    """Delete the files that have expired, about as many as one transaction should; the number deleted."""

    frees_space = True
    most = 256

    def __init__(self) -> None:
        super().__init__([])

    def asks(self, transaction: Transaction, shared: Container[Digest] = ()) -> list[Digest]:
        """See Change."""
        return []

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> int:
        """Delete the rows and decide on the blobs that are left to nobody."""
        self.removed = []
        now = transaction.no_later(now)
        self.digests = transaction.expired(now, self.most)
        count = 0
        for digest in self.digests:
            # as they are now that nobody else changes them: one may have been given more time
            rows = transaction.find(digest)
            ended = [file for file in rows if not file.is_live(now)]
            transaction.delete(ended, are_last=len(ended) == len(rows))
            count += len(ended)
            if ended and len(ended) == len(rows):
                transaction.add_removal(digest)
                self.removed.append(digest)
        return count
