"""Resumable uploads. There is no way back but a backup."""

import sqlalchemy as sa
from alembic import op

from filestored.catalogue.columns import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for uploads under way."""
    op.create_table(
        "uploads",
        sa.Column("id", text(32), nullable=False),
        sa.Column("owner", text(255), nullable=False),
        sa.Column("details", text(), nullable=False),
        sa.Column("concat", text(), nullable=True),
        sa.Column("length", sa.BigInteger, nullable=True),
        sa.Column("flushed", sa.BigInteger, nullable=False),
        sa.Column("digest", text(128), nullable=True),
        sa.Column("joined_as", text(32), nullable=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    under_way = sa.text("digest IS NULL AND joined_as IS NULL")
    op.create_index(
        "ix_uploads_owner", "uploads", ["owner", "flushed"], sqlite_where=under_way, postgresql_where=under_way
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
