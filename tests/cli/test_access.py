"""``token`` and ``link`` on the command line, beside a running daemon and without one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}


def call(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", *arguments],
        capture_output=True, text=True, timeout=60, env={**CLEAN, **(env or {})}, cwd=cwd,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def test_a_token_is_made_listed_used_and_revoked(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    where = ("--store", str(store))
    status, output, said = call(
        "token", "create", "anna", "--permissions", "read, write", "--expires-in", "30d", "--quota", "10GiB", *where
    )
    assert (status, said) == (0, "")
    token = output.strip()
    assert re.fullmatch(r"fs-[0-9a-f]{12}-[A-Za-z0-9_-]{43}\n", output)
    daemon = start_daemon("--workers", "2", store=store)
    assert "1 token; nobody has access without one" in daemon.read_log()
    assert httpx.post(daemon.url, content=b"x" * 2048, headers=bearer(token)).status_code == 200
    assert httpx.delete(f"{daemon.url}/{sha256(b'x' * 2048)}", headers=bearer(token)).status_code == 403
    (shown,) = json.loads(call("token", "list", "--json", *where)[1])
    assert (shown["name"], shown["permissions"], shown["bytes"], shown["quota"]) == (
        "anna", ["read", "write"], 2048, 10 << 30,
    )  # fmt: skip
    table = call("token", "list", env={"FILESTORED_STORE": str(store)})[1]
    assert re.search(r"^anna +read,write +\S+Z +\S+Z +2KiB +10GiB$", table, re.MULTILINE)
    assert token not in table + json.dumps(shown)
    secret = token.split("-", 2)[2].encode()
    kept = b"".join(path.read_bytes() for path in (store / ".filestored").glob("catalogue*"))
    assert b"anna" in kept
    assert secret not in kept
    status, output, said = call("token", "revoke", "anna", *where)
    assert (status, output) == (0, "revoked: anna\n")
    assert "no token is left" in said
    assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).status_code == 401
    assert call("token", "revoke", "anna", *where)[0] == 1
    # without any token programs on the machine have access again
    assert httpx.get(f"{daemon.url}/v1/stats").json()["files"] == 1


def test_a_name_is_taken_once_and_its_owner_keeps_the_files_over_a_change_of_tokens(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    where = ("--permissions", "read,write", "--store", str(store))
    first = call("token", "create", "anna", *where)[1].strip()
    status, output, said = call("token", "create", "anna", *where)
    assert (status, output) == (1, "")
    assert "already" in said
    daemon = start_daemon("--workers", "1", store=store)
    digest = httpx.post(daemon.url, content=b"kept", headers=bearer(first)).text
    call("token", "revoke", "anna", "--store", str(store))
    second = call("token", "create", "anna", *where)[1].strip()
    assert httpx.get(f"{daemon.url}/v1/files/{digest}", headers=bearer(second)).status_code == 200
    assert httpx.get(f"{daemon.url}/v1/files/{digest}", headers=bearer(first)).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["token", "create", "anna"], "--permissions"),
        (["token", "create", "anna", "--permissions", ""], "none of read, write, delete, admin"),
        (["token", "create", "anna", "--permissions", "reed"], "'reed'"),
        (["token", "create", "an na", "--permissions", "read"], "cannot be called"),
        (["token", "create", "anonymous", "--permissions", "read"], "cannot be called"),
        (["token", "create", "", "--permissions", "read"], "cannot be called"),
        (["token", "create", "../x", "--permissions", "read"], "cannot be called"),
        (["token", "create", "a" * 65, "--permissions", "read"], "cannot be called"),
        (["token", "create", "a", "--permissions", "read", "--expires-in", "soon"], "--expires-in soon"),
        (["token", "create", "a", "--permissions", "read", "--expires-in", "0"], "more than nothing"),
        (["token", "create", "a", "--permissions", "read", "--quota", "much"], "--quota much"),
        (["token"], "create"),
        (["token", "crate"], "crate"),
        (["link", "xyz"], "xyz is not a hash"),
        (["link", "ab" * 32, "--expires-in", "never"], "--expires-in never"),
        (["link"], "HASH"),
    ],
)
def test_a_mistake_is_said_and_exit_2_and_makes_no_store(tmp_path: Path, arguments: list[str], said: str) -> None:
    status, output, error = call(*arguments, cwd=tmp_path)
    assert status == 2
    assert output == ""
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_commands_that_look_at_a_store_make_none(tmp_path: Path) -> None:
    for arguments in (["token", "list"], ["token", "revoke", "anna"], ["link", "ab" * 32]):
        status, output, error = call(*arguments, "--store", str(tmp_path / "none"))
        assert (status, output) == (1, "")
        assert "there is no store" in error
        assert error.count("\n") == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    status, _, error = call("token", "create", "a", "--permissions", "read", "--store", str(tmp_path / "home"))
    assert status == 1
    assert "neither empty nor a store" in error
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_a_link_is_printed_alone_and_works(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "2")
    where = ("--store", str(daemon.store))
    digest = httpx.post(f"{daemon.url}/?name=a%20b.txt", content=b"linked").text
    call("token", "create", "anna", "--permissions", "read", *where)
    status, output, said = call("link", digest.upper(), "--expires-in", "2s", *where)
    assert (status, said) == (0, "")
    assert output.startswith(f"{daemon.url}/{digest}/a%20b.txt?expires=")
    answer = httpx.get(output.strip())
    assert answer.content == b"linked"
    assert 'filename="a b.txt"' in answer.headers["content-disposition"]
    assert wait_until(lambda: httpx.get(output.strip()).status_code == 403)
    based = call("link", digest, "--base", "https://files.example/", *where)[1]
    assert based.startswith(f"https://files.example/{digest}/")
    status, output, said = call("link", sha256(b"absent"), *where)
    assert (status, output) == (1, "")
    assert "no file is stored" in said


def test_without_a_daemon_a_link_needs_to_be_told_the_address(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(daemon.url, content=b"x").text
    daemon.stop()
    status, _, said = call("link", digest, "--store", str(daemon.store))
    assert status == 1
    assert "--base" in said
    link = call("link", digest, "--store", str(daemon.store), "--base", "http://x")[1].strip()
    again = start_daemon("--workers", "1", "--anonymous", "none", store=daemon.store)
    assert httpx.get(link.replace("http://x", again.url)).content == b"x"


def test_a_catalogue_elsewhere_is_found_by_how_the_store_was_started_last(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite3"
    daemon = start_daemon("--workers", "1", "--catalogue", f"sqlite:///{elsewhere}")
    token = call("token", "create", "anna", "--permissions", "read", "--store", str(daemon.store))[1].strip()
    assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).status_code == 200
    assert not (daemon.store / ".filestored/catalogue.sqlite3").exists()
