"""To and from a server: what HTTP allows, and saying what it does not."""

import hashlib
import os
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, sha256
from tests.care import end, execute, lay, rot
from tests.conftest import StartDaemon
from tests.copying.copies import begin_copy, copy, require_same, state_home, summed_up
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.tokens import bearer, make_token

FULL = ("--workers", "1", "--anonymous", "full")


def upload(url: str, body: bytes, token: str | None = None, **said: str) -> str:
    """Upload a file of type a/b; return its hash."""
    headers = {"content-type": "a/b"} | (bearer(token) if token else {})
    answer = httpx.post(url, content=body, params=said, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def listed(url: str) -> dict[str, dict[str, object]]:
    """Return all files of a server, by hash."""
    return {file["hash"]: file for file in httpx.get(f"{url}/v1/files", params={"limit": 1000}).json()["files"]}


def test_from_a_server_to_a_folder(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = start_daemon(*FULL), tmp_path / "copy"
    bodies = [b"", b"\xff", os.urandom(70_000), os.urandom(3_000_000)] + [b"%d" % number for number in range(300)]
    for number, body in enumerate(bodies):
        upload(source.url, body, name=f"{number}.bin", **({"expires_in": "9d"} if number == 1 else {}))
    summary, findings = copy(source.url, target, env=state_home(tmp_path))
    assert (summary["copied"], summary["failed"], findings) == (304, 0, [])
    assert "tokens" in summary["not_kept"]
    require_same(source.store, target)
    new = upload(source.url, b"new")
    assert httpx.delete(f"{source.url}/{sha256(b'7')}").status_code == 200
    summary, findings = copy(source.url, target, env=state_home(tmp_path))
    assert (summary["copied"], summary["present"], summary["gone"]) == (1, 303, 1)
    assert [(each["name"], each["state"]) for each in findings] == [(sha256(b"7"), "gone")]
    assert blobs(target) == blobs(source.store) | {sha256(b"7")}
    assert new in blobs(target)


def test_an_admins_token_brings_the_files_of_all_others_only_their_own(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    source = start_daemon("--workers", "1")
    anna = make_token(source.store, "anna", "read,write")
    bob = make_token(source.store, "bob", "read,write")
    boss = make_token(source.store, "boss", "admin")
    for token in (anna, bob):
        upload(source.url, b"shared", token, name=f"{token[:9]}.txt")
    upload(source.url, b"bob's", bob)
    copy(source.url, tmp_path / "of anna", env={"FILESTORED_FROM_TOKEN": anna})
    assert blobs(tmp_path / "of anna") == {sha256(b"shared")}
    token_file = tmp_path / "token"
    token_file.write_text(boss + "\n")
    copy(source.url, tmp_path / "of all", "--from-token-file", str(token_file))
    statement = "SELECT digest, owner, name, media_type, created_at FROM files ORDER BY 1, 2"
    assert execute(tmp_path / "of all", statement) == execute(source.store, statement)
    # without a token, and with a wrong one
    for env in ({}, {"FILESTORED_FROM_TOKEN": "wrong"}):
        ended = end(begin_copy(source.url, tmp_path / "of nobody", env=env))
        assert (ended.status, ended.errors.count("\n")) == (4, 1), ended
        assert not (tmp_path / "of nobody").exists()


def test_from_a_folder_to_a_server(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = start_daemon(*FULL), start_daemon(*FULL)
    big = os.urandom(20_000_000)
    upload(source.url, big, name="big.bin")
    upload(source.url, b"", name="empty", expires_in="9d")
    upload(source.url, b"without a name")
    lay(source.store, sha256(b"nobody knows"), b"nobody knows")
    rotten = upload(source.url, b"rotten")
    rot(source.blob(rotten))
    env = state_home(tmp_path)
    summary, findings = copy(source.store, target.url, env=env, status=1)
    assert (summary["copied"], summary["damaged"]) == (4, 1)
    assert [(each["name"], each["state"]) for each in findings] == [(rotten, "damaged")]
    assert "owners" in summary["not_kept"]
    files, before = listed(target.url), listed(source.url)
    assert set(files) == {sha256(body) for body in (big, b"", b"without a name", b"nobody knows")}
    for digest in (sha256(big), sha256(b""), sha256(b"without a name")):
        assert (files[digest]["name"], files[digest]["type"]) == (before[digest]["name"], "a/b")
    assert files[sha256(b"nobody knows")]["name"] is None
    assert files[sha256(b"")]["expires_at"] is not None
    # again: nothing is sent, and what has gone is told
    assert httpx.delete(f"{source.url}/{sha256(b'')}").status_code == 200
    summary, _ = copy(source.store, target.url, env=env, status=1)
    assert (summary["copied"], summary["present"], summary["gone"]) == (0, 3, 1)
    assert sha256(b"") in listed(target.url)


def test_a_server_with_another_algorithm_gives_new_names_which_are_told(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    source, target = tmp_path / "old", start_daemon(*FULL)
    names = {hashlib.md5(b"%d" % number).hexdigest(): sha256(b"%d" % number) for number in range(10)}
    for number, name in enumerate(names):
        lay(source, name, b"%d" % number)
    env = state_home(tmp_path)
    summary, findings = copy(source, target.url, env=env)
    assert summary["copied"] == 10
    assert {each["name"]: each["hash"] for each in findings if each["state"] == "renamed"} == names
    assert set(listed(target.url)) == set(names.values())
    summary, _ = copy(source, target.url, "--verify", env=env)
    assert (summary["copied"], summary["present"], summary["verified"]) == (0, 10, 10)


def test_from_a_server_to_a_server(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = start_daemon(*FULL), start_daemon(*FULL)
    bodies = [os.urandom(size) for size in (0, 100, 70_000, 20_000_000)]
    for number, body in enumerate(bodies):
        upload(source.url, body, name=f"{number}.bin")
    env = state_home(tmp_path)
    summary, _ = copy(source.url, target.url, env=env)
    assert (summary["copied"], summary["failed"]) == (4, 0)
    before, after = listed(source.url), listed(target.url)
    assert {digest: file["name"] for digest, file in after.items()} == {
        digest: file["name"] for digest, file in before.items()
    }
    rot(source.blob(sha256(bodies[2])))
    assert httpx.delete(f"{target.url}/{sha256(bodies[2])}").status_code == 200
    summary, findings = copy(source.url, target.url, env=env, status=1)
    assert [(each["name"], each["state"]) for each in findings] == [(sha256(bodies[2]), "damaged")]
    assert sha256(bodies[2]) not in listed(target.url)


def test_a_connection_that_breaks_is_gone_on_with(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = tmp_path / "source", start_daemon(*FULL)
    body = os.urandom(20_000_000)
    lay(source, sha256(body), body)
    with closing(Proxy(target.address)) as proxy:
        proxy.limit(10_000_000)
        process = begin_copy(source, proxy.url, env=state_home(tmp_path))
        assert wait_until(lambda: proxy.uploaded > 9_000_000 or process.poll() is not None)
        assert proxy.cut() > 0
        proxy.limit(None)
        summary, _ = summed_up(end(process))
        # gone on with, not begun anew
        assert proxy.uploaded < 35_000_000
    assert (summary["copied"], summary["failed"]) == (1, 0)
    assert target.blob(sha256(body)).read_bytes() == body


@pytest.mark.parametrize("side", ["from", "to"])
def test_no_server_is_one_line(tmp_path: Path, side: str) -> None:
    lay(tmp_path / "store", sha256(b"a"), b"a")
    # the discard service, which nothing here offers
    nobody = "http://127.0.0.1:9"
    places = (nobody, tmp_path / "copy") if side == "from" else (tmp_path / "store", nobody)
    ended = end(begin_copy(*places, env=state_home(tmp_path)))
    assert (ended.status, ended.errors.count("\n")) == (5, 1), ended
    assert not (tmp_path / "copy").exists()


def test_a_server_by_its_name_in_the_configuration(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source = start_daemon("--workers", "1")
    token = make_token(source.store, "anna", "read,write")
    digest = upload(source.url, b"hers", token)
    folder = tmp_path / "config" / "filestored"
    folder.mkdir(parents=True)
    (folder / "servers.toml").write_text(f'[servers.home]\nurl = "{source.url}"\ntoken = "{token}"\n')
    (folder / "servers.toml").chmod(0o600)
    copy("home", tmp_path / "copy", env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert blobs(tmp_path / "copy") == {digest}


def test_of_several_owners_the_one_who_keeps_it_longest_counts(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = start_daemon("--workers", "1"), start_daemon(*FULL)
    anna, bob = (make_token(source.store, name, "read,write") for name in ("anna", "bob"))
    for body, life in ((b"for ever", {}), (b"for long", {"expires_in": "9d"})):
        upload(source.url, body, anna, expires_in="1h")
        upload(source.url, body, bob, **life)
    summary, _ = copy(source.store, target.url, env=state_home(tmp_path))
    assert summary["copied"] == 2
    assert listed(target.url)[sha256(b"for ever")]["expires_at"] is None
    ends = execute(source.store, "SELECT max(expires_at) FROM files WHERE digest = ?", sha256(b"for long"))
    there = execute(target.store, "SELECT expires_at FROM files WHERE digest = ?", sha256(b"for long"))
    assert abs(there[0][0] - ends[0][0]) < 3_600_000
    # what ends is told to the server again, but its bytes are not new there
    summary, _ = copy(source.store, target.url, env=state_home(tmp_path))
    assert (summary["copied"], summary["updated"], summary["present"]) == (0, 1, 1)
