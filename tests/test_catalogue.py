"""The catalogue: its tables, its transactions, and what happens when two write at once."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import filestored.catalogue
from filestored.catalogue import schema
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.indexes import schema as tables
from filestored.catalogue.listing import Pattern, Query, Sort
from filestored.catalogue.records import FileRecord, TokenRecord, UploadRecord, Usage
from filestored.digest import Digest
from filestored.errors import CatalogueError, CatalogueMissing, StartError

DIGEST = Digest("ab" * 32)


def record(owner: str = "a", created_at: int = 1) -> FileRecord:
    return FileRecord(DIGEST, owner, "name", "text/plain", 3, created_at, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Catalogue.prepare(tmp_path / "catalogue.sqlite3")
    return tmp_path / "catalogue.sqlite3"


@pytest.fixture
def catalogue(address: Address) -> Iterator[Catalogue]:
    Catalogue.prepare(address)
    opened = Catalogue(address, durable=False)
    yield opened
    opened.close()


def engine_of(address: Address) -> sa.Engine:
    if isinstance(address, Path):
        return sa.create_engine(f"sqlite:///{address}")
    return sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(address.url))


def test_the_migrations_make_the_tables_that_the_program_uses(address: Address) -> None:
    Catalogue.prepare(address)
    engine = engine_of(address)

    def is_meant(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        meant_for = getattr(item, "_ddl_if", None)
        return meant_for is None or meant_for.dialect == engine.dialect.name

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_meant})
        assert compare_metadata(context, tables) == []
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
        first.execute("INSERT INTO removals (digest) VALUES (?)", ("ff" * 32,))
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


def test_a_transaction_that_fails_leaves_nothing(catalogue: Catalogue) -> None:
    def fail() -> None:
        with catalogue.transaction() as transaction:
            transaction.insert(record(), is_first=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert catalogue.find(DIGEST) == []


def test_a_second_writer_of_the_same_file_waits_for_the_first(address: Address, catalogue: Catalogue) -> None:
    other = Catalogue(address, durable=False)
    done = threading.Event()

    def write() -> None:
        with other.transaction([DIGEST]) as transaction:
            transaction.insert(record("second"), is_first=False)
        done.set()

    with catalogue.transaction([DIGEST]) as transaction:
        transaction.insert(record("first"), is_first=True)
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.3)
    thread.join(10)
    assert done.is_set()
    assert len(catalogue.find(DIGEST)) == 2
    assert catalogue.counts_agree()
    other.close()


def test_what_is_locked_by_one_is_left_out_by_who_takes_what_is_free(address: Address, catalogue: Catalogue) -> None:
    free = Digest("cd" * 32)
    with catalogue.transaction([DIGEST, free]) as transaction:
        for digest in (DIGEST, free):
            transaction.insert(replace(record(), digest=digest, expires_at=5), is_first=True)
            transaction.add_removal(digest)
    if isinstance(address, Path):
        with catalogue.transaction() as transaction:
            assert transaction.expired(10, 10) == [DIGEST, free]
            assert sorted(transaction.take_removals()) == [DIGEST, free]
        return
    other = Catalogue(address, durable=False)
    with catalogue.transaction([DIGEST]), other.transaction() as transaction:
        assert transaction.expired(10, 10) == [free]
        assert transaction.take_removals() == [free]
    with other.transaction([DIGEST]) as transaction:
        assert transaction.take_removals() == [DIGEST]
    other.close()


def test_programs_that_start_together_prepare_one_catalogue(address: Address) -> None:
    code = "import sys; from pathlib import Path; from filestored.catalogue.address import PostgresAddress; "
    code += "from filestored.catalogue.catalogue import Catalogue; text = sys.stdin.read(); "
    code += "Catalogue.prepare(PostgresAddress(text) if '://' in text else Path(text))"
    told = str(address) if isinstance(address, Path) else address.url
    programs = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(4)]
    for program in programs:
        assert program.stdin is not None
        program.stdin.write(told.encode())
        program.stdin.close()
    assert [program.wait(60) for program in programs] == [0, 0, 0, 0]


def test_a_catalogue_of_a_newer_program_is_refused(address: Address) -> None:
    Catalogue.prepare(address)
    engine = engine_of(address)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StartError, match="newer version"):
        Catalogue.prepare(address)


def test_numbers_of_64_bits_and_texts_in_any_script_come_back_as_they_were(catalogue: Catalogue) -> None:
    large = 2**62
    file = FileRecord(DIGEST, "", "Ünïcode 名前 😀 \U0010ffff %s %(x)s", 'a/b; c="%"', large, large + 1, large + 2)
    upload = UploadRecord("ab" * 16, "a", "x" * 5000, None, None, large, None, None, 1, large)
    token = TokenRecord("cd" * 6, "a", "ef" * 32, "read", 1, None, large)
    with catalogue.transaction([DIGEST, upload.id]) as transaction:
        transaction.insert(file, is_first=True)
        transaction.add_upload(upload)
        assert transaction.add_token(token)
        assert not transaction.add_token(replace(token, id="another"))
        transaction.set_note("key", "old")
        transaction.set_note("key", "new")
        transaction.add_note("key", "newer")
    assert catalogue.find(DIGEST) == [file]
    assert catalogue.find_all([DIGEST]) == {DIGEST: [file]}
    assert catalogue.find_upload(upload.id) == upload
    assert catalogue.tokens() == [token]
    assert catalogue.note("key") == "new"
    assert catalogue.usage("") == catalogue.usage(None) == Usage(1, 1, large)
    assert all(type(number) is int for number in astuple(catalogue.usage(None)))
    assert catalogue.bytes_of("", large + 3) == 0
    assert catalogue.uploads_under_way("a") == catalogue.uploads_under_way(None) == (1, large)
    assert catalogue.ended_uploads(large, 5) == [upload]
    assert catalogue.live_digests("a", "b", 1) == {DIGEST: large}
    assert (catalogue.largest_of(""), catalogue.largest_of("x"), catalogue.has_size("", large)) == (large, 0, True)
    assert catalogue.counts_agree()


def test_counting_anew_mends_counts_that_went_wrong(catalogue: Catalogue) -> None:
    with catalogue.transaction([DIGEST]) as transaction:
        transaction.insert(record(), is_first=True)
        transaction._gain("nobody", 5, 5)
        transaction._gain_blob(3, 1)
    assert not catalogue.counts_agree()
    with catalogue.transaction(alone=True) as transaction:
        transaction.count_anew()
    assert catalogue.counts_agree()
    assert catalogue.usage(None) == Usage(1, 1, 3)


def test_what_no_name_can_have_is_not_there(catalogue: Catalogue) -> None:
    with catalogue.transaction([DIGEST]) as transaction:
        transaction.insert(record(), is_first=True)
    for sort in Sort:
        for text in ("\0", "name\0", "na*\0"):
            page = catalogue.read_page(Query(5, sort, None, Pattern.parse(text), Pattern.parse("text")), "a", 0)
            assert page.files == []
    assert catalogue.note("\0") is None


def test_an_error_of_the_database_is_the_catalogues_own(address: Address, catalogue: Catalogue) -> None:
    engine = engine_of(address)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE removals"))
    engine.dispose()
    with pytest.raises(CatalogueMissing):
        catalogue.is_going(DIGEST)
    with pytest.raises(CatalogueMissing), catalogue.transaction() as transaction:
        transaction.add_removal(DIGEST)
    with catalogue.transaction([DIGEST]) as transaction:
        transaction.insert(record(), is_first=True)
    with pytest.raises(CatalogueError), catalogue.transaction([DIGEST]) as transaction:
        transaction.insert(record(), is_first=False)
    assert catalogue.find(DIGEST) == [record()]


def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a database, certainly not one" * 100)
    with pytest.raises(StartError, match="cannot be used"):
        Catalogue.prepare(tmp_path / "c")
    with pytest.raises(StartError, match="cannot be used"):
        Catalogue.prepare(tmp_path / "missing" / "c")
