"""The catalogue in a PostgreSQL database: connections, transactions, locks.

What SQLite's one writer is to a file, advisory locks are here: a write transaction holds those of the names it is about
(digests, uploads, owners), all taken at once and in one order, so that transactions about other names go on beside it.
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from filestored.catalogue import schema
from filestored.catalogue.address import PostgresAddress
from filestored.catalogue.connecting import (
    ANSWER_SECONDS,
    NoAnswer,
    PostgresConnection,
    Reach,
    can_be_kept,
    connect,
    explained,
    require_usable,
)
from filestored.catalogue.database import Row
from filestored.catalogue.statements import Prepared
from filestored.errors import CatalogueBusy, CatalogueConflict, CatalogueError, CatalogueUnavailable, StartError

READERS = 4
"""How many connections a process reads by, at most; it has one more for its write transactions."""

SLOTS = 16
"""How many rows of ``totals`` the processes share, so that they seldom wait for each other's."""

MANY_NAMES = 1000
"""For more names than these a transaction is alone: each takes a place in the server's table of locks."""

COMMIT_NOTE = "commit"
"""What the names of the notes begin with in which each process leaves word of its last commit."""

_OLD_WORDS_NANOSECONDS = 86_400 * 10**9
_OUTCOME_SECONDS = 10.0
_OUTCOME_LOOKED_AT_EVERY_SECONDS = 0.1
_TRIES = READERS + 2

T = TypeVar("T")


def _key(name: str) -> int:
    """Return the advisory lock of a name: 64 bits, which hardly any other program's are."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"filestored").digest()
    return int.from_bytes(digest, signed=True)


_EVERYTHING = _key("everything")
_MIGRATION = _key("migration")


class PostgresSession:
    """One connection. See Session, WriteSession."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.connection = connection
        self.transaction_id = ""
        """What the server calls the write transaction that runs."""
        self.slot = 1 + os.getpid() % SLOTS

    def all(self, statement: Prepared, **values: object) -> list[Row]:
        """See Session."""
        try:
            return self._run(statement, values).fetchall()
        except (psycopg.DataError, UnicodeEncodeError):
            if can_be_kept(values):
                raise
            # what cannot be kept is not there
            return []

    def one(self, statement: Prepared, **values: object) -> Row | None:
        """See Session."""
        rows = self.all(statement, **values)
        return rows[0] if rows else None

    def change(self, statement: Prepared, **values: object) -> int:
        """See Session."""
        return self._run(statement, values).rowcount

    def _run(self, statement: Prepared, values: dict[str, object]) -> psycopg.Cursor[Row]:
        compiled = statement.postgresql
        return self.connection.execute(compiled.text, values | compiled.constants)

    def lock_now(self, names: Iterable[str]) -> list[str]:
        """See WriteSession."""
        by_key = {_key(name): name for name in list(names)[:MANY_NAMES]}
        if not by_key:
            return []
        rows = self.connection.execute(
            "SELECT key FROM unnest(%s::bigint[]) AS key WHERE pg_try_advisory_xact_lock(key)", [list(by_key)]
        )
        return [by_key[key] for (key,) in rows]


class _Reads:
    """What reads: each statement by a connection of the pool, and once more where that was lost meanwhile."""

    def __init__(self, database: "PostgresDatabase") -> None:
        self._database = database

    def all(self, statement: Prepared, **values: object) -> list[Row]:
        """See Session."""
        return self._run(lambda session: session.all(statement, **values))

    def _run(self, work: Callable[[PostgresSession], T]) -> T:
        for tries_left in reversed(range(_TRIES)):
            with self._database.borrowed() as session:
                try:
                    return work(session)
                except psycopg.Error as error:
                    # the server was started anew since it was used last, and so all others of the pool may be lost
                    if not _is_lost(session.connection, error) or not tries_left:
                        raise self._database.explained(error) from error
        raise AssertionError

    def one(self, statement: Prepared, **values: object) -> Row | None:
        """See Session."""
        rows = self.all(statement, **values)
        return rows[0] if rows else None

    def change(self, statement: Prepared, **values: object) -> int:
        """See Session: a change by itself, which is made again where the answer was lost."""
        return self._run(lambda session: session.change(statement, **values))


class PostgresDatabase:
    """A PostgreSQL database. See Database. It connects when it is used first."""

    def __init__(self, address: PostgresAddress, *, durable: bool) -> None:
        """``durable`` commits survive a power cut of the server's machine."""
        self._address = address
        self._durable = durable
        self._reach = Reach(address)
        # what is lent longest ago may be closed by whatever lies between: the others are used first
        self._pool = QueuePool(
            self._connect,  # type: ignore[arg-type]
            pool_size=READERS, max_overflow=0, timeout=ANSWER_SECONDS, use_lifo=True, reset_on_return=None,
        )  # fmt: skip
        self._writer: PostgresConnection | None = None
        self._word = f"{COMMIT_NOTE} {secrets.token_hex(8)}"
        self.reads = _Reads(self)
        """See Database."""

    def _connect(self) -> PostgresConnection:
        return self._reach.connected(lambda: connect(self._address, durable=self._durable))

    def explained(self, error: psycopg.Error) -> CatalogueError:
        """Turn what psycopg raises into the catalogue's own; take note of a server that is silent."""
        if isinstance(error, NoAnswer):
            self._reach.note_silence()
        return explained(error)

    def require_in_place(self) -> None:
        """See Database: there is but one by its name."""

    def close(self) -> None:
        """See Database."""
        if self._writer is not None:
            with contextlib.suppress(psycopg.Error):
                self._writer.execute("DELETE FROM notes WHERE name = %s", [self._word])
            self._writer.close()
        self._pool.dispose()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[PostgresSession]:
        """Borrow a connection of the pool; one that is closed by the end is not given back."""
        lent = self._borrow()
        connection = cast(PostgresConnection, lent.dbapi_connection)
        try:
            yield PostgresSession(connection)
        finally:
            if connection.closed:
                lent.invalidate()
            lent.close()

    def _borrow(self) -> PoolProxiedConnection:
        try:
            return self._pool.connect()
        except sa.exc.TimeoutError as error:
            raise CatalogueBusy("all connections to the database are in use") from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[PostgresSession]:
        """See Database."""
        with self.borrowed() as session, _explaining():
            connection = session.connection
            connection.patience = None
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0")
                yield session
            finally:
                connection.patience = ANSWER_SECONDS
                _end(connection)

    @contextlib.contextmanager
    def transaction(
        self, names: Iterable[str], *, flushed: bool, alone: bool, must_last: bool
    ) -> Iterator[PostgresSession]:
        """See Database."""
        session = self._begin(_beginning(set(names), commit=self._commit_mode(flushed, must_last), alone=alone))
        connection = session.connection
        connection.patience = None if alone else ANSWER_SECONDS
        try:
            with _explaining(connection):
                yield session
            self._commit(session)
        finally:
            connection.patience = ANSWER_SECONDS
            _end(connection)

    def _commit_mode(self, flushed: bool, must_last: bool) -> str | None:
        """Return the ``synchronous_commit`` of a transaction; None for the connection's own, which may ask for more."""
        if must_last:
            return None if self._durable else "on"
        return None if flushed else "off"

    def _writing(self) -> PostgresConnection:
        """Return the connection that writes, a new one where it was lost."""
        if self._writer is None or self._writer.closed:
            self._writer = self._connect()
        return self._writer

    def _begin(self, beginning: str) -> PostgresSession:
        """Begin a transaction, and once more where the connection was lost since it was used last."""
        for tries_left in (1, 0):
            writer = self._writing()
            session = PostgresSession(writer)
            try:
                cursor = writer.execute(beginning, prepare=False)
                while cursor.nextset():
                    pass
                ((session.transaction_id,),) = cursor.fetchall()
                return session
            except psycopg.Error as error:
                is_lost = _is_lost(writer, error)
                _end(writer)
                if not is_lost:
                    raise self.explained(error) from error
                if not tries_left:
                    raise CatalogueConflict(explained(error).reason) from error
        raise AssertionError

    def _commit(self, session: PostgresSession) -> None:
        """Commit, and leave word of it in the same transaction: for when the answer is lost."""
        word = f"{session.transaction_id} {time.time_ns()}"
        try:
            cursor = session.connection.execute(
                f"INSERT INTO notes (name, value) VALUES ('{self._word}', '{word}') "  # noqa: S608
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value; COMMIT",
                prepare=False,
            )
            while cursor.nextset():
                pass
        except psycopg.Error as error:
            if not session.connection.closed:
                raise explained(error) from error
            self._settle(session.transaction_id, word, explained(error).reason)
            return
        if cursor.statusmessage != "COMMIT":
            raise CatalogueError("a transaction was undone in which something had failed")

    def _settle(self, transaction_id: str, word: str, reason: str) -> None:
        """Find out whether a transaction was committed that broke off while it was.

        Raises CatalogueConflict where it was not, CatalogueUnavailable where nobody knows.
        """
        deadline = time.monotonic() + _OUTCOME_SECONDS
        while time.monotonic() < deadline:
            match self._outcome(transaction_id, word):
                case "committed":
                    return
                case "aborted":
                    raise CatalogueConflict(reason)
                case "in progress":
                    time.sleep(_OUTCOME_LOOKED_AT_EVERY_SECONDS)
                case _:
                    break
        raise CatalogueUnavailable(f"whether the last change was kept is not known: {reason}")

    def _outcome(self, transaction_id: str, word: str) -> str | None:
        """Return what has become of a transaction: "committed", "aborted", "in progress"; None for nobody knows."""
        writer = self._writing()
        try:
            row = writer.execute("SELECT pg_xact_status(%s::text::xid8)", [transaction_id]).fetchone()
            status: str | None = row[0] if row else None
            if status == "committed":
                # a server that has crashed gives the ids once more that it had not written down: it may be another's
                row = writer.execute("SELECT value FROM notes WHERE name = %s", [self._word]).fetchone()
                return "committed" if row == (word,) else "aborted"
        except psycopg.Error:
            return "in progress" if writer.closed else None  # another server, perhaps, that has never heard of it
        return status

    def limit_log(self) -> None:
        """See Database: the server looks after its own."""

    def give_back_log(self) -> bool:
        """See Database."""
        return False

    def is_log_worth_giving_back(self) -> bool:
        """See Database."""
        return False

    def reuse_log(self) -> None:
        """See Database."""


def _beginning(names: set[str], *, commit: str | None, alone: bool) -> str:
    """Return the statements that begin a write transaction, sent in one go; the last gives its id."""
    steps = ["BEGIN"]
    if commit is not None:
        steps.append(f"SET LOCAL synchronous_commit = {commit}")
    if alone or len(names) > MANY_NAMES:
        # it has to wait for all that run
        steps.append("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        steps.append(f"SELECT pg_advisory_xact_lock({_EVERYTHING})")
    else:
        steps.append(f"SELECT pg_advisory_xact_lock_shared({_EVERYTHING})")
        # in one order for all, so that two never wait for each other
        keys = ",".join(str(key) for key in sorted(map(_key, names)))
        if keys:
            steps.append(f"SELECT pg_advisory_xact_lock(key) FROM unnest(ARRAY[{keys}]::bigint[]) AS key")  # noqa: S608
    steps.append("SELECT pg_current_xact_id()::text")
    return "; ".join(steps)


@contextlib.contextmanager
def _explaining(connection: PostgresConnection | None = None) -> Iterator[None]:
    """Turn what psycopg raises in a block into the catalogue's own errors.

    With a connection that was lost before anything was committed, what was done may be done again.
    """
    try:
        yield
    except psycopg.Error as error:
        if connection is not None and _is_lost(connection, error):
            raise CatalogueConflict(explained(error).reason) from error
        raise explained(error) from error
    except UnicodeEncodeError as error:
        raise CatalogueError(f"a text cannot be written: {error}") from error


def _is_lost(connection: PostgresConnection, error: psycopg.Error) -> bool:
    """Tell whether a connection is no more, for another reason than that the server is silent."""
    return connection.closed and not isinstance(error, NoAnswer)


def _end(connection: PostgresConnection) -> None:
    """Undo a transaction that is not over; close the connection where that cannot be done."""
    if connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()


def prepare(address: PostgresAddress, *, may_change: bool) -> bool:
    """See ``Catalogue.prepare``. Programs that start together do it one after the other."""
    try:
        with contextlib.closing(connect(address, durable=True)) as connection:
            require_usable(connection)
            # another program may be at a migration, however long that takes
            connection.patience = None
            connection.autocommit = False
            return _upgrade(connection, str(address), may_change=may_change)
    except (psycopg.Error, DBAPIError, UnicodeError) as error:
        raise StartError(f"the catalogue {address} cannot be used: {_reason(error)}") from None
    except CatalogueError as error:
        raise StartError(f"the catalogue {address} cannot be used: {error.reason}") from None


def _reason(error: Exception) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return " ".join((explained(origin).reason if isinstance(origin, psycopg.Error) else str(origin)).split())


def _upgrade(connection: PostgresConnection, shown_as: str, *, may_change: bool) -> bool:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=sa.pool.StaticPool)
    with engine.begin() as transaction:
        transaction.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        transaction.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION})")
        is_new = schema.upgrade(transaction, shown_as, may_change=may_change)
        # the words of processes that were killed
        transaction.exec_driver_sql(
            "DELETE FROM notes WHERE starts_with(name, %s) AND split_part(value, ' ', 2)::bigint < %s",
            (f"{COMMIT_NOTE} ", time.time_ns() - _OLD_WORDS_NANOSECONDS),
        )
    return is_new
