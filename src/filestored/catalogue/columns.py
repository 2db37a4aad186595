"""The types of the catalogue's columns, the same to both databases."""

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine


def text(length: int | None = None) -> TypeEngine[str]:
    """Return a text that is compared byte by byte, as SQLite does: whatever the database's own order of letters is.

    The length is only a hint, which SQLite does not hold to, and so PostgreSQL is not to either.
    """
    return (sa.Text() if length is None else sa.String(length)).with_variant(sa.TEXT(collation="C"), "postgresql")


def row_number() -> TypeEngine[int]:
    """Return a number of 64 bits that tells rows apart, and is made when there is none."""
    # what SQLite calls INTEGER has 64 bits, and only by that name it is the table's own order
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")
