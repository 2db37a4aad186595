"""Buckets and clusters: removals that were sent, where an upload lies, daemons, leases. No way back but a backup."""

import sqlalchemy as sa
from alembic import op

from filestored.catalogue.columns import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for what several daemons have to know of each other."""
    op.add_column("removals", sa.Column("sent_at", sa.BigInteger, nullable=True))
    op.add_column("uploads", sa.Column("daemon", text(32), nullable=True))
    op.create_table(
        "daemons",
        sa.Column("id", text(32), nullable=False),
        sa.Column("url", text(), nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("incarnation", text(32), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_daemons"),
    )
    op.create_table(
        "leases",
        sa.Column("name", text(64), nullable=False),
        sa.Column("holder", text(64), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
