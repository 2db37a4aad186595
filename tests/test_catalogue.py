"""The catalogue: its tables, its transactions, and what happens when two write at once."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import filestored.catalogue
from filestored.catalogue import schema
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.listing import Pattern, Query, Sort
from filestored.catalogue.records import FileRecord, Usage
from filestored.catalogue.tables import schema as tables
from filestored.digest import Digest
from filestored.errors import StartError

DIGEST = Digest("ab" * 32)


def record(owner: str = "a", created_at: int = 1) -> FileRecord:
    return FileRecord(DIGEST, owner, "name", "text/plain", 3, created_at, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Catalogue.prepare(tmp_path / "catalogue.sqlite3")
    return tmp_path / "catalogue.sqlite3"


@pytest.fixture
def catalogue(path: Path) -> Catalogue:
    return Catalogue(path, durable=False)


def test_the_migrations_make_the_tables_that_the_program_uses(path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_the_program_asks_for() -> None:
    folder = Path(filestored.catalogue.__file__).parent / "migrations"
    scripts = ScriptDirectory(folder)
    assert scripts.get_current_head() == schema.LATEST
    assert {script.revision for script in scripts.walk_revisions()} == {*schema.CARRIED_FORWARD, schema.LATEST}


ROWS = [
    (f"{n:064x}", owner, f"Имя{n}" if n else None, "a/b", n, n, None)
    for n in range(1500)
    for owner in ("anna", "boris")
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A catalogue of the first version, with some files and a removal."""
    path = tmp_path / "old.sqlite3"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(filestored.catalogue.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(path) as first:
        first.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", ROWS)
        first.execute("INSERT INTO removals VALUES (?)", ("ff" * 32,))
    first.close()
    return path


def test_a_catalogue_of_the_first_version_is_carried_forward_with_all_it_holds(old: Path) -> None:
    path = old
    Catalogue.prepare(path)
    catalogue = Catalogue(path, durable=False)
    assert catalogue.find(Digest(ROWS[-1][0])) == [FileRecord(*row) for row in ROWS[-2:]]  # type: ignore[arg-type]
    assert catalogue.counts_agree()
    assert catalogue.usage(None) == Usage(3000, 1500, sum(range(1500)))
    page = catalogue.read_page(Query(2, Sort.NAME, None, Pattern.parse("имя1499")), "anna", 0)
    assert [file.name for file in page.files] == ["Имя1499"]
    with catalogue.transaction() as transaction:
        assert transaction.take_removals() == ["ff" * 32]
    catalogue.close()
    Catalogue.prepare(path)


def test_a_migration_that_fails_half_way_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("the power is gone")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(StartError, match="power"):
        Catalogue.prepare(old)
    monkeypatch.undo()
    connection = sqlite3.connect(old)
    assert connection.execute("SELECT * FROM files ORDER BY created_at, owner").fetchall() == ROWS
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    connection.close()
    Catalogue.prepare(old)


def test_a_catalogue_that_a_daemon_uses_is_not_migrated_under_it(old: Path) -> None:
    with pytest.raises(StartError, match="restart that"):
        Catalogue.prepare(old, may_change=False)


def test_files_are_found_first_owner_first(catalogue: Catalogue) -> None:
    with catalogue.transaction() as transaction:
        transaction.insert(record("late", 2), is_first=True)
        transaction.insert(record("early", 1), is_first=False)
    assert [file.owner for file in catalogue.find(DIGEST)] == ["early", "late"]
    catalogue.close()


def test_a_transaction_that_fails_leaves_nothing(catalogue: Catalogue) -> None:
    def fail() -> None:
        with catalogue.transaction() as transaction:
            transaction.insert(record(), is_first=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert catalogue.find(DIGEST) == []
    catalogue.close()


def test_a_second_writer_waits_for_the_first(path: Path, catalogue: Catalogue) -> None:
    other = Catalogue(path, durable=False)
    done = threading.Event()

    def write() -> None:
        with other.transaction() as transaction:
            transaction.insert(record("second"), is_first=False)
        done.set()

    with catalogue.transaction() as transaction:
        transaction.insert(record("first"), is_first=True)
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.3)
    thread.join(10)
    assert done.is_set()
    assert len(catalogue.find(DIGEST)) == 2
    catalogue.close()


def test_programs_that_start_together_prepare_one_catalogue(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from filestored.catalogue.catalogue import Catalogue; "
    code += "Catalogue.prepare(Path(sys.argv[1]))"
    programs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "c.sqlite3")]) for _ in range(3)]
    assert [program.wait(30) for program in programs] == [0, 0, 0]


def test_a_catalogue_of_a_newer_program_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StartError, match="newer version"):
        Catalogue.prepare(path)


def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a database, certainly not one" * 100)
    with pytest.raises(StartError, match="cannot be used"):
        Catalogue.prepare(tmp_path / "c")
    with pytest.raises(StartError, match="cannot be used"):
        Catalogue.prepare(tmp_path / "missing" / "c")
