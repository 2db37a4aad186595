"""The tables of the catalogue. Their history is in ``migrations/``; a test holds the two together."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint, and_

schema = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    },
)

# what SQLite calls INTEGER has 64 bits, and only by that name it is the table's own order
_Number = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    schema,
    Column("id", _Number, primary_key=True),
    Column("digest", String(128), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("name", Text, nullable=True),
    Column("folded_name", Text, nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    UniqueConstraint("digest", "owner"),
    # a page of a listing is one walk along one of these, however many files there are
    Index(None, "owner", "created_at"),
    Index(None, "owner", "folded_name"),
    Index(None, "owner", "size"),
    Index(None, "created_at"),
    Index(None, "folded_name"),
    Index(None, "size"),
)
"""One row a file: an owner's claim on a blob. ``id`` only tells apart what is alike in a listing."""

Index(
    "ix_files_expires_at",
    files.c.expires_at,
    sqlite_where=files.c.expires_at.isnot(None),
    postgresql_where=files.c.expires_at.isnot(None),
)

removals = Table(
    "removals",
    schema,
    Column("digest", String(128), primary_key=True),
)
"""Blobs whose removal is decided and committed, but perhaps not yet carried out: settled at once, or at start."""

usage = Table(
    "usage",
    schema,
    Column("owner", String(255), primary_key=True),
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
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("permissions", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    Column("quota", BigInteger, nullable=True),
    UniqueConstraint("name"),
)
"""Who may ask for what. The token itself is nowhere, only the hash of it."""

uploads = Table(
    "uploads",
    schema,
    Column("id", String(32), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("details", Text, nullable=False),
    Column("concat", Text, nullable=True),
    Column("length", BigInteger, nullable=True),
    Column("flushed", BigInteger, nullable=False),
    Column("digest", String(128), nullable=True),
    Column("joined_as", String(32), nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)
"""Resumable uploads: those under way, whose bytes lie in ``uploads/``, and for a while those that are complete."""

IS_UNDER_WAY = and_(uploads.c.digest.is_(None), uploads.c.joined_as.is_(None))
"""What tells the first from the others."""

Index("ix_uploads_owner", uploads.c.owner, uploads.c.flushed, sqlite_where=IS_UNDER_WAY, postgresql_where=IS_UNDER_WAY)

notes = Table(
    "notes",
    schema,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What the program remembers besides: the key that signs links, how far scrubbing has come."""
