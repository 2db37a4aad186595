"""Bringing a catalogue's tables to the shape this program needs."""

from pathlib import Path

from loguru import logger
from sqlalchemy import Connection, inspect, text

from filestored.errors import StartError

LATEST = "0004"
"""The newest revision in ``migrations/versions``; a test compares the two."""

CARRIED_FORWARD = ("0001", "0002", "0003")
"""The earlier ones."""


class EarlierCatalogue(StartError):
    """The tables are of an earlier version, and may not be changed now."""


def upgrade(connection: Connection, shown_as: str, *, may_change: bool = True) -> bool:
    """Create or migrate the tables, inside the transaction of a connection; tell whether there were none.

    Raises StartError where a newer program has changed them already, or ``may_change`` forbids it.
    """
    current = _revision(connection)
    if current == LATEST:
        return False
    if current is not None:
        _require_earlier(current, shown_as, may_change=may_change)
        logger.info("the catalogue {} is brought from revision {} to {}", shown_as, current, LATEST)
    # importing Alembic takes longer than everything else at start: only where there is work for it
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return current is None


def require_current(current: str, shown_as: str) -> None:
    """Raise StartError where the tables are of another version than this program's: EarlierCatalogue if older."""
    if current != LATEST:
        _require_earlier(current, shown_as, may_change=False)


def _require_earlier(current: str, shown_as: str, *, may_change: bool) -> None:
    if current not in CARRIED_FORWARD:
        raise StartError(
            f"the catalogue {shown_as} was changed by a newer version (revision {current}); upgrade this program"
        )
    if not may_change:
        raise EarlierCatalogue(
            f"the catalogue {shown_as} is of an earlier version of filestored (revision {current}), and a daemon is "
            "using it; restart that with this version first"
        )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
