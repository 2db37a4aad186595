"""A write transaction: what can be changed in the catalogue, and the lock between publishing and removing blobs."""

from collections.abc import Iterable, Iterator

from filestored.catalogue import statements
from filestored.catalogue.database import Session, WriteSession
from filestored.catalogue.records import FileRecord, Removal, TokenRecord, UploadRecord, folded
from filestored.digest import Digest


class Transaction:
    """A write transaction, and the lock between publishing and removing blobs. Made by ``Catalogue.transaction``.

    What changes how much an owner keeps is gathered and written once, at the end.
    """

    def __init__(self, session: WriteSession, *, is_shared: bool = False) -> None:
        """``is_shared`` where other machines, with clocks of their own, may keep the same catalogue."""
        self._session = session
        self._is_shared = is_shared
        self._gained: dict[str, tuple[int, int]] = {}
        self._blobs_gained = (0, 0)

    def no_later(self, now: int) -> int:
        """Return the earlier of ``now`` and the clock that all daemons share: one that is ahead must end nothing."""
        row = self._session.one(statements.CLOCK) if self._is_shared else None
        return now if row is None else min(now, int(row[0]))

    # files

    def find(self, digest: Digest) -> list[FileRecord]:
        """Return all files under a digest, first owner first, expired ones included."""
        return find(self._session, digest)

    def insert(self, file: FileRecord, *, is_first: bool) -> None:
        """Add a file its owner does not have yet; ``is_first`` where nobody has one under this digest."""
        self._session.change(statements.INSERT, **_row(file))
        self._gain(file.owner, 1, file.size)
        if is_first:
            self._gain_blob(1, file.size)

    def update(self, file: FileRecord) -> None:
        """Replace the file that this owner has under this digest; its size is what it was."""
        self._session.change(statements.UPDATE, **_row(file))

    def delete(self, files: list[FileRecord], *, are_last: bool) -> None:
        """Delete files of one digest; ``are_last`` where nobody else has one."""
        for file in files:
            self._session.change(statements.DELETE, digest=file.digest, owner=file.owner)
            self._gain(file.owner, -1, -file.size)
        if files and are_last:
            self._gain_blob(-1, -max(file.size for file in files))

    def is_named(self, digest: Digest) -> bool:
        """Tell whether there is any file under a digest."""
        return self._session.one(statements.IS_NAMED, digest=digest) is not None

    def expired(self, now: int, limit: int) -> list[Digest]:
        """Return the digests of files that have ended at ``now`` (milliseconds since 1970), those that ended first.

        They are locked from now on; what somebody else is changing is left out.
        """
        rows = self._session.all(statements.EXPIRED, now=now, limit=limit)
        return [Digest(name) for name in self._session.lock_now(dict.fromkeys(row[0] for row in rows))]

    # removals

    def add_removal(self, digest: Digest, *, sent_at: int | None = None) -> None:
        """Decide that a blob is to go. Whoever carries it out looks again whether it is kept by then.

        ``sent_at`` is for what a bucket was asked for already, by the database's clock.
        """
        self._session.change(statements.ADD_REMOVAL, digest=digest, sent_at=sent_at)

    def is_going(self, digest: Digest) -> bool:
        """Tell whether it is decided that a blob is to go."""
        return self._session.one(statements.IS_GOING, digest=digest) is not None

    def take_removals(self) -> list[Digest]:
        """Return the blobs whose removal is decided; with this transaction they are no longer noted as such.

        They are locked from now on; what somebody else is changing is left out.
        """
        names = self._session.lock_now([row[0] for row in self._session.all(statements.REMOVALS)])
        # somebody may have carried it out between the two
        return [Digest(name) for name in names if self._session.change(statements.TAKE_REMOVAL, digest=name)]

    def due_removals(self, age: int) -> list[Digest]:
        """Return some blobs that a bucket is to be asked to remove, and was not within ``age`` milliseconds.

        They are locked from now on; what somebody else is changing is left out.
        """
        rows = self._session.all(statements.DUE_REMOVALS, age=age)
        return [Digest(name) for name in self._session.lock_now([row[0] for row in rows])]

    def removals_of(self, digests: Iterable[Digest]) -> dict[Digest, Removal]:
        """Return what is decided on these blobs, by digest; nothing for those that are not to go."""
        return removals_of(self._session, digests)

    def send_removal(self, digest: Digest) -> int:
        """Note that a bucket is asked now to remove a blob, as is decided; return when, by the database's clock.

        From the commit on that may happen at any moment.
        """
        row = self._session.one(statements.SEND_REMOVAL, digest=digest)
        assert row is not None, "a removal is decided before it is sent"
        return int(row[0])

    def forget_removal(self, digest: Digest, sent_at: int) -> bool:
        """Forget a removal that was sent at that time; False where it is over, or was sent again since."""
        return self._session.change(statements.FORGET_REMOVAL, digest=digest, sent_at=sent_at) > 0

    def unsend_removal(self, digest: Digest, sent_at: int) -> None:
        """Note that a removal was not sent after all: anybody may do so at once."""
        self._session.change(statements.UNSEND_REMOVAL, digest=digest, sent_at=sent_at)

    def drop_removal(self, digest: Digest) -> None:
        """Forget that a blob is to go, whether that was sent or not. For what cannot happen any more."""
        self._session.change(statements.TAKE_REMOVAL, digest=digest)

    # how much is kept

    def bytes_of(self, owner: str, now: int) -> int:
        """Return how many bytes an owner keeps, what has expired at ``now`` left out."""
        return bytes_of(self._session, owner, now) + self._gained.get(owner, (0, 0))[1]

    def count_anew(self) -> None:
        """Count how much is kept from the files themselves. Needs a transaction that is alone."""
        self._write_gains()
        self._session.change(statements.FORGET_USAGE)
        self._session.change(statements.COUNT_USAGE)
        self._session.change(statements.FORGET_TOTALS)
        self._session.change(statements.COUNT_TOTALS)

    def _gain(self, owner: str, files: int, size: int) -> None:
        known = self._gained.get(owner, (0, 0))
        self._gained[owner] = (known[0] + files, known[1] + size)

    def _gain_blob(self, blobs: int, size: int) -> None:
        self._blobs_gained = (self._blobs_gained[0] + blobs, self._blobs_gained[1] + size)

    def _write_gains(self) -> None:
        # in one order for all, so that two that change the same owners do not wait for each other
        for owner, (count, size) in sorted(self._gained.items()):
            self._session.change(statements.ADD_USAGE, owner=owner, files=count, bytes=size)
        blobs, size = self._blobs_gained
        if blobs or size:
            self._session.change(statements.ADD_TOTALS, id=self._session.slot, blobs=blobs, bytes=size)
        self._gained, self._blobs_gained = {}, (0, 0)

    def finish(self) -> None:
        """Write what was gathered. The catalogue calls it before it commits."""
        self._write_gains()

    # resumable uploads

    def find_upload(self, upload_id: str) -> UploadRecord | None:
        """Return an upload, None where there is none."""
        return find_upload(self._session, upload_id)

    def add_upload(self, upload: UploadRecord) -> None:
        """Add an upload."""
        self._session.change(statements.ADD_UPLOAD, **_values(upload))

    def change_upload(self, upload: UploadRecord) -> None:
        """Replace what may change of an upload: length, offset, what came of it and when it ends."""
        self._session.change(statements.CHANGE_UPLOAD, **_values(upload))

    def remove_upload(self, upload_id: str) -> bool:
        """Remove an upload; False where there is none."""
        return self._session.change(statements.REMOVE_UPLOAD, id=upload_id) > 0

    def uploads_under_way(self, owner: str) -> tuple[int, int]:
        """Return how many uploads of an owner are not complete, and how many bytes of them are there."""
        return under_way(self._session, owner)

    # tokens and notes

    def add_token(self, token: TokenRecord) -> bool:
        """Add a token; False where one of that name is there."""
        return self._session.change(statements.ADD_TOKEN, **_values(token)) > 0

    def remove_token(self, name: str) -> bool:
        """Remove a token; False where there is none of that name."""
        return self._session.change(statements.REMOVE_TOKEN, name=name) > 0

    def set_note(self, name: str, value: str) -> None:
        """Note something, in place of what was noted under that name."""
        self._session.change(statements.SET_NOTE, name=name, value=value)

    def add_note(self, name: str, value: str) -> None:
        """Note something unless there is a note of that name."""
        self._session.change(statements.ADD_NOTE, name=name, value=value)


def find(session: Session, digest: Digest) -> list[FileRecord]:
    """Return all files under a digest, first owner first, expired ones included."""
    return [FileRecord(*row) for row in session.all(statements.FIND, digest=digest)]


def removals_of(session: Session, digests: Iterable[Digest]) -> dict[Digest, Removal]:
    """Return what is decided on these blobs, by digest; nothing for those that are not to go."""
    found = {}
    for asked in asked_together(digests):
        for name, sent_at, age in session.all(statements.REMOVALS_OF, **asked):
            found[Digest(name)] = Removal(Digest(name), sent_at, age)
    return found


def asked_together(digests: Iterable[Digest]) -> Iterator[dict[str, Digest]]:
    """Give the parameters of statements that ask for many digests: each of them once, and all there are."""
    count = statements.ASKED_AT_ONCE
    rest = list(dict.fromkeys(digests))
    while rest:
        asked, rest = rest[:count], rest[count:]
        # asked for again where there are fewer
        asked += asked[:1] * (count - len(asked))
        yield {f"digest{number}": digest for number, digest in enumerate(asked)}


def find_upload(session: Session, upload_id: str) -> UploadRecord | None:
    """Return an upload, None where there is none."""
    row = session.one(statements.FIND_UPLOAD, id=upload_id)
    return None if row is None else UploadRecord(*row)


def under_way(session: Session, owner: str | None) -> tuple[int, int]:
    """Return how many uploads of an owner, or of all (None), are not complete, and how many bytes of them are there."""
    if owner is None:
        count, size = session.one(statements.ALL_UNDER_WAY) or (0, 0)
    else:
        count, size = session.one(statements.UNDER_WAY, owner=owner) or (0, 0)
    return count, size


def bytes_of(session: Session, owner: str, now: int) -> int:
    """Return how many bytes an owner keeps, what has expired at ``now`` (milliseconds since 1970) left out."""
    _, kept = session.one(statements.USAGE_OF, owner=owner) or (0, 0)
    (expired,) = session.one(statements.EXPIRED_BYTES, owner=owner, now=now) or (0,)
    return int(kept - expired)


def _row(file: FileRecord) -> dict[str, object]:
    return {**_values(file), "folded_name": folded(file.name)}


def _values(record: FileRecord | TokenRecord | UploadRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__}
