"""The catalogue: each query once, over SQLAlchemy Core."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from filestored.catalogue import schema
from filestored.catalogue.records import FileRecord
from filestored.catalogue.tables import files, removals
from filestored.digest import Digest
from filestored.errors import StartError

BUSY_TIMEOUT_SECONDS = 10
_CHECKPOINT_EVERY_PAGES = 4000
_MAX_WAL_BYTES = 32 << 20
_WAL_LOOKED_AT_EVERY = 64


class _Prepared:
    """A Core statement compiled once and run on the driver's own cursor: 8 µs where Core takes 55."""

    def __init__(self, statement: sa.sql.ClauseElement) -> None:
        self._sql = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))

    def run(self, cursor: sqlite3.Cursor, **values: object) -> sqlite3.Cursor:
        return cursor.execute(self._sql, values)


def _parameters(table: sa.Table) -> dict[str, sa.BindParameter[Any]]:
    return {column.name: sa.bindparam(column.name) for column in table.columns}


_digest: sa.BindParameter[str] = sa.bindparam("digest")
_owner: sa.BindParameter[str] = sa.bindparam("owner")
_FIND = _Prepared(sa.select(files).where(files.c.digest == _digest).order_by(files.c.created_at, files.c.owner))
_FIND_OWN = _Prepared(sa.select(files).where(files.c.digest == _digest, files.c.owner == _owner))
_INSERT = _Prepared(sa.insert(files).values(_parameters(files)))
_UPDATE = _Prepared(
    sa.update(files)
    .where(files.c.digest == _digest, files.c.owner == _owner)
    .values({name: sa.bindparam(name) for name in ("name", "media_type", "size", "created_at", "expires_at")})
)
_DELETE_ALL = _Prepared(sa.delete(files).where(files.c.digest == _digest).returning(*files.c))
_DELETE_OWN = _Prepared(sa.delete(files).where(files.c.digest == _digest, files.c.owner == _owner).returning(*files.c))
_IS_KEPT = _Prepared(sa.select(files.c.owner).where(files.c.digest == _digest))
_ADD_REMOVAL = _Prepared(sqlite.insert(removals).values(digest=_digest).on_conflict_do_nothing())
_TAKE_REMOVALS = _Prepared(sa.delete(removals).returning(removals.c.digest))


class Transaction:
    """A write transaction, and the lock between publishing and removing blobs. See :meth:`Catalogue.transaction`."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def find(self, digest: Digest) -> list[FileRecord]:
        """Return all files under a digest, first owner first, expired ones included."""
        return _find(self._cursor, digest)

    def find_own(self, digest: Digest, owner: str) -> FileRecord | None:
        """Return an owner's file, expired or not."""
        row = _FIND_OWN.run(self._cursor, digest=digest, owner=owner).fetchone()
        return None if row is None else FileRecord(*row)

    def insert(self, file: FileRecord) -> None:
        """Add a file its owner does not have yet."""
        _INSERT.run(self._cursor, **_row(file))

    def update(self, file: FileRecord) -> None:
        """Replace the file that this owner has under this digest."""
        _UPDATE.run(self._cursor, **_row(file))

    def delete(self, digest: Digest, owner: str | None) -> list[FileRecord]:
        """Delete an owner's file, or everybody's where ``owner`` is None; return what was deleted."""
        if owner is None:
            rows = _DELETE_ALL.run(self._cursor, digest=digest).fetchall()
        else:
            rows = _DELETE_OWN.run(self._cursor, digest=digest, owner=owner).fetchall()
        return [FileRecord(*row) for row in rows]

    def is_kept(self, digest: Digest) -> bool:
        """Tell whether any owner has a file under a digest."""
        return _IS_KEPT.run(self._cursor, digest=digest).fetchone() is not None

    def add_removal(self, digest: Digest) -> None:
        """Decide that a blob is to go. Whoever carries it out looks again whether it is kept by then."""
        _ADD_REMOVAL.run(self._cursor, digest=digest)

    def take_removals(self) -> list[Digest]:
        """Return the blobs whose removal is decided; with this transaction they are no longer noted as such."""
        return [row[0] for row in _TAKE_REMOVALS.run(self._cursor).fetchall()]


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
        reader: sqlite3.Cursor | None = getattr(self._readers, "cursor", None)
        if reader is None:
            reader = self._readers.cursor = _driver_connection(self._engine).cursor()
        return _find(reader, digest)

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
                yield Transaction(cursor)
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

    def reuse_wal(self) -> None:
        """Fold the write-ahead log into the database, so that what follows overwrites it instead of adding to it.

        Does what it can: the next transaction will show whether there is room.
        """
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(RESTART)")

    @staticmethod
    def prepare(path: Path) -> None:
        """Create or migrate the catalogue at ``path``. Raises StartError where it cannot be used."""
        try:
            engine = _engine(path, "FULL")
            try:
                schema.upgrade(engine, str(path))
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


def _find(cursor: sqlite3.Cursor, digest: Digest) -> list[FileRecord]:
    return [FileRecord(*row) for row in _FIND.run(cursor, digest=digest)]


def _row(file: FileRecord) -> dict[str, object]:
    return {name: getattr(file, name) for name in FileRecord.__slots__}


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
