"""Listings, tokens, usage and notes. There is no way back but a backup."""

import sqlalchemy as sa
from alembic import op

from filestored.catalogue.columns import row_number, text
from filestored.catalogue.records import folded

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = ("digest", "owner", "name", "media_type", "size", "created_at", "expires_at")


def upgrade() -> None:
    """Give each file a number and a folded name, and count what there is."""
    if op.get_bind().dialect.name == "sqlite":
        op.rename_table("files", "old_files")
        _create_files()
        _copy_files()
        op.drop_table("old_files")
    else:
        # only SQLite has catalogues of the first version: others begin with empty tables
        op.drop_table("files")
        _create_files()
    for column in ("created_at", "folded_name", "size"):
        _create_index(column)
        _create_index("owner", column)
    has_end = sa.text("expires_at IS NOT NULL")
    op.create_index("ix_files_expires_at", "files", ["expires_at"], sqlite_where=has_end, postgresql_where=has_end)
    _create_counts()
    op.create_table(
        "tokens",
        sa.Column("id", text(32), nullable=False),
        sa.Column("name", text(64), nullable=False),
        sa.Column("secret_hash", text(64), nullable=False),
        sa.Column("permissions", text(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=True),
        sa.Column("quota", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
    )
    op.create_table(
        "notes",
        sa.Column("name", text(64), nullable=False),
        sa.Column("value", text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_notes"),
    )


def _create_index(*columns: str) -> None:
    # SQLite's have the id of the row at their end without being told
    if op.get_bind().dialect.name != "sqlite":
        columns = (*columns, "id")
    op.create_index(f"ix_files_{'_'.join(columns)}", "files", columns)


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("id", row_number(), nullable=False),
        sa.Column("digest", text(128), nullable=False),
        sa.Column("owner", text(255), nullable=False),
        sa.Column("name", text(), nullable=True),
        sa.Column("folded_name", text(), nullable=False),
        sa.Column("media_type", text(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("digest", "owner", name="uq_files_digest_owner"),
    )


def _copy_files() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.create_function("folded", 1, folded, deterministic=True)
    columns = ", ".join(_COLUMNS)
    op.execute(
        f"INSERT INTO files ({columns}, folded_name) SELECT {columns}, folded(name) FROM old_files "  # noqa: S608
        "ORDER BY created_at, digest, owner"
    )


def _create_counts() -> None:
    op.create_table(
        "usage",
        sa.Column("owner", text(255), nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_usage"),
    )
    op.create_table(
        "totals",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("blobs", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_totals"),
    )
    op.execute("INSERT INTO usage SELECT owner, count(*), sum(size) FROM files GROUP BY owner")
    op.execute(
        "INSERT INTO totals SELECT 1, count(*), coalesce(sum(size), 0) "
        "FROM (SELECT max(size) AS size FROM files GROUP BY digest) AS blobs"
    )
