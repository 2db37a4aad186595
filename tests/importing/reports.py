"""Calling ``import``, and what it leaves: its report, and the files in the catalogue."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.care import Ended, call, execute


class Row(NamedTuple):
    """A file in the catalogue."""

    owner: str
    name: str | None
    type: str
    size: int
    created_at: int
    expires_at: int | None


def import_(
    store: Path, source: Path | str, *flags: str, status: int = 0, env: dict[str, str] | None = None
) -> tuple[dict[str, Any], Ended]:
    """Import, check how it ended, and return the summary."""
    ended = call(store, "import", str(source), "--json", *flags, env=env)
    assert ended.status == status, ended
    assert "Traceback" not in ended.errors
    return ended.json()[-1], ended


def report_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the last line about each item."""
    lines = [json.loads(line) for line in Path(summary["report"]).read_text().splitlines()]
    return {line["source"]: line for line in lines[1:]}


def rows(store: Path) -> dict[str, Row]:
    """Return the files by their hashes."""
    columns = "digest, owner, name, media_type, size, created_at, expires_at"
    return {digest: Row(*rest) for digest, *rest in execute(store, f"SELECT {columns} FROM files")}


def states(summary: dict[str, Any]) -> dict[str, str]:
    """Return what the report says of each item."""
    return {source: line["state"] for source, line in report_of(summary).items()}
