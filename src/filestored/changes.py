"""What can be done to the store inside a write transaction: add files, delete a file."""

from dataclasses import replace
from typing import Protocol, TypeVar

from filestored.blobs.disk import DiskBlobStore
from filestored.catalogue.catalogue import Transaction
from filestored.catalogue.records import Added, FileRecord, Wish
from filestored.digest import Digest
from filestored.staging import Staged

T_co = TypeVar("T_co", covariant=True)


class Change(Protocol[T_co]):
    """Something to do to the store inside a write transaction. May be carried out again after a failure."""

    digests: list[Digest]
    """What it changes."""

    staged: list[Staged]
    """The bytes it publishes."""

    def carry_out(self, transaction: Transaction, blobs: DiskBlobStore, now: int) -> T_co:
        """Do it; what it returns is the answer once everything is durable."""


class AddFiles:
    """Publish staged bodies and record their files: all of them or none."""

    def __init__(self, owner: str, bodies: list[tuple[Staged, Wish]]) -> None:
        self.staged = [staged for staged, _ in bodies]
        self.digests = [staged.digest for staged in self.staged]
        self.published: list[Digest] = []
        """The blobs that were not there before."""
        self._owner = owner
        self._bodies = bodies

    def carry_out(self, transaction: Transaction, blobs: DiskBlobStore, now: int) -> list[Added]:
        """Publish and record."""
        return [self._add(transaction, blobs, staged, wish, now) for staged, wish in self._bodies]

    def _add(self, transaction: Transaction, blobs: DiskBlobStore, staged: Staged, wish: Wish, now: int) -> Added:
        if blobs.publish(staged):
            staged.is_published()
            self.published.append(staged.digest)
        old = transaction.find_own(staged.digest, self._owner)
        new = _merge(old, self._owner, staged, wish, now)
        if old is None:
            transaction.insert(new)
        elif new != old:
            transaction.update(new)
        return Added(new, is_new=old is None or not old.is_live(now))


def _merge(old: FileRecord | None, owner: str, staged: Staged, wish: Wish, now: int) -> FileRecord:
    """Return the file after an upload: what is given replaces, what is not stays, the longer life wins."""
    if old is None or not old.is_live(now):
        media_type = wish.media_type or wish.guessed_type
        return FileRecord(staged.digest, owner, wish.name, media_type, staged.size, now, wish.expires_at)
    lives = (old.expires_at, wish.expires_at)
    return replace(
        old,
        name=wish.name or old.name,
        media_type=wish.media_type or old.media_type,
        expires_at=None if None in lives else max(life for life in lives if life is not None),
    )


class DeleteFile:
    """Delete an owner's file, or everybody's; the blob goes with the last."""

    def __init__(self, digest: Digest, owner: str | None) -> None:
        self.digests = [digest]
        self.staged: list[Staged] = []
        self.removed: list[Digest] = []
        """The blobs it decided to remove."""
        self._digest = digest
        self._owner = owner

    def carry_out(self, transaction: Transaction, blobs: DiskBlobStore, now: int) -> bool:
        """Delete the rows and decide on the blob; False where there was no such file.

        A blob that no row names is anybody's: it goes as well.
        """
        mine = transaction.delete(self._digest, self._owner)
        if self._owner is not None and transaction.is_kept(self._digest):
            return any(file.is_live(now) for file in mine)
        if blobs.stat(self._digest) is None:
            return False
        transaction.add_removal(self._digest)
        self.removed = [self._digest]
        return not mine or any(file.is_live(now) for file in mine)
