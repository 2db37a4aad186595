"""The catalogue in an SQLite file: connections, transactions, errors."""

import contextlib
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from filestored.catalogue import schema
from filestored.catalogue.database import Row
from filestored.catalogue.statements import Prepared
from filestored.errors import (
    CatalogueBusy,
    CatalogueError,
    CatalogueFault,
    CatalogueFull,
    CatalogueMissing,
    StartError,
)

BUSY_TIMEOUT_SECONDS = 10

DAMAGED = ("malformed", "not a database")
"""What SQLite's words for a damaged file have in them."""

_CHECKPOINT_EVERY_PAGES = 4000
_MAX_WAL_BYTES = 32 << 20
_WAL_LOOKED_AT_EVERY = 64
_WORTH_GIVING_BACK_BYTES = 256 * 1024
_FLUSH_CODES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


class SqliteSession:
    """One connection. See Session, WriteSession."""

    slot = 1

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._cursor = connection.cursor()

    def all(self, statement: Prepared, **values: object) -> list[Row]:
        """See Session."""
        try:
            return self._run(statement, values).fetchall()
        except sqlite3.Error as error:
            raise explained(error) from error

    def one(self, statement: Prepared, **values: object) -> Row | None:
        """See Session."""
        # to the end, which is the first row: a statement that is not read to its end holds the log up
        rows = self.all(statement, **values)
        return rows[0] if rows else None

    def change(self, statement: Prepared, **values: object) -> int:
        """See Session."""
        try:
            return self._run(statement, values).rowcount
        except sqlite3.Error as error:
            raise explained(error) from error

    def _run(self, statement: Prepared, values: dict[str, object]) -> sqlite3.Cursor:
        compiled = statement.sqlite
        return self._cursor.execute(compiled.text, values | compiled.constants if compiled.constants else values)

    def execute(self, text: str) -> None:
        """Run what is SQLite's own: a pragma, the beginning or the end of a transaction."""
        try:
            self._cursor.execute(text)
        except sqlite3.Error as error:
            raise explained(error) from error

    def lock_now(self, names: Iterable[str]) -> list[str]:
        """See WriteSession: nobody else writes."""
        return list(names)


class _Reader(threading.local):
    """Each thread's own session for reading."""

    session: SqliteSession | None = None


class SqliteDatabase:
    """An SQLite file. See Database."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """``durable`` commits survive a power cut, others at least a crash of the program."""
        self._synchronous = "FULL" if durable else "NORMAL"
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._commits = 0
        self._engine = _engine(path, self._synchronous)
        self._writer = SqliteSession(_connect(self._engine))
        self._opened = self._named_file()
        self._reader = _Reader()

    @property
    def reads(self) -> SqliteSession:
        """See Database."""
        session = self._reader.session
        if session is None:
            # a connection would make a new one where there is none
            self.require_in_place()
            session = self._reader.session = SqliteSession(_connect(self._engine))
            # when the thread ends or the database goes: until then the thread may be reading
            weakref.finalize(session, session.connection.close).atexit = False
        return session

    def require_in_place(self) -> None:
        """See Database: what is written to a file without a name is lost with the last connection."""
        if self._named_file() != self._opened:
            raise CatalogueError(f"{self._path} was removed or replaced while it was in use; start the daemon anew")

    def _named_file(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close the connection that writes, and the pool."""
        self._writer.connection.close()
        self._engine.dispose()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[SqliteSession]:
        """See Database."""
        session = self.reads
        session.execute("BEGIN")
        try:
            yield session
        finally:
            session.execute("COMMIT")

    @contextlib.contextmanager
    def transaction(
        self, names: Iterable[str], *, flushed: bool, alone: bool, must_last: bool
    ) -> Iterator[SqliteSession]:
        """See Database: whatever is locked, it alone writes, in all processes."""
        self.require_in_place()
        writer = self._writer
        synchronous = "FULL" if must_last else self._synchronous if flushed else "NORMAL"
        if synchronous != self._synchronous:
            writer.execute(f"PRAGMA synchronous={synchronous}")
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                if writer.connection.in_transaction:
                    writer.execute("ROLLBACK")
                raise
        finally:
            if synchronous != self._synchronous:
                writer.execute(f"PRAGMA synchronous={self._synchronous}")

    def limit_log(self) -> None:
        """See Database."""
        self._commits += 1
        if self._commits % _WAL_LOOKED_AT_EVERY:
            return
        with contextlib.suppress(OSError, CatalogueError):
            if self._wal.stat().st_size > _MAX_WAL_BYTES:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def give_back_log(self) -> bool:
        """See Database."""
        with contextlib.suppress(OSError, CatalogueError):
            before = self._wal.stat().st_size
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return self._wal.stat().st_size < before
        return False

    def is_log_worth_giving_back(self) -> bool:
        """See Database."""
        with contextlib.suppress(OSError):
            return self._wal.stat().st_size >= _WORTH_GIVING_BACK_BYTES
        return False

    def reuse_log(self) -> None:
        """See Database."""
        with contextlib.suppress(CatalogueError):
            self._writer.execute("PRAGMA wal_checkpoint(RESTART)")


def prepare(path: Path, *, may_change: bool) -> bool:
    """See ``Catalogue.prepare``."""
    try:
        engine = _engine(path, "FULL")
        try:
            with engine.begin() as connection:
                return schema.upgrade(connection, str(path), may_change=may_change)
        finally:
            engine.dispose()
    except (DBAPIError, sqlite3.Error) as error:
        reason = str(getattr(error, "orig", error))
        mend = "; 'filestored doctor' says what to do" if any(word in reason for word in DAMAGED) else ""
        raise StartError(f"the catalogue {path} cannot be used: {reason}{mend}") from error


def find_damage(path: Path, seconds: float) -> str:
    """Return what is wrong with the pages of a catalogue's file; empty where nothing is, as far as was looked.

    Larger ones than can be read in that time are not looked at to their end. Raises CatalogueError where the file
    cannot be read.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        ending = threading.Timer(seconds, connection.interrupt)
        ending.daemon = True
        ending.start()
        try:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return ""
            raise explained(error) from error
        except sqlite3.DatabaseError as error:
            return str(error)
        finally:
            ending.cancel()
            ending.join()
    return "" if said == "ok" else " ".join(said.split())


def explained(error: sqlite3.Error) -> CatalogueError:
    """Turn what SQLite raises into the catalogue's own."""
    detailed: int | None = getattr(error, "sqlite_errorcode", None)
    reason = str(error)
    match None if detailed is None else detailed & 0xFF:
        case sqlite3.SQLITE_FULL:
            return CatalogueFull(reason)
        case sqlite3.SQLITE_BUSY:
            return CatalogueBusy(reason)
        case sqlite3.SQLITE_IOERR:
            return CatalogueFault(reason, is_flush=detailed in _FLUSH_CODES)
    return CatalogueMissing(reason) if "no such table" in reason else CatalogueError(reason)


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


def _connect(engine: sa.Engine) -> sqlite3.Connection:
    """Return a connection of the driver's own."""
    try:
        fairy = engine.raw_connection()
    except DBAPIError as error:
        raise explained(error.orig) if isinstance(error.orig, sqlite3.Error) else CatalogueError(str(error)) from error
    except sqlite3.Error as error:
        raise explained(error) from error
    connection: sqlite3.Connection = fairy.dbapi_connection  # type: ignore[assignment]
    fairy.detach()
    return connection
