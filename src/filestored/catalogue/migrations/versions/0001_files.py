"""Files and removals."""

import sqlalchemy as sa
from alembic import op

from filestored.catalogue.columns import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first two tables."""
    op.create_table(
        "files",
        sa.Column("digest", text(128), nullable=False),
        sa.Column("owner", text(255), nullable=False),
        sa.Column("name", text(), nullable=True),
        sa.Column("media_type", text(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("digest", "owner", name="pk_files"),
    )
    op.create_table(
        "removals",
        sa.Column("digest", text(128), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_removals"),
    )


def downgrade() -> None:
    """Undo upgrade()."""
    op.drop_table("removals")
    op.drop_table("files")
