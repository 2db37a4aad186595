"""PostgreSQL below the catalogue: what its settings put at risk, and a server that is frozen or lets nobody in."""

import json
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from filestored.catalogue.catalogue import Catalogue
from filestored.doctor.database import judge_clock
from filestored.doctor.findings import State
from tests.doctor.examining import Told, examine, look
from tests.postgres import Database
from tests.proxy import proxy_before


def ask(database: Database, store: Path, *, query: str = "", check: str = "database", **settings: str) -> Told:
    return look(check, {"store": str(store), "catalogue": database.url + query, **settings}, {})


def test_a_server_that_does_not_flush(database: Database, tmp_path: Path) -> None:
    """The servers of tests are such: no machine of theirs ends."""
    found = ask(database, tmp_path).says("database", "fault", "fsync off")
    assert found["mend"] == "switch fsync on in postgresql.conf"
    ask(database, tmp_path, durability="relaxed").says("database", "warning", "fsync")


def test_connections_that_are_too_few(database: Database, tmp_path: Path) -> None:
    ask(database, tmp_path, workers="3").says("database", "good", "1 daemon of 3 workers use up to 17 connections of")
    database.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 16")
    told = ask(database, tmp_path, workers="3")
    assert (
        "max_connections" in told.says("database", "warning", "up to 17 connections, and the server grants 16")["mend"]
    )


def test_more_daemons_than_there_are_locks_for(database: Database, tmp_path: Path) -> None:
    Catalogue.prepare(database.address)
    with closing(Catalogue(database.address, durable=False)) as rows:
        for number in range(11):
            rows.renew_daemon(f"daemon{number}", "http://192.0.2.1:9000", "", 0)
    ask(database, tmp_path, workers="1").says("database", "warning", "max_locks_per_transaction is 64")


def test_settings_of_the_session_that_do_not_arrive(database: Database, tmp_path: Path) -> None:
    told = ask(database, tmp_path, query="?options=-c%20lock_timeout%3D0")
    told.says("database", "warning", "(lock_timeout is 0)")


@pytest.mark.parametrize(
    ("there", "state", "found"),
    [(100.5, State.GOOD, "agree"), (104.0, State.GOOD, "agree"), (110.0, State.WARNING, "9 s behind"),
     (80.0, State.WARNING, "20 s ahead of")],
)  # fmt: skip
def test_a_clock_that_differs(there: float, state: State, found: str) -> None:
    finding = judge_clock(there, 100.0, 101.0)
    assert finding.state == state
    assert found in finding.found


def test_a_user_who_may_only_read(database: Database, tmp_path: Path) -> None:
    Catalogue.prepare(database.address)
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'readers-secret'")
    database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    parts = urlsplit(database.url)
    url = urlunsplit(parts._replace(netloc=f"{role}:readers-secret@{parts.netloc.rpartition('@')[2]}"))
    try:
        told = look("catalogue", {"store": str(tmp_path), "catalogue": url}, {})
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")
    told.says("catalogue", "fault", "may not read and write files, usage")
    assert "readers-secret" not in json.dumps(told.findings)


def test_nothing_is_changed(database: Database, tmp_path: Path) -> None:
    ask(database, tmp_path, check="catalogue").says("catalogue", "good", "has no tables yet")
    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    Catalogue.prepare(database.address)
    database.execute("INSERT INTO notes (name, value) VALUES ('commit old', '7 1')")
    ask(database, tmp_path, check="catalogue").says("catalogue", "good", "can be read and written")
    assert database.execute("SELECT name FROM notes") == [("commit old",)]


def test_a_server_that_is_frozen(database: Database, tmp_path: Path) -> None:
    parts = urlsplit(database.url)
    with proxy_before((str(parts.hostname), int(parts.port or 0))) as proxy:
        proxy.freeze()
        user = parts.netloc.rpartition("@")[0]
        frozen = urlunsplit(parts._replace(netloc=f"{user}@{proxy.url.removeprefix('http://')}"))
        told = examine("--store", str(tmp_path), "--catalogue", frozen, "--port", "0")
        proxy.thaw()
    assert "timeout" in told.of("catalogue", "fault")["found"]
    # nobody waits for it again
    assert told.of("database", "skipped")["found"] == "the server cannot be asked: see catalogue"
    told.of("cluster", "skipped")
    shown = json.dumps(told.findings)
    assert database.server.password not in shown
    assert quote(database.server.password, safe="") not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cr%ZZet@127.0.0.1:1/files", "postgresql://me:s3cret@[::1/files",
        "postgresql://me:s3@cret@127.0.0.1:1/files", "postgresql://me@127.0.0.1:1/files?password=s3cr%ZZet",
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_is_told_without_its_password(tmp_path: Path, url: str) -> None:
    found = look("catalogue", {"store": str(tmp_path), "catalogue": url}, {}).of("catalogue", "fault")["found"]
    assert "cannot be used" in found
    assert "s3cr" not in found
    assert "cret" not in found
