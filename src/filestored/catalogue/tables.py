"""The tables of the catalogue. Their history is in ``migrations/``; a test holds the two together."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, UniqueConstraint, and_

from filestored.catalogue.columns import row_number, text

schema = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    },
)

files = Table(
    "files",
    schema,
    Column("id", row_number(), primary_key=True),
    Column("digest", text(128), nullable=False),
    Column("owner", text(255), nullable=False),
    Column("name", text(), nullable=True),
    Column("folded_name", text(), nullable=False),
    Column("media_type", text(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    UniqueConstraint("digest", "owner"),
)
"""One row a file: an owner's claim on a blob. ``id`` only tells apart what is alike in a listing."""

for _order in ("created_at", "folded_name", "size"):
    for _columns in ((_order,), ("owner", _order)):
        # a page of a listing is one walk along one of these, however many files there are; SQLite's have the id in them
        Index(f"ix_files_{'_'.join(_columns)}", *(files.c[name] for name in _columns)).ddl_if(dialect="sqlite")
        Index(f"ix_files_{'_'.join(_columns)}_id", *(files.c[name] for name in (*_columns, "id"))).ddl_if(
            dialect="postgresql"
        )

removals = Table(
    "removals",
    schema,
    Column("digest", text(128), primary_key=True),
    Column("sent_at", BigInteger, nullable=True),
)
"""Blobs whose removal is decided and committed, but perhaps not yet carried out: settled at once, or at start.

``sent_at`` is set (milliseconds since 1970) before a bucket is asked to remove one: from then on that may happen at any
moment, even after the one who asked has died.
"""

usage = Table(
    "usage",
    schema,
    Column("owner", text(255), primary_key=True),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""How much each owner keeps, shared or not; kept up to date by every transaction that changes ``files``."""

totals = Table(
    "totals",
    schema,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("blobs", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""One row: how many blobs the files of all owners name, and how large these are together."""

tokens = Table(
    "tokens",
    schema,
    Column("id", text(32), primary_key=True),
    Column("name", text(64), nullable=False),
    Column("secret_hash", text(64), nullable=False),
    Column("permissions", text(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    Column("quota", BigInteger, nullable=True),
    UniqueConstraint("name"),
)
"""Who may ask for what. The token itself is nowhere, only the hash of it."""

uploads = Table(
    "uploads",
    schema,
    Column("id", text(32), primary_key=True),
    Column("owner", text(255), nullable=False),
    Column("details", text(), nullable=False),
    Column("concat", text(), nullable=True),
    Column("length", BigInteger, nullable=True),
    Column("flushed", BigInteger, nullable=False),
    Column("digest", text(128), nullable=True),
    Column("joined_as", text(32), nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("daemon", text(32), nullable=True),
    Index(None, "expires_at"),
)
"""Resumable uploads: those under way, and for a while those that are complete.

The bytes lie in ``uploads/`` of the daemon named by ``daemon``, or of the only one where that is not set.
"""

IS_UNDER_WAY = and_(uploads.c.digest.is_(None), uploads.c.joined_as.is_(None))
"""What tells the first from the others."""

notes = Table(
    "notes",
    schema,
    Column("name", text(64), primary_key=True),
    Column("value", text(), nullable=False),
)
"""What the program remembers besides: the key that signs links, how far scrubbing has come."""

daemons = Table(
    "daemons",
    schema,
    Column("id", text(32), primary_key=True),
    Column("url", text(), nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("incarnation", text(32), nullable=True),
)
"""The daemons of a cluster: where the others reach each, and when it was last heard of (database's clock, ms).

``incarnation`` tells one start of a daemon from another, and from those of a copy with the same id.
"""

leases = Table(
    "leases",
    schema,
    Column("name", text(64), primary_key=True),
    Column("holder", text(64), nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""What only one daemon of a cluster does at a time, who does, and until when (database's clock, ms since 1970)."""
