"""docs/storage-layout.md has what lies in a store, and the tables of the catalogue, as they are."""

import re
import sqlite3
from pathlib import Path

import httpx

from filestored.catalogue.tables import schema
from filestored.keeping import CATALOGUE_NOTE
from filestored.passes import NOTE
from filestored.recovery import STORE_NOTE
from filestored.signing import KEY_NOTE
from tests.conftest import StartDaemon
from tests.documents.pages import ROOT, blocks, read, rows, section

TEXT = read("docs/storage-layout.md")
CATALOGUE = section(TEXT, "## The catalogue")
SOURCES = "\n".join(path.read_text() for path in (ROOT / "src" / "filestored").rglob("*.py"))

OF_SQLITE = {"catalogue.sqlite3-wal", "catalogue.sqlite3-shm"}


def names() -> set[str]:
    """Return what the page names in ``.filestored`` of a store on the disk."""
    _, block = blocks(TEXT)[0]
    return set(re.findall(r"^(?:<store>/\.filestored/| {20})([\w.-]+)/? ", block, re.MULTILINE))


def test_all_that_lies_in_a_used_store_is_documented(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon(store=tmp_path / "store")
    httpx.post(daemon.url, content=b"a file", params={"expires_in": "1h"})
    there = {path.name for path in (tmp_path / "store" / ".filestored").iterdir()}
    assert len(there) > 6
    assert there - OF_SQLITE <= names()


def test_all_that_is_documented_is_the_programs() -> None:
    assert len(names()) > 12
    assert [name for name in names() if f'"{name}"' not in SOURCES] == []


def test_the_tables_are_those_of_the_catalogue() -> None:
    described = section(f"# t\n{CATALOGUE.partition('Its revision')[0]}", "# t")
    documented = {
        name: columns.split(", ")
        for row in rows(described)
        for name, columns in re.findall(r"`(\w+)\(([\w, ]+)\)`", row[0])
    }
    assert documented == {table.name: [column.name for column in table.columns] for table in schema.sorted_tables}


def test_the_notes_are_those_of_the_program() -> None:
    (told,) = re.findall(r"^\| `notes\(.*$", CATALOGUE, re.MULTILINE)
    of_commits = "commit …"
    assert set(re.findall(r"\(`([^`)]+)`\)", told)) == {KEY_NOTE, NOTE, STORE_NOTE, CATALOGUE_NOTE, of_commits}


def test_every_revision_is_documented_and_there(start_daemon: StartDaemon, tmp_path: Path) -> None:
    versions = ROOT / "src" / "filestored" / "catalogue" / "migrations" / "versions"
    there = sorted(path.name.partition("_")[0] for path in versions.glob("0*.py"))
    revisions = [row[0].strip("`") for row in rows(CATALOGUE.partition("Its revision")[2])]
    assert revisions == there
    start_daemon(store=tmp_path / "store")
    with sqlite3.connect(tmp_path / "store" / ".filestored" / "catalogue.sqlite3") as catalogue:
        assert catalogue.execute("SELECT version_num FROM alembic_version").fetchall() == [(there[-1],)]
