"""A write transaction: what can be changed in the catalogue, and the lock between publishing and removing blobs."""

import sqlite3

from filestored.catalogue import statements
from filestored.catalogue.records import FileRecord, TokenRecord, UploadRecord, folded
from filestored.digest import Digest


class Transaction:
    """A write transaction, and the lock between publishing and removing blobs. Made by ``Catalogue.transaction``.

    What changes how much an owner keeps is gathered and written once, at the end.
    """

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._gained: dict[str, tuple[int, int]] = {}
        self._blobs_gained = (0, 0)

    # files

    def find(self, digest: Digest) -> list[FileRecord]:
        """Return all files under a digest, first owner first, expired ones included."""
        return find(self._cursor, digest)

    def insert(self, file: FileRecord, *, is_first: bool) -> None:
        """Add a file its owner does not have yet; ``is_first`` where nobody has one under this digest."""
        statements.INSERT.run(self._cursor, **_row(file))
        self._gain(file.owner, 1, file.size)
        if is_first:
            self._gain_blob(1, file.size)

    def update(self, file: FileRecord) -> None:
        """Replace the file that this owner has under this digest; its size is what it was."""
        statements.UPDATE.run(self._cursor, **_row(file))

    def delete(self, files: list[FileRecord], *, are_last: bool) -> None:
        """Delete files of one digest; ``are_last`` where nobody else has one."""
        for file in files:
            statements.DELETE.run(self._cursor, digest=file.digest, owner=file.owner)
            self._gain(file.owner, -1, -file.size)
        if files and are_last:
            self._gain_blob(-1, -max(file.size for file in files))

    def is_named(self, digest: Digest) -> bool:
        """Tell whether there is any file under a digest."""
        return statements.IS_NAMED.run(self._cursor, digest=digest).fetchone() is not None

    def expired(self, now: int, limit: int) -> list[FileRecord]:
        """Return the files that ended first, of those that have ended at ``now`` (milliseconds since 1970)."""
        return [FileRecord(*row) for row in statements.EXPIRED.run(self._cursor, now=now, limit=limit)]

    # removals

    def add_removal(self, digest: Digest) -> None:
        """Decide that a blob is to go. Whoever carries it out looks again whether it is kept by then."""
        statements.ADD_REMOVAL.run(self._cursor, digest=digest)

    def is_going(self, digest: Digest) -> bool:
        """Tell whether it is decided that a blob is to go."""
        return statements.IS_GOING.run(self._cursor, digest=digest).fetchone() is not None

    def take_removals(self) -> list[Digest]:
        """Return the blobs whose removal is decided; with this transaction they are no longer noted as such."""
        return [row[0] for row in statements.TAKE_REMOVALS.run(self._cursor).fetchall()]

    # how much is kept

    def bytes_of(self, owner: str, now: int) -> int:
        """Return how many bytes an owner keeps, what has expired at ``now`` left out."""
        return bytes_of(self._cursor, owner, now) + self._gained.get(owner, (0, 0))[1]

    def count_anew(self) -> None:
        """Count how much is kept from the files themselves."""
        self._write_gains()
        statements.FORGET_USAGE.run(self._cursor)
        statements.COUNT_USAGE.run(self._cursor)
        statements.COUNT_TOTALS.run(self._cursor)

    def _gain(self, owner: str, files: int, size: int) -> None:
        known = self._gained.get(owner, (0, 0))
        self._gained[owner] = (known[0] + files, known[1] + size)

    def _gain_blob(self, blobs: int, size: int) -> None:
        self._blobs_gained = (self._blobs_gained[0] + blobs, self._blobs_gained[1] + size)

    def _write_gains(self) -> None:
        for owner, (count, size) in self._gained.items():
            statements.ADD_USAGE.run(self._cursor, owner=owner, files=count, bytes=size)
        blobs, size = self._blobs_gained
        if blobs or size:
            statements.ADD_TOTALS.run(self._cursor, more_blobs=blobs, more_bytes=size)
        self._gained, self._blobs_gained = {}, (0, 0)

    def finish(self) -> None:
        """Write what was gathered. The catalogue calls it before it commits."""
        self._write_gains()

    # resumable uploads

    def find_upload(self, upload_id: str) -> UploadRecord | None:
        """Return an upload, None where there is none."""
        return find_upload(self._cursor, upload_id)

    def add_upload(self, upload: UploadRecord) -> None:
        """Add an upload."""
        statements.ADD_UPLOAD.run(self._cursor, **_values(upload))

    def change_upload(self, upload: UploadRecord) -> None:
        """Replace what may change of an upload: length, offset, what came of it and when it ends."""
        statements.CHANGE_UPLOAD.run(self._cursor, **_values(upload))

    def remove_upload(self, upload_id: str) -> bool:
        """Remove an upload; False where there is none."""
        return statements.REMOVE_UPLOAD.run(self._cursor, id=upload_id).rowcount > 0

    def uploads_under_way(self, owner: str) -> tuple[int, int]:
        """Return how many uploads of an owner are not complete, and how many bytes of them are there."""
        return under_way(self._cursor, owner)

    # tokens and notes

    def add_token(self, token: TokenRecord) -> bool:
        """Add a token; False where one of that name is there."""
        return statements.ADD_TOKEN.run(self._cursor, **_values(token)).rowcount > 0

    def remove_token(self, name: str) -> bool:
        """Remove a token; False where there is none of that name."""
        return statements.REMOVE_TOKEN.run(self._cursor, name=name).rowcount > 0

    def set_note(self, name: str, value: str) -> None:
        """Note something, in place of what was noted under that name."""
        statements.SET_NOTE.run(self._cursor, name=name, value=value)

    def add_note(self, name: str, value: str) -> None:
        """Note something unless there is a note of that name."""
        statements.ADD_NOTE.run(self._cursor, name=name, value=value)


def find(cursor: sqlite3.Cursor, digest: Digest) -> list[FileRecord]:
    """Return all files under a digest, first owner first, expired ones included."""
    return [FileRecord(*row) for row in statements.FIND.run(cursor, digest=digest)]


def find_upload(cursor: sqlite3.Cursor, upload_id: str) -> UploadRecord | None:
    """Return an upload, None where there is none."""
    row = statements.FIND_UPLOAD.run(cursor, id=upload_id).fetchone()
    return None if row is None else UploadRecord(*row)


def under_way(cursor: sqlite3.Cursor, owner: str | None) -> tuple[int, int]:
    """Return how many uploads of an owner, or of all (None), are not complete, and how many bytes of them are there."""
    asked = statements.ALL_UNDER_WAY.run(cursor) if owner is None else statements.UNDER_WAY.run(cursor, owner=owner)
    count, size = asked.fetchone()
    return count, size


def bytes_of(cursor: sqlite3.Cursor, owner: str, now: int) -> int:
    """Return how many bytes an owner keeps, what has expired at ``now`` (milliseconds since 1970) left out."""
    kept: int = (statements.USAGE_OF.run(cursor, owner=owner).fetchone() or (0, 0))[1]
    expired: int = statements.EXPIRED_BYTES.run(cursor, owner=owner, now=now).fetchone()[0]
    return kept - expired


def _row(file: FileRecord) -> dict[str, object]:
    return {**_values(file), "folded_name": folded(file.name)}


def _values(record: FileRecord | TokenRecord | UploadRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__}
