"""Commands on a store whose catalogue is in PostgreSQL: they find it, they work, and nothing shows its password."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from filestored.catalogue.catalogue import Catalogue
from filestored.daemon import running_pid
from tests.care import CLEAN, Ended, call, rot
from tests.conftest import Daemon, StartDaemon
from tests.postgres import Database, PostgresServer
from tests.processes import worker_pids
from tests.tokens import bearer

Run = Callable[..., Ended]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def run(store: Path, tmp_path: Path) -> Iterator[Run]:
    """Run a command in the test's folder; a daemon that it has left running ends with the test."""

    def call_it(*words: str | Path, **variables: str) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "filestored", *words],
            capture_output=True, text=True, timeout=90, cwd=tmp_path, env={**CLEAN, **variables},
        )  # fmt: skip
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    yield call_it
    if running_pid(store) is not None:
        call_it("stop", "--store", store)


def secrets_of(server: PostgresServer) -> tuple[str, str]:
    return server.password, quote(server.password, safe="")


def require_hidden(server: PostgresServer, *texts: str) -> None:
    assert not [text for text in texts if any(secret in text for secret in secrets_of(server))]


def test_a_daemon_is_started_and_restarted_without_showing_the_password(
    database: Database, store: Path, run: Run
) -> None:
    told = run("start", "--store", store, "--port", "0", "--workers", "1", "--catalogue", database.url)
    assert told.status == 0, told.errors
    said = [*told[1:]]
    for _ in range(2):
        pid = running_pid(store)
        assert pid is not None
        for each in (pid, *worker_pids(pid)):
            said.append(Path(f"/proc/{each}/cmdline").read_text())
        status = run("status", "--store", store)
        assert status.status == 0
        url = status.output.split()[-1]
        digest = httpx.post(f"{url}/", content=b"hello", headers={"content-type": "text/plain"}).text
        assert httpx.get(f"{url}/{digest}").text == "hello"
        again = run("restart", "--store", store)
        assert again.status == 0, again.errors
        said += [*status[1:], *again[1:]]
    assert database.execute("SELECT count(*) FROM files") == [(1,)]
    assert not (store / ".filestored" / "catalogue.sqlite3").exists()
    noted = store / ".filestored" / "last-start.json"
    assert noted.stat().st_mode & 0o777 == 0o600
    assert database.url in json.loads(noted.read_text())["variables"].values()
    said += [path.read_text() for path in (store / ".filestored" / "log").iterdir()]
    require_hidden(database.server, *said)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_settings_are_shown_without_the_password(
    database: Database, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "f.toml").write_text(f'catalogue = "{database.url}"\n')
    for ended in (
        run("config", "--catalogue", database.url, *words),
        run("config", *words, FILESTORED_CATALOGUE=database.url),
        run("config", "--config", "f.toml", *words),
    ):
        assert ended.status == 0
        assert f"postgresql://filestored:***@127.0.0.1:{database.server.port}/{database.name}" in ended.output
        require_hidden(database.server, *ended[1:])


def test_a_wrong_address_is_one_line_without_the_password(database: Database, run: Run) -> None:
    wrong = database.url.replace("postgresql://", "postgresql+asyncpg://")
    for ended in (run("run", "--catalogue", wrong), run("run", FILESTORED_CATALOGUE=f"{database.url} ")):
        assert ended.status == 2
        assert "it must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in ended.errors
        assert len(ended.errors.splitlines()) == 1
        require_hidden(database.server, ended.errors)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.url.replace("filestored:", "filestored:wrong"), 'password authentication failed for user "filest'),
        (lambda d: d.url.replace("filestored:", "nobody:"), 'password authentication failed for user "nobody"'),
        (lambda d: d.url + "_not", 'database "{name}_not" does not exist'),
        (lambda d: d.url.replace(f":{d.server.port}/", ":1/"), "Connection refused"),
        (lambda d: d.url.replace("127.0.0.1", "no.such.host.invalid"), "resolve"),
        (lambda d: d.url.replace(f":{d.server.port}/", ":port/"), "invalid integer value"),
        (lambda d: d.url + "?nonsense=1", "invalid URI query parameter"),
        (lambda d: d.url + "?options=-csearch_path%3Dnowhere", "no schema has been selected"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_at_start(
    database: Database, store: Path, run: Run, change: Callable[[Database], str], reason: str
) -> None:
    for words in (("run", "--port", "0"), ("start", "--port", "0"), ("token", "list")):
        if words[0] == "token" and not store.exists():
            continue
        ended = run(*words, "--store", store, "--catalogue", change(database))
        assert ended.status == 1
        assert ended.output == ""
        assert len(ended.errors.splitlines()) == 1, ended.errors
        assert ended.errors.startswith("filestored: the catalogue postgresql://")
        assert reason.format(name=database.name) in ended.errors
        require_hidden(database.server, ended.errors)


def test_a_schema_of_a_newer_program_and_a_user_without_rights_are_one_line_at_start(
    database: Database, store: Path, run: Run
) -> None:
    database.execute("CREATE ROLE reader LOGIN PASSWORD 'pw'")
    try:
        url = f"postgresql://reader:pw@127.0.0.1:{database.server.port}/{database.name}"
        ended = run("run", "--port", "0", "--store", store, "--catalogue", url)
        assert (ended.status, len(ended.errors.splitlines())) == (1, 1)
        assert "permission denied for schema public" in ended.errors
    finally:
        database.execute("DROP ROLE reader")
    Catalogue.prepare(database.address)
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    ended = run("run", "--port", "0", "--store", store, "--catalogue", database.url)
    assert (ended.status, len(ended.errors.splitlines())) == (1, 1)
    assert "newer version" in ended.errors


def test_a_database_that_belongs_to_another_store_is_refused(
    database: Database, store: Path, tmp_path: Path, run: Run
) -> None:
    assert run("gc", "--store", store, "--catalogue", database.url).status == 1
    make = ("token", "create", "anna", "--permissions", "read", "--catalogue", database.url)
    assert run(*make, "--store", store).status == 0
    for words in (make, ("run", "--port", "0", "--catalogue", database.url)):
        ended = run(*words, "--store", tmp_path / "another")
        assert (ended.status, len(ended.errors.splitlines())) == (1, 1)
        assert f"belongs to another store than {tmp_path / 'another'}" in ended.errors
    assert run("token", "list", "--store", store, "--catalogue", database.url).status == 0


@pytest.fixture
def daemon_on(database: Database, start_daemon: StartDaemon, store: Path) -> Daemon:
    return start_daemon("--workers", "1", store=store, env={"FILESTORED_CATALOGUE": database.url})


def test_tokens_and_links_are_made_beside_a_daemon(daemon_on: Daemon, store: Path, run: Run) -> None:
    made = run("token", "create", "anna", "--permissions", "read,write,delete", "--quota", "10", "--store", store)
    assert (made.status, made.errors) == (0, "")
    headers = bearer(made.output.strip())
    digest = httpx.post(f"{daemon_on.url}/", content=b"12345678", headers=headers).text
    assert httpx.post(f"{daemon_on.url}/", content=b"more of it", headers=headers).status_code == 413
    link = run("link", digest, "--store", store)
    assert httpx.get(link.output.strip()).content == b"12345678"
    assert run("token", "create", "anna", "--permissions", "read", "--store", store).status == 1
    listed = run("token", "list", "--json", "--store", store)
    assert [(each["name"], each["bytes"]) for each in json.loads(listed.output)] == [("anna", 8)]
    assert run("token", "revoke", "anna", "--store", store).status == 0
    assert httpx.get(f"{daemon_on.url}/{digest}", headers=headers).status_code == 401


def test_the_care_of_a_store_works_beside_a_daemon_and_without(
    daemon_on: Daemon, database: Database, store: Path
) -> None:
    kept = httpx.post(f"{daemon_on.url}/?name=a.txt", content=b"kept").text
    damaged = httpx.post(f"{daemon_on.url}/", content=b"damaged").text
    rot(daemon_on.blob(damaged))
    scrubbed = call(store, "scrub", "--json", "--rate", "none")
    assert scrubbed.status == 1
    assert [each.get("hash") for each in scrubbed.json()[:-1]] == [damaged]
    assert httpx.get(f"{daemon_on.url}/{damaged}").status_code == 404
    assert call(store, "gc").status == 0
    assert daemon_on.stop() == 0
    database.execute("TRUNCATE files, usage; UPDATE totals SET blobs = 0, bytes = 0; DELETE FROM notes")
    found = call(store, "reindex", "--json")
    assert found.json() == [{"added": 1, "added_bytes": 4, "blobs": 1}]
    assert database.execute("SELECT digest, owner FROM files") == [(kept, "")]
    database.execute("UPDATE files SET expires_at = 1")
    assert "removed: 1 expired files, 1 blobs" in call(store, "gc").output
    assert database.execute("SELECT sum(blobs), sum(bytes) FROM totals") == [(0, 0)]
    assert not daemon_on.blob(kept).exists()


def test_files_are_imported_and_stores_copied_between_databases_and_files(
    database: Database, postgres: PostgresServer, store: Path, tmp_path: Path, run: Run
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"file {number}.txt").write_text(f"file {number}")
    ended = run("import", source, "--store", store, "--catalogue", database.url)
    assert ended.status == 0, ended.errors
    assert database.execute("SELECT count(*), sum(size) FROM files") == [(30, sum(5 + len(str(n)) for n in range(30)))]
    other = Database(postgres)
    copy, back = tmp_path / "copy", tmp_path / "back"
    made = run("token", "create", "anna", "--permissions", "read", "--store", store, "--catalogue", database.url)
    assert made.status == 0
    to = ("--from-catalogue", database.url, "--to-catalogue", other.url)
    assert run("copy-store", store, copy, *to).status == 0
    assert run("copy-store", copy, back, "--from-catalogue", other.url).status == 0
    columns = "digest, owner, name, media_type, size, created_at"
    rows = database.execute(f"SELECT {columns} FROM files ORDER BY 1")
    assert rows == other.execute(f"SELECT {columns} FROM files ORDER BY 1")
    assert len(other.execute("SELECT * FROM tokens")) == 1
    listed = run("token", "list", "--json", "--store", back)
    assert [each["name"] for each in json.loads(listed.output)] == ["anna"]
    catalogue = Catalogue(back / ".filestored" / "catalogue.sqlite3", durable=False)
    assert catalogue.usage(None).blobs == 30
    catalogue.close()
    other.drop()


def test_without_psycopg_the_extra_is_named(store: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('no', name='psycopg')")
    ended = run("run", "--store", store, "--catalogue", "postgresql://x/y", PYTHONPATH=str(tmp_path))
    assert ended.status == 1
    assert ended.errors.endswith("the library for PostgreSQL is not installed: pip install 'filestored[postgresql]'\n")
