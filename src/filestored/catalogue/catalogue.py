"""The catalogue: what can be asked of it, and the transactions in which it is changed."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from filestored.catalogue import schema, statements
from filestored.catalogue.listing import Page, Query, read_page
from filestored.catalogue.records import FileRecord, TokenRecord, UploadRecord, Usage
from filestored.catalogue.transaction import Transaction, bytes_of, find, find_upload, under_way
from filestored.digest import Digest
from filestored.errors import StartError

BUSY_TIMEOUT_SECONDS = 10
_CHECKPOINT_EVERY_PAGES = 4000
_MAX_WAL_BYTES = 32 << 20
_WAL_LOOKED_AT_EVERY = 64
_WORTH_GIVING_BACK_BYTES = 256 * 1024


class Catalogue:
    """Who keeps which blob, in an SQLite file.

    Reads may come from any thread; write transactions from one at a time. Other processes may do the same.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open the catalogue; ``durable`` commits survive a power cut, others at least a crash of the program."""
        self._synchronous = "FULL" if durable else "NORMAL"
        self._wal = path.with_name(f"{path.name}-wal")
        self._commits = 0
        self._engine = _engine(path, self._synchronous)
        self._writer: sqlite3.Connection = _driver_connection(self._engine)
        self._readers = threading.local()

    def close(self) -> None:
        """Close all connections of the calling thread and the pool's."""
        self._writer.close()
        self._engine.dispose()

    def find(self, digest: Digest) -> list[FileRecord]:
        """Return all files under a digest, first owner first, expired ones included."""
        return find(self._reader(), digest)

    def find_all(self, digests: list[Digest]) -> dict[Digest, list[FileRecord]]:
        """Return the files of many digests, by digest, first owner first, expired ones included."""
        found: dict[Digest, list[FileRecord]] = {}
        count = statements.ASKED_AT_ONCE
        for start in range(0, len(digests), count):
            asked = digests[start : start + count]
            # asked for again where there are fewer
            asked += asked[:1] * (count - len(asked))
            names = {f"digest{number}": digest for number, digest in enumerate(asked)}
            for row in statements.FIND_ALL.run(self._reader(), **names):
                file = FileRecord(*row)
                found.setdefault(file.digest, []).append(file)
        return found

    def read_page(self, query: Query, owner: str | None, now: int) -> Page:
        """Return a page of an owner's files, or of all owners' (None), but for what has expired at ``now``."""
        return read_page(self._reader().connection, query, owner, now)

    def bytes_of(self, owner: str, now: int) -> int:
        """Return how many bytes an owner keeps, what has expired at ``now`` left out."""
        return bytes_of(self._reader(), owner, now)

    def largest_of(self, owner: str) -> int:
        """Return the size of the largest file an owner has, in bytes; 0 for none."""
        return statements.LARGEST.run(self._reader(), owner=owner).fetchone()[0] or 0

    def has_size(self, owner: str, size: int) -> bool:
        """Tell whether an owner has a file of exactly ``size`` bytes."""
        return statements.HAS_SIZE.run(self._reader(), owner=owner, size=size).fetchone() is not None

    def usage(self, owner: str | None) -> Usage:
        """Return how much an owner keeps, or all owners together (None)."""
        reader = self._reader()
        if owner is not None:
            count, size = statements.USAGE_OF.run(reader, owner=owner).fetchone() or (0, 0)
            return Usage(count, count, size)
        blobs, size = statements.TOTALS.run(reader).fetchone()
        return Usage(statements.ALL_FILES.run(reader).fetchone()[0], blobs, size)

    def counts_agree(self) -> bool:
        """Tell whether what is kept is counted as the files themselves say. Reads all of them; holds nobody up."""
        reader = self._reader()
        reader.execute("BEGIN")
        try:
            known, counted = (
                set(statement.run(reader).fetchall())
                for statement in (statements.KNOWN_USAGE, statements.COUNTED_USAGE)
            )
            totals = [statement.run(reader).fetchone() for statement in (statements.TOTALS, statements.COUNTED_TOTALS)]
        finally:
            reader.execute("COMMIT")
        return known == counted and totals[0] == totals[1]

    def live_digests(self, start: str, stop: str, now: int) -> dict[Digest, int]:
        """Return the digests from ``start`` up to ``stop`` that files name, and the size of each in bytes."""
        return dict(statements.DIGESTS.run(self._reader(), start=start, stop=stop, now=now).fetchall())

    def is_going(self, digest: Digest) -> bool:
        """Tell whether it is decided that a blob is to go."""
        return statements.IS_GOING.run(self._reader(), digest=digest).fetchone() is not None

    def find_upload(self, upload_id: str) -> UploadRecord | None:
        """Return a resumable upload, None where there is none."""
        return find_upload(self._reader(), upload_id)

    def uploads_under_way(self, owner: str | None) -> tuple[int, int]:
        """Return how many uploads of an owner, or of all (None), are not complete, and how many bytes are there."""
        return under_way(self._reader(), owner)

    def ended_uploads(self, now: int, limit: int) -> list[UploadRecord]:
        """Return the uploads that ended first, of those whose time is over at ``now`` (milliseconds since 1970)."""
        return [UploadRecord(*row) for row in statements.ENDED_UPLOADS.run(self._reader(), now=now, limit=limit)]

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens, by name."""
        return [TokenRecord(*row) for row in statements.TOKENS.run(self._reader())]

    def note(self, name: str) -> str | None:
        """Return what is noted under a name."""
        row = statements.NOTE.run(self._reader(), name=name).fetchone()
        return None if row is None else row[0]

    def _reader(self) -> sqlite3.Cursor:
        """Return this thread's own cursor for reading."""
        reader: sqlite3.Cursor | None = getattr(self._readers, "cursor", None)
        if reader is None:
            reader = self._readers.cursor = _driver_connection(self._engine).cursor()
        return reader

    @contextlib.contextmanager
    def transaction(self, *, flushed: bool = True) -> Iterator[Transaction]:
        """Run a write transaction: it alone writes, in all processes, and is undone by an exception.

        ``flushed=False`` commits without waiting for the disk, for what a restart would do again anyway.
        """
        writer = self._writer
        cursor = writer.cursor()
        if not flushed:
            cursor.execute("PRAGMA synchronous=NORMAL")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(cursor)
                yield transaction
                transaction.finish()
                cursor.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
        finally:
            if not flushed:
                cursor.execute(f"PRAGMA synchronous={self._synchronous}")
            cursor.close()

    def limit_wal(self) -> None:
        """Fold a write-ahead log that readers have kept from being folded, and so grew, into the database."""
        self._commits += 1
        if self._commits % _WAL_LOOKED_AT_EVERY:
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if self._wal.stat().st_size > _MAX_WAL_BYTES:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def give_back_wal(self) -> bool:
        """Fold the write-ahead log into the database and cut it; tell whether that has made it shorter."""
        with contextlib.suppress(OSError, sqlite3.Error):
            before = self._wal.stat().st_size
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return self._wal.stat().st_size < before
        return False

    def is_wal_worth_giving_back(self) -> bool:
        """Tell whether the write-ahead log is long enough for its space to matter."""
        with contextlib.suppress(OSError):
            return self._wal.stat().st_size >= _WORTH_GIVING_BACK_BYTES
        return False

    def reuse_wal(self) -> None:
        """Fold the write-ahead log into the database, so that what follows overwrites it instead of adding to it.

        Does what it can: the next transaction will show whether there is room.
        """
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(RESTART)")

    @staticmethod
    def prepare(path: Path, *, may_change: bool = True) -> None:
        """Create or migrate the catalogue at ``path``.

        Raises StartError where it cannot be used, or would have to be changed but ``may_change`` forbids it.
        """
        try:
            engine = _engine(path, "FULL")
            try:
                schema.upgrade(engine, str(path), may_change=may_change)
            finally:
                engine.dispose()
        except (DBAPIError, sqlite3.Error) as error:
            reason = getattr(error, "orig", error)
            raise StartError(f"the catalogue {path} cannot be used: {reason}") from error


def is_catalogue_full(error: BaseException) -> bool:
    """Tell whether the database failed because the disk has no room left."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's code for an error, without the details it adds; None for errors that are not its own."""
    code: int | None = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return None if code is None else code & 0xFF


def _engine(path: Path, synchronous: str) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        poolclass=sa.pool.NullPool,
    )

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            # NORMAL keeps the database whole through a power cut and may lose the last commits; FULL loses none
            f"synchronous={synchronous}",
            f"wal_autocheckpoint={_CHECKPOINT_EVERY_PAGES}",
            "cache_size=-8192",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _driver_connection(engine: sa.Engine) -> sqlite3.Connection:
    fairy = engine.raw_connection()
    connection: sqlite3.Connection = fairy.dbapi_connection  # type: ignore[assignment]
    fairy.detach()
    return connection
