"""What a database does for the catalogue, whichever it is: SQLite, or PostgreSQL."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from filestored.catalogue.statements import Prepared

Row = tuple[Any, ...]


class Session(Protocol):
    """A connection, as statements are run on it. What goes wrong is a CatalogueError."""

    def all(self, statement: Prepared, **values: object) -> list[Row]:
        """Run a statement; return all rows. The values are those of its parameters."""

    def one(self, statement: Prepared, **values: object) -> Row | None:
        """Run a statement; return its first row, None where there is none."""

    def change(self, statement: Prepared, **values: object) -> int:
        """Run a statement; return how many rows it has changed."""


class WriteSession(Session, Protocol):
    """A connection inside a write transaction."""

    @property
    def slot(self) -> int:
        """Which row of ``totals`` it adds to: one that few others do."""

    def lock_now(self, names: Iterable[str]) -> list[str]:
        """Lock names besides those of the transaction; return those that nobody else has at this moment."""


class Database(Protocol):
    """Connections to one database. Reads may come from any thread, write transactions from one at a time."""

    @property
    def reads(self) -> Session:
        """What reads, each statement by itself; and changes by itself what may be changed twice."""

    def snapshot(self) -> AbstractContextManager[Session]:
        """Return a block whose statements all see the same moment, however long they take."""

    def transaction(
        self, names: Iterable[str], *, flushed: bool, alone: bool, must_last: bool
    ) -> AbstractContextManager[WriteSession]:
        """Return a write transaction; see ``Catalogue.transaction``."""

    def require_in_place(self) -> None:
        """Raise CatalogueError where what was opened is not the catalogue any more."""

    def close(self) -> None:
        """Close all connections."""

    def limit_log(self) -> None:
        """See ``Catalogue.limit_wal``."""

    def give_back_log(self) -> bool:
        """See ``Catalogue.give_back_wal``."""

    def is_log_worth_giving_back(self) -> bool:
        """See ``Catalogue.is_wal_worth_giving_back``."""

    def reuse_log(self) -> None:
        """See ``Catalogue.reuse_wal``."""
