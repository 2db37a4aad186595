"""The catalogue in a file and in PostgreSQL: lost, damaged, of another version, of another store, out of reach."""

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from filestored.catalogue.sqlite import find_damage
from filestored.doctor.cataloguefile import judge_failure
from tests.bad_days.test_full_disk import MakeDisk, make_disk
from tests.care import call
from tests.conftest import Daemon
from tests.doctor.examining import NOBODY, doctor, look_at, nobody
from tests.postgres import Database

__all__ = ["make_disk"]


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


def test_a_catalogue_that_is_empty_is_lost_as_well(stopped: Path) -> None:
    (stopped / ".filestored/catalogue.sqlite3").write_bytes(b"")
    found = look_at("catalogue", stopped).of("catalogue", "fault")
    assert "is empty, and files are" in found["found"]
    assert "backup" in found["mend"]


def test_a_store_of_an_earlier_program_has_lost_nothing(folder: Path) -> None:
    (folder / "5d").mkdir()
    (folder / "5d" / "5d41402abc4b2a76b9719d911017c592").write_bytes(b"hello")
    assert "filestored reindex" in look_at("catalogue", folder).of("catalogue", "good")["found"]
    assert [each.name for each in folder.iterdir()] == ["5d"]


def test_pages_that_are_damaged(stopped: Path) -> None:
    catalogue = stopped / ".filestored/catalogue.sqlite3"
    with closing(sqlite3.connect(catalogue)) as connection:
        # what is still in the log would be read in place of the pages
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = bytearray(catalogue.read_bytes())
    assert len(pages) > 12 * 4096
    # the first two have the version and the tables: it opens well
    pages[7 * 4096 : 11 * 4096] = os.urandom(4 * 4096)
    catalogue.write_bytes(pages)
    found = look_at("catalogue", stopped).of("catalogue", "fault")
    assert "is damaged" in found["found"]
    assert "backup" in found["mend"]


def test_a_look_at_pages_ends_in_time(stopped: Path) -> None:
    catalogue = stopped / ".filestored/catalogue.sqlite3"
    assert find_damage(catalogue, 60.0) == ""
    assert find_damage(catalogue, 0.0) == ""


def test_a_disk_that_fails_is_no_reason_to_give_the_catalogue_up(stopped: Path) -> None:
    (found,) = judge_failure(stopped / ".filestored/catalogue.sqlite3", "disk I/O error")
    assert "leave the catalogue as it is" in found.mend
    assert "reindex" not in found.mend


def test_a_full_disk_is_no_damage(make_disk: MakeDisk) -> None:
    catalogue = make_disk("size=256k").with_name("catalogue.sqlite3")
    catalogue.touch()
    (found,) = judge_failure(catalogue, "disk I/O error")
    assert "make room" in found.mend
    assert "reindex" not in found.mend


@pytest.mark.root
def test_a_catalogue_of_somebody_else_is_given_back(stopped: Path) -> None:
    os.chown(stopped, NOBODY, NOBODY)
    for each in stopped.rglob("*"):
        os.chown(each, NOBODY, NOBODY)
    catalogue = stopped / ".filestored/catalogue.sqlite3"
    os.chown(catalogue, 0, 0)
    catalogue.chmod(0o600)
    with nobody():
        mends = [look_at(check, stopped).of(check, "fault")["mend"] for check in ("catalogue", "permissions")]
    assert [each.split()[:3] for each in mends] == [["as", "root:", "chown"]] * 2
    assert all(each.endswith(f" {catalogue}") for each in mends)


def test_a_catalogue_that_was_made_anew_is_told_of_until_it_is_mended(stopped: Path) -> None:
    for path in (stopped / ".filestored").glob("catalogue.sqlite3*"):
        path.unlink()
    daemon = Daemon(stopped, "--workers", "1")
    try:
        daemon.start()
        assert daemon.stop() == 0
        assert "was lost and is made anew" in daemon.read_log()
        assert "lost, and made anew at" in look_at("catalogue", stopped).of("catalogue", "warning")["found"]
        assert call(stopped, "reindex").status == 0
        assert "1 files" in look_at("catalogue", stopped).of("catalogue", "good")["found"]
        daemon.start()
        assert daemon.stop() == 0
        assert daemon.read_log().count("is made anew") == 1
    finally:
        daemon.kill()


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
