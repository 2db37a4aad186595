"""The PostgreSQL server of a catalogue: its settings, its clock, and whether it has connections for all."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filestored.doctor.catalogue import connected, opened
from filestored.doctor.findings import Finding, Situation, fault, good, lacking, skipped, warning
from filestored.errors import CatalogueError, CatalogueMissing

if TYPE_CHECKING:
    from filestored.catalogue.connecting import PostgresConnection

_LOCKS = 256
_DAEMONS_WITH_FEW_LOCKS = 10
_SPARE = 5
_FOR_COMMANDS = 2
_NOTABLE_SECONDS = 5.0
_SETTINGS = """
SELECT current_setting('server_version'), current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
current_setting('max_locks_per_transaction')::int, current_setting('max_connections')::int
- current_setting('superuser_reserved_connections')::int
- coalesce(current_setting('reserved_connections', true)::int, 0), rolconnlimit, datconnlimit,
(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), current_setting('lock_timeout')
FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""


class _Server(NamedTuple):
    """What a server says of itself."""

    version: str
    flushes: bool
    writes_pages: bool
    locks: int
    connections: int
    role_limit: int
    database_limit: int
    used: int
    lock_timeout: str

    @property
    def limit(self) -> int:
        """How many connections there can be of ours."""
        return min(limit for limit in (self.connections, self.role_limit, self.database_limit) if limit >= 0)


def check_database(situation: Situation) -> Iterator[Finding]:
    """See whether a PostgreSQL server is set up for what it is used for."""
    where = situation.catalogue
    if isinstance(where, Path):
        yield skipped("the catalogue is a file, and no PostgreSQL server")
        return
    if situation.failures:
        yield skipped("the server cannot be asked: see catalogue")
        return
    try:
        with connected(where) as connection:
            server = _ask(connection)
            yield _look_at_clock(connection)
        yield from _judge_flushes(situation, server)
        yield from _judge_session(server)
        yield from _judge_sizes(situation, server, _count_daemons(situation))
    except CatalogueError as error:
        yield skipped(f"the server cannot be asked: {error.reason}")
    except ImportError as error:
        yield skipped(lacking(error).found)


def _ask(connection: "PostgresConnection") -> _Server:
    (row,) = connection.execute(_SETTINGS).fetchall()
    return _Server(*row)


def _look_at_clock(connection: "PostgresConnection") -> Finding:
    began = time.time()
    ((there,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
    return judge_clock(there, began, time.time())


def judge_clock(there: float, began: float, ended: float) -> Finding:
    """Say how far a server's clock is from ours: it said ``there`` between ``began`` and ``ended``."""
    behind = max(0.0, there - ended) - max(0.0, began - there)
    if abs(behind) < _NOTABLE_SECONDS:
        return good("the server's clock and that of this machine agree")
    return warning(
        f"this machine's clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} the database's",
        "keep both right by NTP: lifetimes are judged by one and the other",
    )


def _judge_flushes(situation: Situation, server: _Server) -> Iterator[Finding]:
    named = f"PostgreSQL {server.version}"
    if not server.flushes:
        found = f"{named} runs with fsync off: a power cut may damage the catalogue"
        mend = "switch fsync on in postgresql.conf"
        yield warning(found, mend) if situation.settings.durability == "relaxed" else fault(found, mend)
    elif not server.writes_pages:
        yield warning(
            f"{named} runs with full_page_writes off: a power cut may damage pages",
            "switch it on in postgresql.conf, unless the disk writes pages whole or not at all, as ZFS does",
        )
    else:
        yield good(f"{named} flushes what it commits")


def _judge_session(server: _Server) -> Iterator[Finding]:
    from filestored.catalogue.connecting import LOCK_SECONDS

    if server.lock_timeout != f"{LOCK_SECONDS}s":
        yield warning(
            f"what a daemon sets for its sessions does not reach the server (lock_timeout is {server.lock_timeout})",
            "take options out of --catalogue that say otherwise, or have a pooler pass them on, in session mode",
        )


def _count_daemons(situation: Situation) -> int:
    """Return how many daemons there are, this one too, whether it runs or not."""
    try:
        with opened(situation) as rows:
            return max(1, len(rows.daemons())) if rows is not None else 1
    except CatalogueMissing:
        return 1


def _judge_sizes(situation: Situation, server: _Server, daemons: int) -> Iterator[Finding]:
    from filestored.catalogue.postgresql import READERS

    workers = situation.settings.workers
    needed = daemons * workers * (READERS + 1) + _FOR_COMMANDS
    who = f"{daemons} daemon{'s' if daemons > 1 else ''} of {workers} worker{'s' if workers > 1 else ''}"
    if needed > server.limit:
        yield warning(
            f"{who} use up to {needed} connections, and the server grants {server.limit}",
            "raise max_connections (docs/operations.md says how far), or the limit of the role or database",
        )
    elif server.connections - server.used < _SPARE:
        yield warning(
            f"{server.used} of {server.connections} connections are in use",
            "raise max_connections, or see who has them",
        )
    else:
        yield good(f"{who} use up to {needed} connections of {server.limit}")
    if server.locks < _LOCKS and daemons > _DAEMONS_WITH_FEW_LOCKS:
        yield warning(
            f"max_locks_per_transaction is {server.locks}, which many busy daemons may use up",
            f"raise it to {_LOCKS}, and start the server anew",
        )
