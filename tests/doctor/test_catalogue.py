"""The catalogue in a file and in PostgreSQL: lost, damaged, of another version, of another store, out of reach."""

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Daemon
from tests.doctor.examining import doctor, look_at
from tests.postgres import Database


def test_a_catalogue_that_is_lost(stopped: Path) -> None:
    for path in (stopped / ".filestored").glob("catalogue.sqlite3*"):
        path.unlink()
    assert "filestored reindex" in look_at("catalogue", stopped).of("catalogue", "fault")["mend"]
    assert not (stopped / ".filestored/catalogue.sqlite3").exists()


def test_a_catalogue_that_is_damaged(stopped: Path) -> None:
    catalogue = stopped / ".filestored/catalogue.sqlite3"
    catalogue.write_bytes(b"no database at all" * 500)
    told = look_at("catalogue", stopped)
    assert "cannot be used" in told.of("catalogue", "fault")["found"]
    assert "backup" in told.of("catalogue", "fault")["mend"]


@pytest.mark.parametrize(
    ("revision", "state", "found"),
    [("9999", "fault", "newer version"), ("0003", "good", "the next start brings it up to date")],
)
def test_a_catalogue_of_another_version(stopped: Path, revision: str, state: str, found: str) -> None:
    with closing(sqlite3.connect(stopped / ".filestored/catalogue.sqlite3")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    assert found in look_at("catalogue", stopped).of("catalogue", state)["found"]


def test_a_database_that_cannot_be_reached(stopped: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret@127.0.0.1:{closed.getsockname()[1]}/files"
        told = doctor(stopped, "--catalogue", url, "--port", "0")
    assert "cannot be used" in told.of("catalogue", "fault")["found"]
    assert "secret" not in json.dumps(told.findings)


def test_a_database_without_tables_and_one_of_another_store(stopped: Path, database: Database) -> None:
    flags = ("--catalogue", database.url, "--port", "0")
    assert "no tables yet" in look_at("catalogue", stopped, *flags).of("catalogue", "good")["found"]
    other = Daemon(stopped.parent / "other", "--workers", "1", "--catalogue", database.url)
    try:
        other.start()
        assert other.stop() == 0
    finally:
        other.kill()
    assert "belongs to another store" in look_at("catalogue", stopped, *flags).of("catalogue", "fault")["found"]
    assert "can be read and written" in look_at("catalogue", other.store, *flags).of("catalogue", "good")["found"]
