"""The catalogue's statements: each written once, in SQLAlchemy Core, and compiled once for each database."""

from collections.abc import Callable
from functools import cached_property
from operator import eq
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect

from filestored.catalogue.tables import (
    IS_UNDER_WAY,
    daemons,
    files,
    leases,
    notes,
    removals,
    tokens,
    totals,
    uploads,
    usage,
)


class Compiled(NamedTuple):
    """A statement as a driver takes it, and those of its parameters that are always the same."""

    text: str
    constants: dict[str, object]


class Prepared:
    """A Core statement compiled once and run on the driver's own cursor: on SQLite 8 µs where Core takes 55."""

    def __init__(
        self, statement: sa.sql.ClauseElement, on_postgresql: Callable[[], sa.sql.ClauseElement] | None = None
    ) -> None:
        """``on_postgresql`` makes the same where it needs that dialect's own words."""
        self._statement = statement
        self._on_postgresql = on_postgresql

    @cached_property
    def sqlite(self) -> Compiled:
        """The statement for sqlite3."""
        return _compile(self._statement, sqlite.dialect(paramstyle="named"))

    @cached_property
    def postgresql(self) -> Compiled:
        """The statement for psycopg."""
        # only here: a store with a file needs no other dialect, which takes 2 MiB
        from sqlalchemy.dialects.postgresql import psycopg

        statement = self._statement if self._on_postgresql is None else self._on_postgresql()
        return _compile(statement, psycopg.dialect())  # type: ignore[no-untyped-call]


def _compile(statement: sa.sql.ClauseElement, dialect: Dialect) -> Compiled:
    compiled = statement.compile(dialect=dialect)
    return Compiled(str(compiled), {name: value for name, value in compiled.params.items() if value is not None})


def _insert(table: sa.Table, *left_out: str) -> Prepared:
    # inline: no id is asked for
    return Prepared(sa.insert(table).inline().values(_parameters(table, *left_out)))


def _upsert(table: sa.Table, make: Callable[[Any], sa.sql.ClauseElement]) -> Prepared:
    """Prepare an insert that says what a conflict does, in which both databases agree but not their dialects."""
    values = _parameters(table)

    def make_for_postgresql() -> sa.sql.ClauseElement:
        from sqlalchemy.dialects import postgresql

        return make(postgresql.insert(table).values(values))

    return Prepared(make(sqlite.insert(table).values(values)), make_for_postgresql)


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    # PostgreSQL's sum of 64 bits is a number of any length, another type to Python
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _parameters(table: sa.Table, *left_out: str) -> dict[str, sa.BindParameter[Any]]:
    return {column.name: sa.bindparam(column.name) for column in table.columns if column.name not in left_out}


_digest: sa.BindParameter[str] = sa.bindparam("digest")
_owner: sa.BindParameter[str] = sa.bindparam("owner", type_=sa.String)
_name: sa.BindParameter[str] = sa.bindparam("name")
_limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
_count: sa.BindParameter[int] = sa.bindparam("count", type_=sa.Integer)
_now: sa.BindParameter[int] = sa.bindparam("now")

RECORD = (
    files.c.digest, files.c.owner, files.c.name, files.c.media_type, files.c.size, files.c.created_at,
    files.c.expires_at,
)  # fmt: skip
"""The columns of a FileRecord, in its order."""

FIND = Prepared(sa.select(*RECORD).where(files.c.digest == _digest).order_by(files.c.created_at, files.c.owner))
ASKED_AT_ONCE = 100
"""For how many digests FIND_ALL asks, by its parameters ``digest0`` and so on."""

FIND_ALL = Prepared(
    sa.select(*RECORD)
    .where(files.c.digest.in_([sa.bindparam(f"digest{number}", type_=sa.String) for number in range(ASKED_AT_ONCE)]))
    .order_by(files.c.created_at, files.c.owner)
)
INSERT = _insert(files, "id")
UPDATE = Prepared(
    sa.update(files)
    .where(files.c.digest == _digest, files.c.owner == _owner)
    .values({
        name: sa.bindparam(name)
        for name in ("name", "folded_name", "media_type", "size", "created_at", "expires_at")
    })
)  # fmt: skip
DELETE = Prepared(sa.delete(files).where(files.c.digest == _digest, files.c.owner == _owner))
IS_NAMED = Prepared(sa.select(files.c.owner).where(files.c.digest == _digest).limit(1))
EXPIRED = Prepared(sa.select(*RECORD).where(files.c.expires_at <= _now).order_by(files.c.expires_at).limit(_limit))
EXPIRED_BYTES = Prepared(
    sa.select(_sum(files.c.size)).where(
        # by the index of what expires, of which there is little: an expression has no index of its own
        files.c.expires_at <= _now,
        files.c.owner.concat("") == _owner,
    )
)
HAS_SIZE = Prepared(
    sa.select(files.c.id)
    .where(files.c.owner == _owner, files.c.size == sa.bindparam("size", type_=sa.BigInteger))
    .limit(1)
)
LARGEST = Prepared(sa.select(sa.func.max(files.c.size)).where(files.c.owner == _owner))
DIGESTS = Prepared(
    sa.select(files.c.digest, sa.func.max(files.c.size))
    .where(
        files.c.digest >= sa.bindparam("start", type_=sa.String),
        files.c.digest < sa.bindparam("stop", type_=sa.String),
        sa.or_(files.c.expires_at.is_(None), files.c.expires_at > _now),
    )
    .group_by(files.c.digest)
    .order_by(files.c.digest)
)

ADD_REMOVAL = _upsert(removals, lambda insert: insert.on_conflict_do_nothing())
IS_GOING = Prepared(sa.select(removals.c.digest).where(removals.c.digest == _digest))
REMOVALS = Prepared(sa.select(removals.c.digest))
TAKE_REMOVAL = Prepared(sa.delete(removals).where(removals.c.digest == _digest))

ADD_USAGE = _upsert(
    usage,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["owner"],
        set_={"files": usage.c.files + insert.excluded.files, "bytes": usage.c.bytes + insert.excluded.bytes},
    ),
)
USAGE_OF = Prepared(sa.select(usage.c.files, usage.c.bytes).where(usage.c.owner == _owner))
ALL_FILES = Prepared(sa.select(_sum(usage.c.files)))
ADD_TOTALS = _upsert(
    totals,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["id"],
        set_={"blobs": totals.c.blobs + insert.excluded.blobs, "bytes": totals.c.bytes + insert.excluded.bytes},
    ),
)
TOTALS = Prepared(sa.select(_sum(totals.c.blobs), _sum(totals.c.bytes)))

KNOWN_USAGE = Prepared(sa.select(usage.c.owner, usage.c.files, usage.c.bytes).where(usage.c.files != 0))
COUNTED_USAGE = Prepared(sa.select(files.c.owner, sa.func.count(), _sum(files.c.size)).group_by(files.c.owner))
FORGET_USAGE = Prepared(sa.delete(usage))
COUNT_USAGE = Prepared(
    sa.insert(usage).from_select(
        ["owner", "files", "bytes"],
        sa.select(files.c.owner, sa.func.count(), _sum(files.c.size)).group_by(files.c.owner),
    )
)
_blobs = sa.select(sa.func.max(files.c.size).label("size")).group_by(files.c.digest).subquery()
_counted = sa.select(sa.func.count(), _sum(_blobs.c.size)).select_from(_blobs)
COUNTED_TOTALS = Prepared(_counted)
FORGET_TOTALS = Prepared(sa.delete(totals))
COUNT_TOTALS = Prepared(
    sa.insert(totals).from_select(
        ["id", "blobs", "bytes"], sa.select(sa.literal_column("1"), *_counted.selected_columns).select_from(_blobs)
    )
)

_TOKEN = (
    tokens.c.id, tokens.c.name, tokens.c.secret_hash, tokens.c.permissions, tokens.c.created_at, tokens.c.expires_at,
    tokens.c.quota,
)  # fmt: skip
TOKENS = Prepared(sa.select(*_TOKEN).order_by(tokens.c.name))
ADD_TOKEN = _upsert(tokens, lambda insert: insert.on_conflict_do_nothing())
REMOVE_TOKEN = Prepared(sa.delete(tokens).where(tokens.c.name == _name))

_UPLOAD = (
    uploads.c.id, uploads.c.owner, uploads.c.details, uploads.c.concat, uploads.c.length, uploads.c.flushed,
    uploads.c.digest, uploads.c.joined_as, uploads.c.created_at, uploads.c.expires_at, uploads.c.daemon,
)  # fmt: skip
_upload: sa.BindParameter[str] = sa.bindparam("id")
FIND_UPLOAD = Prepared(sa.select(*_UPLOAD).where(uploads.c.id == _upload))
ADD_UPLOAD = _insert(uploads)
CHANGE_UPLOAD = Prepared(
    sa.update(uploads)
    .where(uploads.c.id == _upload)
    .values({name: sa.bindparam(name) for name in ("length", "flushed", "digest", "joined_as", "expires_at", "daemon")})
)
REMOVE_UPLOAD = Prepared(sa.delete(uploads).where(uploads.c.id == _upload))
ENDED_UPLOADS = Prepared(
    sa.select(*_UPLOAD).where(uploads.c.expires_at <= _now).order_by(uploads.c.expires_at).limit(_limit)
)
ENDED_UPLOADS_OF = Prepared(
    sa.select(*_UPLOAD)
    .where(uploads.c.expires_at <= _now, sa.or_(uploads.c.daemon == sa.bindparam("daemon"), uploads.c.daemon.is_(None)))
    .order_by(uploads.c.expires_at)
    .limit(_limit)
)
UNDER_WAY = Prepared(sa.select(sa.func.count(), _sum(uploads.c.flushed)).where(uploads.c.owner == _owner, IS_UNDER_WAY))
ALL_UNDER_WAY = Prepared(sa.select(sa.func.count(), _sum(uploads.c.flushed)).where(IS_UNDER_WAY))

NOTE = Prepared(sa.select(notes.c.value).where(notes.c.name == _name))
SET_NOTE = _upsert(
    notes,
    lambda insert: insert.on_conflict_do_update(index_elements=["name"], set_={"value": insert.excluded.value}),
)
ADD_NOTE = _upsert(notes, lambda insert: insert.on_conflict_do_nothing())

# the clock of the database, in milliseconds since 1970: those of several machines are never the same
_CLOCK_OF_SQLITE: sa.ColumnElement[int] = sa.literal_column(
    "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", sa.BigInteger
)
_CLOCK_OF_POSTGRESQL: sa.ColumnElement[int] = sa.literal_column(
    "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)", sa.BigInteger
)


def _by_clock(make: Callable[[Any, sa.ColumnElement[int]], sa.sql.ClauseElement]) -> Prepared:
    """Prepare a statement that asks the database's clock, from its dialect's words and its expression for that."""

    def make_for_postgresql() -> sa.sql.ClauseElement:
        from sqlalchemy.dialects import postgresql

        return make(postgresql, _CLOCK_OF_POSTGRESQL)

    return Prepared(make(sqlite, _CLOCK_OF_SQLITE), make_for_postgresql)


def _take_lease(dialect: Any, clock: sa.ColumnElement[int]) -> Any:
    until = clock + sa.bindparam("milliseconds", type_=sa.BigInteger)
    insert = dialect.insert(leases).values(name=_name, holder=sa.bindparam("holder"), until=until)
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
        where=sa.or_(leases.c.holder == insert.excluded.holder, leases.c.until <= clock),
    )


_incarnation = sa.bindparam("incarnation", type_=sa.String)


def _renew_daemon(dialect: Any, clock: sa.ColumnElement[int]) -> Any:
    insert = dialect.insert(daemons).values(
        id=sa.bindparam("id"), url=sa.bindparam("url"), seen_at=clock, incarnation=_incarnation
    )
    return insert.on_conflict_do_update(
        index_elements=["id"],
        set_={name: insert.excluded[name] for name in ("url", "seen_at", "incarnation")},
        # another daemon of the same id must have been silent for long
        where=sa.or_(
            daemons.c.incarnation == insert.excluded.incarnation,
            daemons.c.seen_at < clock - sa.bindparam("away", type_=sa.BigInteger),
        ),
    )


TAKE_LEASE = _by_clock(_take_lease)
LEASE_HOLDER = _by_clock(
    lambda _, clock: sa.select(leases.c.holder).where(leases.c.name == _name, leases.c.until > clock)
)
GIVE_LEASE = Prepared(sa.delete(leases).where(leases.c.name == _name, leases.c.holder == sa.bindparam("holder")))
RENEW_DAEMON = _by_clock(_renew_daemon)
REMOVE_DAEMON = Prepared(
    sa.delete(daemons).where(
        daemons.c.id == sa.bindparam("id"), sa.func.coalesce(daemons.c.incarnation, "") == _incarnation
    )
)
CLOCK = _by_clock(lambda _, clock: sa.select(clock))
DAEMONS = _by_clock(
    lambda _, clock: sa.select(
        daemons.c.id, daemons.c.url, clock - daemons.c.seen_at, sa.func.coalesce(daemons.c.incarnation, "")
    )
)
FORGET_DAEMONS = _by_clock(
    lambda _, clock: sa.delete(daemons).where(
        daemons.c.seen_at < clock - sa.bindparam("milliseconds", type_=sa.BigInteger)
    )
)
_lost = sa.or_(daemons.c.id.is_(None), daemons.c.seen_at < sa.bindparam("seen_before", type_=sa.BigInteger))
LOST_UPLOADS = Prepared(
    sa.select(*_UPLOAD)
    .select_from(uploads.outerjoin(daemons, daemons.c.id == uploads.c.daemon))
    .where(uploads.c.expires_at <= _now, uploads.c.daemon.is_not(None), _lost)
    .order_by(uploads.c.expires_at)
    .limit(_limit)
)
"""Of the uploads that have ended those whose daemon has not been heard of since ``seen_before``."""


MOST_DUE = 256
"""How many removals DUE_REMOVALS gives at most."""

CLOCK_STEP_MS = 1000
"""By how much a removal must have been sent in time to come for the clock to have been set back."""

_age = sa.bindparam("age", type_=sa.BigInteger)


def _due_removals(_: Any, clock: sa.ColumnElement[int]) -> sa.sql.ClauseElement:
    is_due = sa.or_(
        removals.c.sent_at.is_(None), removals.c.sent_at <= clock - _age, clock - removals.c.sent_at < -CLOCK_STEP_MS
    )
    return sa.select(removals.c.digest).where(is_due).order_by(removals.c.digest).limit(MOST_DUE)


DUE_REMOVALS = _by_clock(_due_removals)
"""The removals that nobody has asked a bucket for within the last ``age`` milliseconds, or only in time to come."""

REMOVALS_OF = _by_clock(
    lambda _, clock: sa.select(removals.c.digest, removals.c.sent_at, clock - removals.c.sent_at).where(
        removals.c.digest.in_([sa.bindparam(f"digest{number}", type_=sa.String) for number in range(ASKED_AT_ONCE)])
    )
)
"""The removals of as many digests as FIND_ALL asks for: digest, when each was sent, and how long ago that is."""

SEND_REMOVAL = _by_clock(
    lambda _, clock: (
        sa.update(removals).where(removals.c.digest == _digest).values(sent_at=clock).returning(removals.c.sent_at)
    )
)
_sent_at = sa.bindparam("sent_at", type_=sa.BigInteger)
FORGET_REMOVAL = Prepared(sa.delete(removals).where(removals.c.digest == _digest, removals.c.sent_at == _sent_at))
UNSEND_REMOVAL = Prepared(
    sa.update(removals).where(removals.c.digest == _digest, removals.c.sent_at == _sent_at).values(sent_at=sa.null())
)


_Comparison = Callable[[sa.Column[Any], sa.BindParameter[Any]], sa.ColumnElement[bool]]


def walk(column: sa.Column[Any], *, descending: bool, of_all: bool) -> tuple[Prepared, Prepared, Prepared]:
    """Return the three statements of a walk along an owner's files, or all owners', in the order of a column.

    They give FileRecord's columns, the column's value and the id, of ``count`` files at most. The first begins at the
    beginning; the others go on after the parameters ``key`` and ``id``: one with the rest of what has the same value,
    one with what follows. As one statement they would read all that has the same value again for each page.
    """
    key: sa.BindParameter[Any] = sa.bindparam("key", type_=column.type)
    number: sa.BindParameter[int] = sa.bindparam("id", type_=sa.BigInteger)
    order = [column, files.c.id] if of_all else [files.c.owner, column, files.c.id]
    later = files.c.id < number if descending else files.c.id > number
    beyond = column < key if descending else column > key

    def walk_on(is_one: _Comparison) -> list[sa.Select[Any]]:
        whose = [] if of_all else [is_one(files.c.owner, _owner)]
        # behind the owner there is only one order left
        alike = [is_one(column, key) if of_all else column == key, later]
        return [
            sa.select(*RECORD, column, files.c.id)
            .where(*whose, *where)
            .order_by(*(each.desc() if descending else each for each in order))
            .limit(_count)
            for where in ([], alike, [beyond])
        ]

    first, second, third = walk_on(eq)
    return (
        Prepared(first, lambda: walk_on(_is_one_of_one)[0]),
        Prepared(second, lambda: walk_on(_is_one_of_one)[1]),
        Prepared(third, lambda: walk_on(_is_one_of_one)[2]),
    )


def _is_one_of_one(column: sa.Column[Any], value: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """Say of a column what its value is, as one of several though there is but one.

    PostgreSQL would not keep to the order by that column otherwise, and perhaps look along another for rows that lie
    far apart there.
    """
    from sqlalchemy.dialects import postgresql

    one: sa.ColumnElement[Any] = postgresql.array([value], type_=column.type)
    return column == sa.any_(one)
