"""The catalogue's statements: each written once, in SQLAlchemy Core, and compiled once."""

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from filestored.catalogue.tables import IS_UNDER_WAY, files, notes, removals, tokens, totals, uploads, usage


class Prepared:
    """A Core statement compiled once and run on the driver's own cursor: 8 µs where Core takes 55."""

    def __init__(self, statement: sa.sql.ClauseElement) -> None:
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self._sql = str(compiled)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def run(self, cursor: sqlite3.Cursor, **values: object) -> sqlite3.Cursor:
        """Run it; the values are those of its parameters."""
        return cursor.execute(self._sql, values | self._constants if self._constants else values)


def _parameters(table: sa.Table, *left_out: str) -> dict[str, sa.BindParameter[Any]]:
    return {column.name: sa.bindparam(column.name) for column in table.columns if column.name not in left_out}


_digest: sa.BindParameter[str] = sa.bindparam("digest")
_owner: sa.BindParameter[str] = sa.bindparam("owner")
_name: sa.BindParameter[str] = sa.bindparam("name")
_limit: sa.BindParameter[int] = sa.bindparam("limit")
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
INSERT = Prepared(sa.insert(files).values(_parameters(files, "id")))
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
    sa.select(sa.func.coalesce(sa.func.sum(files.c.size), 0)).where(
        # by the index of what expires, of which there is little: an expression has no index of its own
        files.c.expires_at <= _now,
        files.c.owner.concat("") == _owner,
    )
)
HAS_SIZE = Prepared(
    sa.select(files.c.id)
    .where(files.c.owner == _owner, files.c.size == sa.bindparam("size", type_=sa.Integer))
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

ADD_REMOVAL = Prepared(sqlite.insert(removals).values(digest=_digest).on_conflict_do_nothing())
IS_GOING = Prepared(sa.select(removals.c.digest).where(removals.c.digest == _digest))
TAKE_REMOVALS = Prepared(sa.delete(removals).returning(removals.c.digest))

_added = sqlite.insert(usage).values(_parameters(usage))
ADD_USAGE = Prepared(
    _added.on_conflict_do_update(
        index_elements=["owner"],
        set_={"files": usage.c.files + _added.excluded.files, "bytes": usage.c.bytes + _added.excluded.bytes},
    )
)
USAGE_OF = Prepared(sa.select(usage.c.files, usage.c.bytes).where(usage.c.owner == _owner))
ALL_FILES = Prepared(sa.select(sa.func.coalesce(sa.func.sum(usage.c.files), 0)))
ADD_TOTALS = Prepared(
    sa.update(totals).values(
        blobs=totals.c.blobs + sa.bindparam("more_blobs", type_=sa.BigInteger),
        bytes=totals.c.bytes + sa.bindparam("more_bytes", type_=sa.BigInteger),
    )
)
TOTALS = Prepared(sa.select(totals.c.blobs, totals.c.bytes))

KNOWN_USAGE = Prepared(sa.select(usage.c.owner, usage.c.files, usage.c.bytes).where(usage.c.files != 0))
COUNTED_USAGE = Prepared(sa.select(files.c.owner, sa.func.count(), sa.func.sum(files.c.size)).group_by(files.c.owner))
FORGET_USAGE = Prepared(sa.delete(usage))
COUNT_USAGE = Prepared(
    sa.insert(usage).from_select(
        ["owner", "files", "bytes"],
        sa.select(files.c.owner, sa.func.count(), sa.func.sum(files.c.size)).group_by(files.c.owner),
    )
)
_blobs = sa.select(sa.func.max(files.c.size).label("size")).group_by(files.c.digest).subquery()
COUNTED_TOTALS = Prepared(
    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_blobs.c.size), 0)).select_from(_blobs)
)
COUNT_TOTALS = Prepared(
    sa.update(totals).values(
        blobs=sa.select(sa.func.count()).select_from(_blobs).scalar_subquery(),
        bytes=sa.select(sa.func.coalesce(sa.func.sum(_blobs.c.size), 0)).scalar_subquery(),
    )
)

_TOKEN = (
    tokens.c.id, tokens.c.name, tokens.c.secret_hash, tokens.c.permissions, tokens.c.created_at, tokens.c.expires_at,
    tokens.c.quota,
)  # fmt: skip
TOKENS = Prepared(sa.select(*_TOKEN).order_by(tokens.c.name))
ADD_TOKEN = Prepared(sqlite.insert(tokens).values(_parameters(tokens)).on_conflict_do_nothing())
REMOVE_TOKEN = Prepared(sa.delete(tokens).where(tokens.c.name == _name))

_UPLOAD = (
    uploads.c.id, uploads.c.owner, uploads.c.details, uploads.c.concat, uploads.c.length, uploads.c.flushed,
    uploads.c.digest, uploads.c.joined_as, uploads.c.created_at, uploads.c.expires_at,
)  # fmt: skip
_upload: sa.BindParameter[str] = sa.bindparam("id")
FIND_UPLOAD = Prepared(sa.select(*_UPLOAD).where(uploads.c.id == _upload))
ADD_UPLOAD = Prepared(sa.insert(uploads).values(_parameters(uploads)))
CHANGE_UPLOAD = Prepared(
    sa.update(uploads)
    .where(uploads.c.id == _upload)
    .values({name: sa.bindparam(name) for name in ("length", "flushed", "digest", "joined_as", "expires_at")})
)
REMOVE_UPLOAD = Prepared(sa.delete(uploads).where(uploads.c.id == _upload))
ENDED_UPLOADS = Prepared(
    sa.select(*_UPLOAD).where(uploads.c.expires_at <= _now).order_by(uploads.c.expires_at).limit(_limit)
)
UNDER_WAY = Prepared(
    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(uploads.c.flushed), 0)).where(
        uploads.c.owner == _owner, IS_UNDER_WAY
    )
)
ALL_UNDER_WAY = Prepared(
    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(uploads.c.flushed), 0)).where(IS_UNDER_WAY)
)

NOTE = Prepared(sa.select(notes.c.value).where(notes.c.name == _name))
_noted = sqlite.insert(notes).values(_parameters(notes))
SET_NOTE = Prepared(_noted.on_conflict_do_update(index_elements=["name"], set_={"value": _noted.excluded.value}))
ADD_NOTE = Prepared(_noted.on_conflict_do_nothing())


def walk(column: sa.Column[Any], *, descending: bool, of_all: bool) -> tuple[Prepared, Prepared, Prepared]:
    """Return the three statements of a walk along an owner's files, or all owners', in the order of a column.

    They give FileRecord's columns, the column's value and the id. The first begins at the beginning; the others go on
    after the parameters ``key`` and ``id``: one with the rest of what has the same value, one with what follows. As one
    statement they would read all that has the same value again for each page.
    """
    whose = [] if of_all else [files.c.owner == _owner]
    key: sa.BindParameter[Any] = sa.bindparam("key", type_=column.type)
    number: sa.BindParameter[int] = sa.bindparam("id", type_=sa.BigInteger)
    alike = [column == key, files.c.id < number if descending else files.c.id > number]
    beyond = [column < key if descending else column > key]
    order = (column.desc(), files.c.id.desc()) if descending else (column, files.c.id)
    walks = [
        sa.select(*RECORD, column, files.c.id).where(*whose, *where).order_by(*order) for where in ([], alike, beyond)
    ]
    return Prepared(walks[0]), Prepared(walks[1]), Prepared(walks[2])
