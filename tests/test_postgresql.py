"""What is PostgreSQL's own in the catalogue: locks, lost connections, and commits whose answer never came."""

import threading
import time
from collections.abc import Iterator

import pytest

from filestored.catalogue import connecting
from filestored.catalogue.address import PostgresAddress, without_password
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.postgresql import MANY_NAMES, READERS, SLOTS, PostgresDatabase
from filestored.catalogue.records import FileRecord, Usage
from filestored.digest import Digest
from filestored.errors import CatalogueBusy, CatalogueConflict, CatalogueUnavailable, StartError
from tests.bad_days.test_races import run_together
from tests.cutting import Cut, network
from tests.postgres import Database, PostgresServer

DIGESTS = [Digest(f"{number:064x}") for number in range(2 * MANY_NAMES)]


def record(digest: Digest, owner: str = "a") -> FileRecord:
    return FileRecord(digest, owner, None, "a/b", 3, 1, None)


def read_often(catalogue: Catalogue) -> None:
    for _ in range(50):
        catalogue.note("x")


@pytest.fixture
def prepared(database: Database) -> Database:
    Catalogue.prepare(database.address)
    return database


@pytest.fixture
def catalogue(prepared: Database) -> Iterator[Catalogue]:
    opened = Catalogue(prepared.address, durable=True)
    yield opened
    opened.close()


def test_transactions_about_different_files_go_on_side_by_side(prepared: Database, catalogue: Catalogue) -> None:
    other = Catalogue(prepared.address, durable=True)
    with catalogue.transaction(DIGESTS[:1]) as first:
        first.insert(record(DIGESTS[0]), is_first=True)
        with other.transaction(DIGESTS[1:2]) as second:
            second.insert(record(DIGESTS[1], "b"), is_first=True)
        assert other.find(DIGESTS[1])
        assert not other.find(DIGESTS[0])
    assert other.usage(None) == Usage(2, 2, 6)
    other.close()


@pytest.mark.parametrize("names", [DIGESTS[:1], DIGESTS, []])
def test_whoever_counts_anew_or_changes_very_many_is_alone(
    prepared: Database, catalogue: Catalogue, names: list[Digest]
) -> None:
    other = Catalogue(prepared.address, durable=True)
    done = threading.Event()

    def wait() -> None:
        with other.transaction(names):
            done.set()

    with catalogue.transaction(alone=True):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not done.wait(0.3)
    thread.join(20)
    assert done.is_set()
    other.close()


def test_many_writers_in_any_order_never_stand_in_each_others_way(prepared: Database) -> None:
    """Each names the same files, and gives to and takes from the same owners, in an order of its own."""

    def write(number: int) -> None:
        catalogue = Catalogue(prepared.address, durable=False)
        for step in range(25):
            mine = DIGESTS[(number * 7 + step) % 5 :: 3][:20][:: 1 if number % 2 else -1]
            with catalogue.transaction(mine) as transaction:
                for digest in mine:
                    rows = transaction.find(digest)
                    own = [file for file in rows if file.owner == f"o{(number + step) % 3}"]
                    if own:
                        transaction.delete(own, are_last=len(rows) == 1)
                    else:
                        transaction.insert(record(digest, f"o{(number + step) % 3}"), is_first=not rows)
        catalogue.close()

    run_together(6, write)
    catalogue = Catalogue(prepared.address, durable=False)
    assert catalogue.counts_agree()
    catalogue.close()


def test_a_deadlock_is_told_as_what_may_be_done_again(prepared: Database, catalogue: Catalogue) -> None:
    other = Catalogue(prepared.address, durable=True)
    failures: list[Exception] = []
    both = threading.Barrier(2)

    def cross(one: Catalogue, notes: list[str]) -> None:
        try:
            with one.transaction() as transaction:
                transaction.set_note(notes[0], "x")
                both.wait(10)
                transaction.set_note(notes[1], "x")
        except CatalogueConflict as error:
            failures.append(error)

    threads = [
        threading.Thread(target=cross, args=arguments) for arguments in ((catalogue, ["a", "b"]), (other, ["b", "a"]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(failures) == 1
    assert {catalogue.note("a"), catalogue.note("b")} == {"x"}
    other.close()


def test_a_wait_for_another_ends(prepared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connecting._SESSION, "lock_timeout", 300)
    one, other = (Catalogue(prepared.address, durable=True) for _ in range(2))
    with one.transaction(DIGESTS[:1]):
        began = time.monotonic()
        with pytest.raises(CatalogueBusy), other.transaction(DIGESTS[:1]):
            pass
        assert 0.2 < time.monotonic() - began < 5
    with other.transaction(DIGESTS[:1]) as transaction:
        transaction.insert(record(DIGESTS[0]), is_first=True)
    one.close()
    other.close()


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_commit_whose_answer_never_came_is_looked_up(prepared: Database, is_answered: bool) -> None:
    with network(prepared.url, Cut(b"COMMIT", is_answered)) as address:
        catalogue = Catalogue(address, durable=True)
        try:
            with catalogue.transaction(DIGESTS[:1]) as transaction:
                transaction.insert(record(DIGESTS[0]), is_first=True)
            was_kept = True
        except CatalogueConflict:
            was_kept = False
        assert was_kept is is_answered
        assert bool(catalogue.find(DIGESTS[0])) is is_answered
        with catalogue.transaction(DIGESTS[:1]) as transaction:
            assert transaction.is_named(DIGESTS[0]) is is_answered
        catalogue.close()


def test_a_commit_is_not_taken_for_that_of_another_with_the_same_number(
    prepared: Database, catalogue: Catalogue
) -> None:
    """As it is after a crash, which may give the number of a transaction that was lost to the next one."""
    database = catalogue._database
    assert isinstance(database, PostgresDatabase)
    with catalogue.transaction() as transaction:
        transaction.set_note("x", "y")
        number = transaction._session.transaction_id  # type: ignore[attr-defined]
    ((word,),) = prepared.execute("SELECT value FROM notes WHERE name = %s", database._word)
    assert word.startswith(f"{number} ")
    assert database._outcome(number, word) == "committed"
    assert database._outcome(number, f"{number} another") == "aborted"
    assert database._outcome(str(int(number) + 1000), word) is None


def test_words_of_commits_do_not_pile_up(prepared: Database) -> None:
    for _ in range(3):
        catalogue = Catalogue(prepared.address, durable=True)
        with catalogue.transaction() as transaction:
            transaction.set_note("x", "y")
        catalogue.close()
    prepared.execute("INSERT INTO notes VALUES ('commit abc', '77 1000'), ('commit def', %s)", f"78 {time.time_ns()}")
    Catalogue.prepare(prepared.address)
    assert prepared.execute("SELECT name FROM notes ORDER BY name") == [("commit def",), ("x",)]


def test_a_transaction_that_loses_its_connection_half_way_may_be_done_again(prepared: Database) -> None:
    with network(prepared.url, Cut(b"INSERT INTO files", is_answered=True)) as address:
        catalogue = Catalogue(address, durable=True)
        with pytest.raises(CatalogueConflict), catalogue.transaction(DIGESTS[:1]) as transaction:
            transaction.insert(record(DIGESTS[0]), is_first=True)
        assert not catalogue.find(DIGESTS[0])
        with catalogue.transaction(DIGESTS[:1]) as transaction:
            transaction.insert(record(DIGESTS[0]), is_first=True)
        assert catalogue.find(DIGESTS[0])
        catalogue.close()


def test_reading_and_writing_go_on_where_connections_were_ended(prepared: Database, catalogue: Catalogue) -> None:
    run_together(READERS, lambda _: read_often(catalogue))
    with catalogue.transaction() as transaction:
        transaction.set_note("x", "y")
    for _ in range(3):
        prepared.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
        assert catalogue.note("x") == "y"
        with catalogue.transaction() as transaction:
            transaction.set_note("x", "y")


def test_connections_are_bounded(prepared: Database, catalogue: Catalogue) -> None:
    run_together(12, lambda _: read_often(catalogue))
    with catalogue.transaction():
        ((count,),) = prepared.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert 1 < count <= READERS + 1


def test_an_outage_is_waited_for_at_first_and_then_told_at_once(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres)
    Catalogue.prepare(database.address)
    catalogue = Catalogue(database.address, durable=True)
    catalogue.note("x")
    own_postgres.stop()
    back = threading.Timer(1.5, own_postgres.start)
    back.start()
    began = time.monotonic()
    assert catalogue.note("x") is None
    assert time.monotonic() - began < 5
    back.join()
    own_postgres.stop()
    with pytest.raises(CatalogueUnavailable):
        catalogue.note("x")
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(CatalogueUnavailable):
            catalogue.note("x")
        with pytest.raises(CatalogueUnavailable), catalogue.transaction():
            pass
    assert time.monotonic() - began < 5
    own_postgres.start()
    time.sleep(1)
    assert catalogue.note("x") is None
    with catalogue.transaction() as transaction:
        transaction.set_note("x", "y")
    catalogue.close()


def test_totals_are_spread_and_summed(prepared: Database, catalogue: Catalogue) -> None:
    database = catalogue._database
    assert isinstance(database, PostgresDatabase)
    with catalogue.transaction(DIGESTS[:1]) as transaction:
        transaction.insert(record(DIGESTS[0]), is_first=True)
    prepared.execute("INSERT INTO totals VALUES (%s, -1, -3)", SLOTS + 1)
    assert catalogue.usage(None) == Usage(1, 0, 0)
    prepared.execute("DELETE FROM totals WHERE id = %s", SLOTS + 1)
    assert catalogue.counts_agree()


def test_what_acknowledges_waits_for_the_disk_also_where_the_database_does_not_by_default(prepared: Database) -> None:
    prepared.execute(f"ALTER DATABASE {prepared.name} SET synchronous_commit = off")
    found = []
    for durable in (True, False):
        catalogue = Catalogue(prepared.address, durable=durable)
        for flushed in (True, False):
            with catalogue.transaction(flushed=flushed) as transaction:
                connection = transaction._session.connection  # type: ignore[attr-defined]
                found.append(connection.execute("SHOW synchronous_commit").fetchone()[0])
        catalogue.close()
    assert found == ["on", "off", "off", "off"]


def test_a_catalogue_that_a_daemon_uses_is_not_migrated_under_it(prepared: Database) -> None:
    Catalogue.prepare(prepared.address, may_change=False)
    prepared.execute("UPDATE alembic_version SET version_num = '0002'")
    with pytest.raises(StartError, match="restart that"):
        Catalogue.prepare(prepared.address, may_change=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:se:cr@et@h/d?x=1", "postgresql://u:***@h/d?x=1"),
        ("postgresql://u:sec/ret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:sec?r#et@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u@h/d?password=secret&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
        ("/a/path", "/a/path"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert str(PostgresAddress(text)) == shown
    assert "secret" not in repr(PostgresAddress(text))
