"""From a folder to a folder: everything goes over, so that the copy can take the source's place."""

import hashlib
import os
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_whole, sha256
from tests.bad_days.test_full_disk import MakeDisk, make_disk
from tests.care import begin, call, end, execute, lay, quarantined, rot
from tests.conftest import Daemon, StartDaemon
from tests.copying.copies import begin_copy, copy, key_of, require_same, state_home, summed_up
from tests.processes import wait_until
from tests.tokens import bearer, make_token, revoke_token

__all__ = ["make_disk"]

FULL = ("--workers", "1", "--anonymous", "full")


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class Filled:
    """A store with everything a store can have, behind a running daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        store = daemon.store
        self.anna = make_token(store, "anna", "read,write,delete", quota=10_000_000)
        self.bob = make_token(store, "bob", "read,write,delete", expires_at=4_000_000_000_000)
        self.boss = make_token(store, "boss", "admin")
        self.big = os.urandom(2_000_000)
        self.upload(self.anna, b"shared", name="hers.txt")
        self.upload(self.bob, b"shared", name="naïve 文.txt", expires_in="90d")
        self.upload(self.bob, self.big, name="big.bin")
        self.upload(self.anna, b"")
        self.upload(self.anna, b"short life", expires_in="1h")
        lay(store, md5(b"of the first program"), b"of the first program")
        assert call(store, "reindex").status == 0
        lay(store, sha256(b"nobody knows"), b"nobody knows")
        linked = httpx.post(
            f"{daemon.url}/v1/files/{sha256(b'shared')}/link", headers=bearer(self.anna), json={"expires_in": "1d"}
        )
        self.link = str(linked.json()["url"]).removeprefix(daemon.url)

    def upload(self, token: str, body: bytes, **said: str) -> None:
        """Upload a file."""
        headers = {**bearer(token), "content-type": "a/b"}
        assert httpx.post(self.daemon.url, content=body, params=said, headers=headers).text == sha256(body)


@pytest.fixture
def filled(start_daemon: StartDaemon) -> Filled:
    """A store with everything."""
    return Filled(start_daemon("--workers", "2"))


def test_the_copy_takes_the_place_of_the_source(filled: Filled, tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = filled.daemon.store, tmp_path / "copy"
    summary, findings = copy(source, target)
    assert (summary["copied"], summary["damaged"], summary["missing"], summary["failed"]) == (6, 0, 0, 0)
    assert (summary["tokens"], summary["has_key"], summary["not_kept"], findings) == (3, True, None, [])
    require_same(source, target)
    assert key_of(target) == key_of(source)
    assert len(execute(target, "SELECT digest FROM files")) == 6
    assert sha256(b"nobody knows") in blobs(target)
    assert filled.daemon.stop() == 0
    copied = start_daemon("--workers", "1", store=target)
    assert httpx.get(copied.url + filled.link).content == b"shared"
    hers = httpx.get(f"{copied.url}/v1/files", headers=bearer(filled.anna)).json()["files"]
    assert {file["name"] for file in hers} == {"hers.txt", None}
    assert httpx.get(f"{copied.url}/{sha256(filled.big)}", headers=bearer(filled.bob)).content == filled.big
    old = httpx.get(f"{copied.url}/v1/files/{md5(b'of the first program')}", headers=bearer(filled.boss)).json()
    assert (old["algorithm"], old["owner"]) == ("md5", None)
    refused = httpx.post(copied.url, content=os.urandom(10_000_001), headers=bearer(filled.anna))
    assert refused.status_code == 413
    assert call(target, "scrub").status == 0


def test_a_second_run_brings_what_has_come_and_tells_what_has_gone(filled: Filled, tmp_path: Path) -> None:
    source, target, url = filled.daemon.store, tmp_path / "copy", filled.daemon.url
    copy(source, target)
    filled.upload(filled.anna, b"new", name="new.txt")
    renamed = httpx.patch(f"{url}/v1/files/{sha256(filled.big)}", json={"name": "b.bin"}, headers=bearer(filled.bob))
    assert renamed.status_code == 200
    gone = [(filled.anna, b"shared"), (filled.anna, b"")]
    for token, body in gone:
        assert httpx.delete(f"{url}/{sha256(body)}", headers=bearer(token)).status_code == 200
    revoke_token(source, "bob")
    make_token(source, "carl", "read")
    summary, findings = copy(source, target)
    assert (summary["copied"], summary["updated"], summary["gone"]) == (1, 1, 2)
    assert {(each["name"], each["state"]) for each in findings} == {
        (sha256(b"shared"), "gone"), (sha256(b""), "gone"), ("bob", "gone"),
    }  # fmt: skip
    assert sha256(b"") in blobs(target)
    assert {name for (name,) in execute(target, "SELECT name FROM tokens")} == {"anna", "bob", "boss", "carl"}
    assert copy(source, target)[0]["gone"] == 2


def test_what_the_target_has_of_its_own_is_left(filled: Filled, tmp_path: Path, start_daemon: StartDaemon) -> None:
    target = start_daemon("--workers", "1")
    other_anna = make_token(target.store, "anna", "read,write")
    mine = httpx.post(target.url, content=b"mine", headers=bearer(other_anna)).text
    key = key_of(target.store)
    for _ in range(2):
        summary, findings = copy(filled.daemon.store, target.store)
        assert {each["name"]: each["state"] for each in findings} == {"anna": "apart", "links": "apart"}
    assert (summary["tokens"], summary["has_key"]) == (2, False)
    assert httpx.get(f"{target.url}/{mine}", headers=bearer(other_anna)).content == b"mine"
    assert httpx.get(f"{target.url}/{mine}", headers=bearer(filled.anna)).status_code == 401
    # and what came is served by the running daemon, to a token that came with it
    assert httpx.get(f"{target.url}/{sha256(b'shared')}", headers=bearer(filled.bob)).content == b"shared"
    assert key_of(target.store) == key


def test_a_damaged_blob_is_named_and_not_copied(filled: Filled, tmp_path: Path) -> None:
    source, target = filled.daemon.store, tmp_path / "copy"
    rotten = rot(filled.daemon.blob(sha256(filled.big)))
    rot(filled.daemon.blob(sha256(b"shared")), b"shar")
    filled.daemon.blob(sha256(b"short life")).unlink()
    summary, findings = copy(source, target, status=1)
    assert (summary["damaged"], summary["missing"], summary["copied"]) == (2, 1, 3)
    told = {each["name"]: (each["state"], each["reason"]) for each in findings}
    assert told[sha256(filled.big)] == ("damaged", f"its 2000000 bytes have the hash {sha256(rotten)}")
    assert told[sha256(b"shared")] == ("damaged", "its blob has 4 bytes instead of 6")
    assert told[sha256(b"short life")][0] == "missing"
    require_whole_but_md5(target)
    # what was copied once has not gone for that
    lay(source, sha256(b"short life"), b"short life")
    copy(source, target, status=1)
    filled.daemon.blob(sha256(b"short life")).unlink()
    summary, _ = copy(source, target, status=1)
    assert (summary["gone"], sha256(b"short life") in blobs(target)) == (0, True)


def require_whole_but_md5(store: Path) -> None:
    for name in blobs(store):
        body = (store / name[:2] / name).read_bytes()
        assert name in (sha256(body), md5(body))


def test_verify_finds_and_heals_what_is_damaged_at_the_target(filled: Filled, tmp_path: Path) -> None:
    source, target = filled.daemon.store, tmp_path / "copy"
    copy(source, target)
    rotten = rot(target / sha256(filled.big)[:2] / sha256(filled.big))
    assert copy(source, target)[0]["healed"] == 0
    summary, findings = copy(source, target, "--verify")
    assert (summary["verified"], summary["healed"], summary["copied"]) == (5, 1, 1)
    assert [(each["name"], each["state"]) for each in findings] == [(sha256(filled.big), "healed")]
    assert (target / ".filestored" / "quarantine" / sha256(filled.big)).read_bytes() == rotten
    require_same(source, target)


def test_a_store_of_the_first_program_is_copied_as_it_is(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = tmp_path / "old", tmp_path / "copy"
    for number in range(20):
        lay(source, md5(b"%d" % number), b"%d" % number)
    summary, _ = copy(source, target)
    assert summary["copied"] == 20
    assert blobs(target) == blobs(source)
    assert not (source / ".filestored").exists()
    daemon = start_daemon("--anonymous", "full", store=target)
    assert httpx.get(f"{daemon.url}/{md5(b'7')}").content == b"7"
    (source / md5(b"7")[:2] / md5(b"7")).unlink()
    summary, findings = copy(source, target)
    assert (summary["gone"], [each["name"] for each in findings]) == (1, [md5(b"7")])
    assert httpx.get(f"{daemon.url}/{md5(b'7')}").content == b"7"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_goes_on(tmp_path: Path, number: int) -> None:
    source, target = tmp_path / "source", tmp_path / "copy"
    for each in range(1500):
        body = b"%d" % each * 700
        lay(source, sha256(body), body)
    assert call(source, "reindex").status == 0
    process = begin_copy(source, target)
    assert wait_until(lambda: len(blobs(target)) > 100 or process.poll() is not None, seconds=60)
    ended = end(process, number)
    if number == signal.SIGINT:
        summary, _ = summed_up(ended, 130)
        assert ended.errors == "filestored: interrupted; the same command goes on from here\n"
        assert len(blobs(target)) == summary["copied"] < 1500
    else:
        assert ended.status == -number
    require_whole(target)
    summary, _ = copy(source, target)
    assert summary["present"] + summary["updated"] + summary["copied"] == 1500
    assert summary["copied"] < 1400
    require_same(source, target)


def test_beside_daemons_under_load_the_last_run_has_everything(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, target = (start_daemon("--workers", "2", "--anonymous", "full") for _ in range(2))
    enough = threading.Event()
    kept: set[str] = set()

    def come_and_go() -> None:
        with httpx.Client(base_url=source.url, timeout=30) as client:
            while not enough.is_set():
                stays, goes = os.urandom(3000), os.urandom(2000)
                for body in (stays, goes):
                    assert client.post("/", content=body).text == sha256(body)
                assert client.delete(f"/{sha256(goes)}").status_code == 200
                kept.add(sha256(stays))

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            summary, _ = copy(source.store, target.store)
            assert (summary["damaged"], summary["missing"], summary["failed"]) == (0, 0, 0)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    copy(source.store, target.store)
    assert blobs(source.store) == kept
    assert kept <= blobs(target.store)
    rows = "SELECT digest, owner, name, media_type, size, created_at, expires_at FROM files"
    assert set(execute(source.store, rows)) <= set(execute(target.store, rows))
    require_whole(target.store)
    assert all(httpx.get(f"{target.url}/{digest}").status_code == 200 for digest in list(kept)[:20])


def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_room(tmp_path: Path, make_disk: MakeDisk) -> None:
    source, target = tmp_path / "source", make_disk("size=12m")
    for _ in range(200):
        body = os.urandom(100_000)
        lay(source, sha256(body), body)
    assert call(source, "reindex").status == 0
    env = {"FILESTORED_MIN_FREE_SPACE": "1MiB"}
    ended = end(begin_copy(source, target, env=env))
    summary, _ = summed_up(ended, 1)
    assert ended.errors.count("\n") == 1
    assert "goes on from here" in ended.errors
    assert 0 < summary["copied"] < 200
    require_whole(target)
    subprocess.run(["mount", "-o", "remount,size=60m", str(target.parent)], check=True)
    again, _ = copy(source, target, env=env)
    assert again["present"] + again["updated"] >= summary["copied"]
    require_same(source, target)


@pytest.mark.parametrize("place", ["", "inner"])
def test_a_store_is_not_copied_into_itself(tmp_path: Path, place: str) -> None:
    lay(tmp_path / "store", sha256(b"a"), b"a")
    ended = end(begin_copy(tmp_path / "store", tmp_path / "store" / place))
    assert (ended.status, ended.output, ended.errors.count("\n")) == (2, "", 1)


def test_nothing_to_copy_from_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    ended = end(begin_copy(tmp_path / "nowhere", tmp_path / "copy"))
    assert (ended.status, ended.errors.count("\n")) == (1, 1)
    assert "there is no store at" in ended.errors
    assert not (tmp_path / "copy").exists()


def test_a_target_that_is_no_store_is_not_filled(tmp_path: Path) -> None:
    lay(tmp_path / "store", sha256(b"a"), b"a")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "holiday.jpg").write_bytes(b"x")
    ended = end(begin_copy(tmp_path / "store", tmp_path / "home"))
    assert (ended.status, ended.errors.count("\n")) == (1, 1)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["holiday.jpg"]


def test_a_source_without_its_catalogue_is_refused_and_gets_none(filled: Filled, tmp_path: Path) -> None:
    source = filled.daemon.store
    assert filled.daemon.stop() == 0
    catalogue = source / ".filestored" / "catalogue.sqlite3"
    catalogue.rename(tmp_path / "moved.sqlite3")
    ended = end(begin_copy(source, tmp_path / "copy"))
    assert (ended.status, ended.output, ended.errors.count("\n")) == (1, "", 1)
    assert "--from-catalogue" in ended.errors
    assert not catalogue.exists()
    summary, _ = copy(source, tmp_path / "copy", "--from-catalogue", f"sqlite:///{tmp_path}/moved.sqlite3")
    assert summary["copied"] == 6


def test_verify_judges_by_the_name_whatever_a_server_says_of_algorithms(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    source, target = start_daemon(*FULL, "--hash", "blake3"), tmp_path / "copy"
    digest = httpx.post(source.url, content=b"named by blake3").text
    assert digest != sha256(b"named by blake3")
    assert source.stop() == 0
    # and from now on it says of each name of this length that SHA-256 made it
    again = start_daemon(*FULL, "--hash", "sha256", store=source.store)
    assert httpx.get(f"{again.url}/v1/files/{digest}").json()["algorithm"] == "sha256"
    assert copy(source.store, target)[0]["copied"] == 1
    summary, findings = copy(again.url, target, "--verify", env=state_home(tmp_path))
    assert (summary["verified"], summary["healed"], summary["damaged"], findings) == (1, 0, 0, [])
    assert quarantined(target) == {}
    assert copy(again.url, tmp_path / "fresh", env=state_home(tmp_path))[0]["copied"] == 1


def test_nothing_is_taken_away_for_which_there_is_no_better(filled: Filled, tmp_path: Path) -> None:
    source, target = filled.daemon.store, tmp_path / "copy"
    copy(source, target)
    name = sha256(filled.big)
    rotten = rot(target / name[:2] / name)
    rot(filled.daemon.blob(name))
    summary, _ = copy(source, target, "--verify", status=1)
    assert (summary["healed"], summary["damaged"]) == (0, 1)
    assert (target / name[:2] / name).read_bytes() == rotten
    assert quarantined(target) == {}


@pytest.mark.parametrize("has_row", [True, False])
def test_a_file_that_has_expired_at_the_target_comes_anew(
    tmp_path: Path, start_daemon: StartDaemon, has_row: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for store in (source, target):
        lay(store, sha256(b"x"), b"x")
    for store in (source, target)[not has_row :]:
        assert call(store, "reindex").status == 0
    execute(target, "UPDATE files SET owner = 'anna', expires_at = 1000")
    copy(source, target)
    owners = execute(target, "SELECT owner, expires_at FROM files")
    assert owners == ([("", None)] if has_row else [])
    assert copy(source, target)[0]["present"] == 1
    daemon = start_daemon(*FULL, store=target)
    assert httpx.get(f"{daemon.url}/{sha256(b'x')}").content == b"x"
    assert daemon.stop() == 0
    assert call(target, "gc").status == 0
    assert blobs(target) == {sha256(b"x")}


def test_a_token_that_was_revoked_at_the_target_stays_out(filled: Filled, tmp_path: Path) -> None:
    source, target = filled.daemon.store, tmp_path / "copy"
    copy(source, target)
    revoke_token(target, "bob")
    summary, findings = copy(source, target)
    assert [(each["name"], each["state"]) for each in findings] == [("bob", "apart")]
    assert summary["tokens"] == 2
    assert {name for (name,) in execute(target, "SELECT name FROM tokens")} == {"anna", "boss"}


def test_a_large_blob_that_does_not_fit_keeps_no_other_from_coming(tmp_path: Path, make_disk: MakeDisk) -> None:
    source, target = tmp_path / "source", make_disk("size=12m")
    large = sha256(bytes(20_000_000))
    lay(source, large, bytes(20_000_000))
    small = {sha256(b"%d" % number) for number in range(600)}
    for number in range(600):
        lay(source, sha256(b"%d" % number), b"%d" % number)
    summary, findings = copy(source, target, env={"FILESTORED_MIN_FREE_SPACE": "1MiB"}, status=1)
    assert (summary["copied"], summary["failed"]) == (600, 1)
    assert [each["name"] for each in findings] == [large]
    assert blobs(target) == small


def test_what_is_no_blob_is_told_and_a_folder_behind_a_link_is_a_fault(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    lay(source, sha256(b"a"), b"a")
    lay(source, md5(b"b"), b"b")
    assert call(source, "reindex").status == 0
    (source / md5(b"b")[:2]).rename(elsewhere)
    (source / md5(b"b")[:2]).symlink_to(elsewhere)
    execute(source, "DELETE FROM files WHERE digest = ?", md5(b"b"))
    summary, findings = copy(source, tmp_path / "copy", status=1)
    assert (summary["copied"], summary["failed"], summary["skipped"]) == (1, 1, 1)
    assert [(each["name"], each["state"]) for each in findings] == [(md5(b"b")[:2], "failed"), ("", "skipped")]


@pytest.mark.root
def test_another_users_store_is_not_written_to(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    lay(source, sha256(b"a"), b"a")
    target.mkdir()
    os.chown(target, 65534, -1)
    for command in (begin_copy(source, target), begin(target, "import", str(source))):
        ended = end(command)
        assert (ended.status, ended.output, ended.errors.count("\n")) == (1, "", 1)
        assert "run it as " in ended.errors
    assert list(target.iterdir()) == []
