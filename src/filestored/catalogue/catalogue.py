"""The catalogue: what can be asked of it, and the transactions in which it is changed."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from filestored.catalogue import sqlite, statements
from filestored.catalogue.address import Address
from filestored.catalogue.database import Database
from filestored.catalogue.listing import Page, Query, read_page
from filestored.catalogue.records import DaemonRecord, FileRecord, Removal, TokenRecord, UploadRecord, Usage
from filestored.catalogue.transaction import (
    Transaction,
    asked_together,
    bytes_of,
    find,
    find_upload,
    removals_of,
    under_way,
)
from filestored.digest import Digest


class Catalogue:
    """Who keeps which blob, in a database. What goes wrong with that is a CatalogueError.

    Reads may come from any thread; write transactions from one at a time. Other processes may do the same.
    """

    def __init__(self, where: Address, *, durable: bool) -> None:
        """Open the catalogue; ``durable`` commits survive a power cut, others at least a crash of the program."""
        self._database = _open(where, durable=durable)
        self.is_shared = not isinstance(where, Path)
        """Whether several daemons may keep it."""

    def close(self) -> None:
        """Close the connections, but for those that other threads read by from a file."""
        self._database.close()

    def require_usable(self) -> None:
        """Raise CatalogueError where it does not answer, or is not the catalogue any more."""
        self._database.require_in_place()
        self.find(Digest("0" * 64))

    def find(self, digest: Digest) -> list[FileRecord]:
        """Return all files under a digest, first owner first, expired ones included."""
        return find(self._database.reads, digest)

    def find_all(self, digests: list[Digest]) -> dict[Digest, list[FileRecord]]:
        """Return the files of many digests, by digest, first owner first, expired ones included."""
        found: dict[Digest, list[FileRecord]] = {}
        for asked in asked_together(digests):
            for row in self._database.reads.all(statements.FIND_ALL, **asked):
                file = FileRecord(*row)
                found.setdefault(file.digest, []).append(file)
        return found

    def read_page(self, query: Query, owner: str | None, now: int) -> Page:
        """Return a page of an owner's files, or of all owners' (None), but for what has expired at ``now``."""
        return read_page(self._database.reads, query, owner, now)

    def bytes_of(self, owner: str, now: int) -> int:
        """Return how many bytes an owner keeps, what has expired at ``now`` left out."""
        return bytes_of(self._database.reads, owner, now)

    def largest_of(self, owner: str) -> int:
        """Return the size of the largest file an owner has, in bytes; 0 for none."""
        row = self._database.reads.one(statements.LARGEST, owner=owner)
        return (row and row[0]) or 0

    def has_size(self, owner: str, size: int) -> bool:
        """Tell whether an owner has a file of exactly ``size`` bytes."""
        return self._database.reads.one(statements.HAS_SIZE, owner=owner, size=size) is not None

    def usage(self, owner: str | None) -> Usage:
        """Return how much an owner keeps, or all owners together (None)."""
        reads = self._database.reads
        if owner is not None:
            count, size = reads.one(statements.USAGE_OF, owner=owner) or (0, 0)
            return Usage(count, count, size)
        blobs, size = reads.one(statements.TOTALS) or (0, 0)
        (count,) = reads.one(statements.ALL_FILES) or (0,)
        return Usage(count, blobs, size)

    def counts_agree(self) -> bool:
        """Tell whether what is kept is counted as the files themselves say. Reads all of them; holds nobody up."""
        with self._database.snapshot() as session:
            known = set(session.all(statements.KNOWN_USAGE))
            counted = set(session.all(statements.COUNTED_USAGE))
            totals = [session.one(statement) for statement in (statements.TOTALS, statements.COUNTED_TOTALS)]
        return known == counted and totals[0] == totals[1]

    def has_expired(self, now: int) -> bool:
        """Tell whether there is any file that has ended at ``now`` (milliseconds since 1970)."""
        return self._database.reads.one(statements.EXPIRED, now=now, limit=1) is not None

    def live_digests(self, start: str, stop: str, now: int) -> dict[Digest, int]:
        """Return the digests from ``start`` up to ``stop`` that files name, and the size of each in bytes."""
        rows = self._database.reads.all(statements.DIGESTS, start=start, stop=stop, now=now)
        return dict(rows)

    def is_going(self, digest: Digest) -> bool:
        """Tell whether it is decided that a blob is to go."""
        return self._database.reads.one(statements.IS_GOING, digest=digest) is not None

    def removals_of(self, digests: Iterable[Digest]) -> dict[Digest, Removal]:
        """Return what is decided on these blobs, by digest; nothing for those that are not to go."""
        return removals_of(self._database.reads, digests)

    def has_due_removals(self, age: int) -> bool:
        """Tell whether a bucket is to be asked to remove anything, and was not within ``age`` milliseconds."""
        return self._database.reads.one(statements.DUE_REMOVALS, age=age) is not None

    def find_upload(self, upload_id: str) -> UploadRecord | None:
        """Return a resumable upload, None where there is none."""
        return find_upload(self._database.reads, upload_id)

    def uploads_under_way(self, owner: str | None) -> tuple[int, int]:
        """Return how many uploads of an owner, or of all (None), are not complete, and how many bytes are there."""
        return under_way(self._database.reads, owner)

    def ended_uploads(self, now: int, limit: int) -> list[UploadRecord]:
        """Return the uploads that ended first, of those whose time is over at ``now`` (milliseconds since 1970)."""
        return [UploadRecord(*row) for row in self._database.reads.all(statements.ENDED_UPLOADS, now=now, limit=limit)]

    def ended_uploads_of(self, daemon: str, now: int, limit: int) -> list[UploadRecord]:
        """Return those of them whose bytes lie with one daemon, and those of which nobody knows with whom."""
        rows = self._database.reads.all(statements.ENDED_UPLOADS_OF, daemon=daemon, now=now, limit=limit)
        return [UploadRecord(*row) for row in rows]

    def lost_uploads(self, silent: int, now: int, limit: int) -> list[UploadRecord]:
        """Return those of them whose daemon has not been heard of for ``silent`` milliseconds, or is known no more."""
        rows = self._database.reads.all(
            statements.LOST_UPLOADS, seen_before=self.clock() - silent, now=now, limit=limit
        )
        return [UploadRecord(*row) for row in rows]

    # what several daemons know of each other: each call is a change by itself, and may come from any thread

    def clock(self) -> int:
        """Return what the database's clock says, in milliseconds since 1970: the one that all daemons go by."""
        row = self._database.reads.one(statements.CLOCK)
        assert row is not None
        return int(row[0])

    def renew_daemon(self, daemon: str, url: str, incarnation: str, away: int) -> bool:
        """Note that a daemon is there at this moment, and where the others reach it.

        False, and nothing is noted, where another incarnation of it was heard of within the last ``away`` milliseconds.
        """
        values = {"id": daemon, "url": url, "incarnation": incarnation, "away": away}
        return self._database.reads.change(statements.RENEW_DAEMON, **values) > 0

    def remove_daemon(self, daemon: str, incarnation: str) -> None:
        """Forget an incarnation of a daemon."""
        self._database.reads.change(statements.REMOVE_DAEMON, id=daemon, incarnation=incarnation)

    def forget_daemons(self, silent: int) -> None:
        """Forget the daemons that have not been heard of for ``silent`` milliseconds."""
        self._database.reads.change(statements.FORGET_DAEMONS, milliseconds=silent)

    def daemons(self) -> list[DaemonRecord]:
        """Return all daemons that are known."""
        return [DaemonRecord(*row) for row in self._database.reads.all(statements.DAEMONS)]

    def take_lease(self, name: str, holder: str, milliseconds: int) -> bool:
        """Take what only one may do, or go on with it, for so long from now on; False where another has it."""
        taken = self._database.reads.change(statements.TAKE_LEASE, name=name, holder=holder, milliseconds=milliseconds)
        return taken > 0

    def lease_holder(self, name: str) -> str | None:
        """Return who has it, None where nobody does."""
        row = self._database.reads.one(statements.LEASE_HOLDER, name=name)
        return None if row is None else row[0]

    def give_lease(self, name: str, holder: str) -> None:
        """Give back what was taken, if it is still one's own."""
        self._database.reads.change(statements.GIVE_LEASE, name=name, holder=holder)

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens, by name."""
        return [TokenRecord(*row) for row in self._database.reads.all(statements.TOKENS)]

    def note(self, name: str) -> str | None:
        """Return what is noted under a name."""
        row = self._database.reads.one(statements.NOTE, name=name)
        return None if row is None else row[0]

    @contextlib.contextmanager
    def transaction(
        self, names: Iterable[str] = (), *, flushed: bool = True, alone: bool = False, must_last: bool = False
    ) -> Iterator[Transaction]:
        """Run a write transaction, which is undone by an exception.

        It holds the locks of ``names``, which whoever else changes the same waits for: the digests whose files or
        blobs it changes, and what :class:`~filestored.changes.Change` names besides. With ``alone`` nobody else writes
        at all, as in an SQLite file in any case. ``flushed=False`` commits without waiting for the disk, for what a
        restart would do again anyway; ``must_last`` waits for it even where commits are not durable otherwise.
        """
        with self._database.transaction(names, flushed=flushed, alone=alone, must_last=must_last) as session:
            transaction = Transaction(session, is_shared=self.is_shared)
            yield transaction
            transaction.finish()

    def limit_wal(self) -> None:
        """Fold a write-ahead log that readers have kept from being folded, and so grew, into the database."""
        self._database.limit_log()

    def give_back_wal(self) -> bool:
        """Fold the write-ahead log into the database and cut it; tell whether that has made it shorter."""
        return self._database.give_back_log()

    def is_wal_worth_giving_back(self) -> bool:
        """Tell whether the write-ahead log is long enough for its space to matter."""
        return self._database.is_log_worth_giving_back()

    def reuse_wal(self) -> None:
        """Fold the write-ahead log into the database, so that what follows overwrites it instead of adding to it.

        Does what it can: the next transaction will show whether there is room.
        """
        self._database.reuse_log()

    @staticmethod
    def prepare(where: Address, *, may_change: bool = True) -> bool:
        """Create or migrate the catalogue; tell whether it was made anew, out of nothing.

        Raises StartError where it cannot be used, or would have to be changed but ``may_change`` forbids it.
        """
        if isinstance(where, Path):
            return sqlite.prepare(where, may_change=may_change)
        from filestored.catalogue import postgresql

        return postgresql.prepare(where, may_change=may_change)


def _open(where: Address, *, durable: bool) -> Database:
    if isinstance(where, Path):
        return sqlite.SqliteDatabase(where, durable=durable)
    # only here: a store with a file needs no psycopg
    from filestored.catalogue.postgresql import PostgresDatabase

    return PostgresDatabase(where, durable=durable)
