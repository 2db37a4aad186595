"""Reaching a PostgreSQL server: connections with bounds of time, what goes wrong with them, and how long that lasts."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import psycopg
from loguru import logger
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from filestored.catalogue.address import PostgresAddress
from filestored.catalogue.database import Row
from filestored.errors import (
    CatalogueBusy,
    CatalogueConflict,
    CatalogueError,
    CatalogueFault,
    CatalogueFull,
    CatalogueMissing,
    CatalogueUnavailable,
)

CONNECT_SECONDS = 3
"""How long the server may take to accept a connection."""

LOCK_SECONDS = 10
"""How long is waited for what somebody else has locked."""

STATEMENT_SECONDS = 12
"""How long a statement may take, waits for locks included, before the server breaks it off."""

ANSWER_SECONDS = 15.0
"""How long is waited for a server that should have answered by then, and may be frozen, or out of reach."""

PATIENCE_SECONDS = 5.0
"""For how long from the beginning of an outage requests wait for its end: a server that starts anew costs none."""

SILENT = "the server does not answer"
"""What is said of a server that accepts connections, or has, and then nothing comes."""

_PORT = 5432
_OLDEST_VERSION = 14
_QUOTED = re.compile(r"(['\"])([^'\"]+)\1")
_NOT_KEPT = re.compile("[\0\ud800-\udfff]")
_IDLE_IN_TRANSACTION_SECONDS = 120
_WAIT_INTERVAL_SECONDS = 0.1
_TRIED_AGAIN_AFTER_SECONDS = 0.2
_LOOKED_AGAIN_AFTER_SECONDS = 0.02
_TRIED_SELDOM_AFTER_SECONDS = 0.5

# the server lets go of a client that is gone, and so of its locks, within half a minute
_SESSION = {
    "lock_timeout": LOCK_SECONDS * 1000,
    "statement_timeout": STATEMENT_SECONDS * 1000,
    "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_SECONDS * 1000,
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "client_min_messages": "error",
    # for statements as small as these it only costs time
    "jit": "off",
}
_DEFAULTS = {
    "application_name": "filestored",
    "client_encoding": "utf8",
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # of several servers the one that takes changes
    "target_session_attrs": "read-write",
}


class PostgresConnection(psycopg.Connection[Row]):
    """A connection that waits for an answer no longer than its patience, in seconds; None waits for ever."""

    patience: float | None = ANSWER_SECONDS

    def wait(self, gen: PQGen[RV], interval: float = _WAIT_INTERVAL_SECONDS, timeout: float | None = None) -> RV:
        """See psycopg. A connection that has not answered in time is closed: nobody knows what it would answer."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise NoAnswer(SILENT) from None


class NoAnswer(psycopg.OperationalError):
    """The server has not answered in time."""


def server_of(address: PostgresAddress) -> tuple[str, int]:
    """Return the host and port of a server, the first of several; the host is empty or a path where it is local."""
    said = _parts_of(address)
    host = str(said.get("hostaddr") or said.get("host") or "").partition(",")[0]
    port = str(said.get("port") or "").partition(",")[0]
    return host, int(port) if port.isdecimal() else _PORT


def connect(address: PostgresAddress, *, durable: bool) -> PostgresConnection:
    """Connect, each statement to be a transaction of its own unless it says otherwise. Raises psycopg.Error."""
    given = _parts_of(address)
    session = _SESSION if durable else {**_SESSION, "synchronous_commit": "off"}
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    parameters = {**_DEFAULTS, **given, "options": f"{options} {given.get('options') or ''}".rstrip()}
    try:
        connection = PostgresConnection.connect(make_conninfo("", **parameters), autocommit=True)
    except psycopg.Error as error:
        raise _without_secret(error, address) from None
    if durable:
        # what is acknowledged has to survive a power cut, also where the server's own default is not to
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    return connection


@contextlib.contextmanager
def connected(address: PostgresAddress, patience: float) -> Iterator[PostgresConnection]:
    """Connect for a while to a server that answers within ``patience`` seconds. Raises CatalogueError for all else."""
    try:
        with contextlib.closing(connect(address, durable=False)) as connection:
            connection.patience = patience
            yield connection
    except psycopg.Error as error:
        raise explained(error) from error


def _parts_of(address: PostgresAddress) -> dict[str, Any]:
    """Return what an address says, as libpq reads it. Raises psycopg.Error where it cannot."""
    try:
        return conninfo_to_dict(address.url)
    except psycopg.Error as error:
        raise _without_secret(error, address) from None


def _without_secret(error: psycopg.Error, address: PostgresAddress) -> psycopg.Error:
    """Return an error that quotes nothing of an address but what anybody may see: libpq quotes what it cannot read."""
    known = unquote(address.url) + address.url
    text = _QUOTED.sub(
        lambda quoted: '"***"' if quoted[2] in known and quoted[2] not in str(address) else quoted[0], str(error)
    )
    return error if text == str(error) else type(error)(text)


# by classes and codes of SQLSTATE (PostgreSQL, appendix A)
_UNAVAILABLE = ("08", "57P", "53300", "25006", "25P03", "25P04")
_CONFLICTS = ("40",)
_BUSY = ("55P03", "57014", "53200")
_FAULTS = ("58", "XX001", "XX002")
_KINDS: tuple[tuple[tuple[str, ...], type[CatalogueError]], ...] = (
    (_UNAVAILABLE, CatalogueUnavailable),
    (_CONFLICTS, CatalogueConflict),
    (_BUSY, CatalogueBusy),
    (("53100",), CatalogueFull),
    (_FAULTS, CatalogueFault),
    (("42P01",), CatalogueMissing),
)


def explained(error: psycopg.Error) -> CatalogueError:
    """Turn what psycopg raises into the catalogue's own."""
    reason = error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__
    state = error.sqlstate
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return CatalogueUnavailable(reason)
    for states, kind in _KINDS:
        if state is not None and state.startswith(states):
            return kind(reason)
    return CatalogueError(reason)


def can_be_kept(values: dict[str, object]) -> bool:
    """Tell whether PostgreSQL can hold all texts: no NUL, no halves of surrogate pairs."""
    return not any(_NOT_KEPT.search(value) for value in values.values() if isinstance(value, str))


def require_usable(connection: PostgresConnection) -> None:
    """Raise CatalogueError where a server, or its database, is none that can be used."""
    info = connection.info
    if info.server_version < _OLDEST_VERSION * 10_000:
        version = info.server_version // 10_000
        raise CatalogueError(f"the server is PostgreSQL {version}; it must be {_OLDEST_VERSION} or newer")
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise CatalogueError(f"the encoding of the database is {encoding}; it must be UTF8")


class Reach:
    """Whether a server can be reached, as all threads of a process have found.

    When it cannot, requests wait for it together until :data:`PATIENCE_SECONDS` after the beginning; from then on they
    are told at once, and one in a while tries again.
    """

    def __init__(self, address: PostgresAddress) -> None:
        self._shown = str(address)
        self._lock = threading.Lock()
        self._began: float | None = None
        self._tried_at = 0.0
        self._reason = ""

    def connected(self, connect: Callable[[], PostgresConnection]) -> PostgresConnection:
        """Return what ``connect`` returns, which raises psycopg.Error. Raises CatalogueUnavailable, CatalogueError."""
        while True:
            if not self._may_try():
                time.sleep(_LOOKED_AGAIN_AFTER_SECONDS)
                continue
            try:
                connection = connect()
            except psycopg.Error as error:
                failure = explained(error)
                if not isinstance(failure, CatalogueUnavailable):
                    raise failure from error
                self._note_failure(failure)
            else:
                self._note_success()
                return connection

    def _may_try(self) -> bool:
        """Tell whether it is time to try. Raises CatalogueUnavailable where nobody is to wait any more."""
        with self._lock:
            now = time.monotonic()
            if self._began is None:
                return True
            is_hopeless = now - self._began >= PATIENCE_SECONDS
            if now - self._tried_at < (_TRIED_SELDOM_AFTER_SECONDS if is_hopeless else _TRIED_AGAIN_AFTER_SECONDS):
                if is_hopeless:
                    raise CatalogueUnavailable(self._reason)
                return False
            # others need not try as well meanwhile
            self._tried_at = now
            return True

    def _note_failure(self, failure: CatalogueUnavailable) -> None:
        with self._lock:
            now = self._tried_at = time.monotonic()
            self._reason = failure.reason
            if self._began is None:
                self._began = now
                logger.error(
                    "the catalogue {} cannot be reached, which is tried again: {}", self._shown, failure.reason
                )

    def note_silence(self) -> None:
        """Take note that the server has not answered for so long that nobody else is to wait for it."""
        with self._lock:
            self._reason = SILENT
            if self._began is None:
                logger.error("the catalogue {} does not answer", self._shown)
            self._began = time.monotonic() - PATIENCE_SECONDS

    def _note_success(self) -> None:
        with self._lock:
            if self._began is not None:
                seconds = time.monotonic() - self._began
                logger.info("the catalogue {} can be reached again, after {:.1f} seconds", self._shown, seconds)
            self._began = None
