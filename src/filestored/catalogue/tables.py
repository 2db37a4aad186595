"""The tables of the catalogue. Their history is in ``migrations/``; a test holds the two together."""

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

schema = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"},
)

files = Table(
    "files",
    schema,
    Column("digest", String(128), primary_key=True),
    Column("owner", String(255), primary_key=True),
    Column("name", Text, nullable=True),
    Column("media_type", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
)
"""One row a file: an owner's claim on a blob."""

removals = Table(
    "removals",
    schema,
    Column("digest", String(128), primary_key=True),
)
"""Blobs whose removal is decided and committed, but perhaps not yet carried out: settled at once, or at start."""
