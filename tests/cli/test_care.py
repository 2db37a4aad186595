"""``reindex`` and ``gc``, and how all commands that take care of a store are called."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.api.tus_client import CHUNK, Tus
from tests.bad_days.consistency import blobs, removals, require_agreement, rows, sha256
from tests.bad_days.test_races import run_together
from tests.care import CLEAN, call, execute, lay, rot
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token

COMMANDS = ["scrub", "reindex", "gc"]
FULL = ("--anonymous", "full")


def listed(daemon: Daemon) -> dict[str, dict[str, object]]:
    """Return all files that there are, by their hashes."""
    answer = httpx.get(f"{daemon.url}/v1/files", params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return {file["hash"]: file for file in answer.json()["files"]}


def forget_catalogue(store: Path) -> None:
    for path in (store / ".filestored").glob("catalogue.sqlite3*"):
        path.unlink()


def collected(*, files: int = 0, blobs: int = 0, uploads: int = 0, temporary: int = 0, freed: int = 0) -> str:
    """Return what ``gc`` says of what it has removed."""
    return (
        f"removed: {files} expired files, {blobs} blobs, {uploads} abandoned uploads, {temporary} temporary files; "
        f"freed: {freed} bytes\n"
    )


# how they are called


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_store_they_say_so_and_make_none(tmp_path: Path, command: str) -> None:
    store = tmp_path / "store"
    assert call(store, command) == (1, "", f"filestored: there is no store at {store}; name it with --store\n")
    assert not store.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_they_touch_nothing_in_a_folder_that_is_no_store(tmp_path: Path, command: str) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    status, output, errors = call(tmp_path, command)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert "neither empty nor a store" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("rate", ["fast", "0", "-1", ""])
def test_a_rate_that_makes_no_sense_is_exit_status_2(tmp_path: Path, rate: str) -> None:
    lay(tmp_path / "store", sha256(b"x"), b"x")
    status, output, errors = call(tmp_path / "store", "scrub", "--rate", rate)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("filestored: --rate")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_catalogue_that_was_removed_beside_a_daemon_is_not_made_anew(start_daemon: StartDaemon, command: str) -> None:
    daemon = start_daemon("--workers", "1")
    forget_catalogue(daemon.store)
    status, output, errors = call(daemon.store, command)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert "restart it" in errors
    assert call(daemon.store, command).errors == errors


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_catalogue_is_one_line(tmp_path: Path, command: str) -> None:
    store = tmp_path / "store"
    lay(store, sha256(b"x"), b"x")
    assert call(store, command).status == 0
    rot(store / ".filestored" / "catalogue.sqlite3", b"nonsense" * 1000)
    status, output, errors = call(store, command)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert "Traceback" not in errors


@pytest.mark.root
@pytest.mark.parametrize(
    "command",
    [
        ("scrub",), ("reindex",), ("gc",), ("token", "list"), ("token", "create", "mary", "--permissions", "read"),
        ("link", "0" * 64, "--base", "http://files.example"), ("start", "--port", "0"), ("run", "--port", "0"),
    ],
)  # fmt: skip
def test_root_leaves_nothing_in_a_store_of_somebody_elses(tmp_path: Path, command: tuple[str, ...]) -> None:
    store = tmp_path / "store"
    lay(store, sha256(b"a"), b"a")
    assert call(store, "reindex").status == 0
    before = sorted(store.rglob("*"))
    for each in (store, *before):
        os.chown(each, 65534, 65534)
    words = [sys.executable, "-m", "filestored", *command, "--store", str(store)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, env=CLEAN)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1), ended.stderr
    assert "belongs to nobody" in ended.stderr
    assert "sudo -u nobody filestored" in ended.stderr
    assert sorted(store.rglob("*")) == before
    assert {each.stat().st_uid for each in before} == {65534}


# reindex


def test_reindex_makes_up_for_a_lost_catalogue(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*FULL)
    bodies = [os.urandom(size) for size in (0, 10, 1000, 300_000)]
    for body in bodies:
        assert httpx.post(daemon.url, content=body, headers={"content-type": "a/b"}).text == sha256(body)
    before = httpx.get(f"{daemon.url}/v1/stats").json()
    assert daemon.stop() == 0
    forget_catalogue(daemon.store)
    for added in (4, 0):
        ended = call(daemon.store, "reindex", "--json")
        # it is what makes good for the loss
        assert ended.errors == ""
        (said,) = ended.json()
        assert said == {"added": added, "added_bytes": 301_010 if added else 0, "blobs": 4}
    assert rows(daemon.store) == {sha256(body): len(body) for body in bodies}
    daemon.start()
    files = listed(daemon)
    assert set(files) == {sha256(body) for body in bodies}
    after = httpx.get(f"{daemon.url}/v1/stats").json()
    assert [after[name] for name in ("files", "blobs", "bytes")] == [
        before[name] for name in ("files", "blobs", "bytes")
    ]
    for body in bodies:
        file = files[sha256(body)]
        assert (file["size"], file["name"], file["type"]) == (len(body), None, "application/octet-stream")
        assert httpx.get(f"{daemon.url}/{sha256(body)}").content == body
    assert httpx.delete(f"{daemon.url}/{sha256(bodies[1])}").status_code == 200
    require_agreement(daemon.store)
    assert len(blobs(daemon.store)) == 3


def test_a_start_without_the_catalogue_of_before_says_what_is_lost(tmp_path: Path) -> None:
    store = tmp_path / "store"
    lay(store, sha256(b"a"), b"a")
    said = []
    for _ in range(3):
        ended = call(store, "start", "--port", "0", "--workers", "1")
        assert ended.status == 0
        assert call(store, "stop").status == 0
        said.append(ended.errors)
        if len(said) == 1:
            (store / ".filestored/catalogue.sqlite3").write_bytes(b"")
    # a store of an earlier program has lost nothing, and what was told once is known
    assert [each.count("\n") for each in said] == [0, 1, 0]
    assert "names, owners and tokens are gone" in said[1]
    (told,) = [line for line in (store / ".filestored/log/filestored.log").read_text().splitlines() if "lost" in line]
    assert "WARNING" in told
    assert "filestored reindex" in told


def test_reindex_takes_in_a_store_of_the_first_program(tmp_path: Path, start_daemon: StartDaemon) -> None:
    store = tmp_path / "old"
    body = os.urandom(1000)
    name = hashlib.md5(body).hexdigest()
    blob = lay(store, name, body)
    os.utime(blob, ns=(0, 1_234_567_890_123_000_000))
    status, output, errors = call(store, "reindex")
    assert (status, output, errors) == (0, "added: 1 files without owner, 1000 bytes; blobs: 1\n", "")
    assert execute(store, "SELECT digest, owner, name, media_type, size, created_at, expires_at FROM files") == [
        (name, "", None, "application/octet-stream", 1000, 1_234_567_890_123, None)
    ]
    daemon = start_daemon(*FULL, store=store)
    assert httpx.get(f"{daemon.url}/{name}").content == body
    assert listed(daemon)[name]["algorithm"] == "md5"


def test_reindex_beside_a_daemon_leaves_known_files_alone(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2", *FULL)
    known = httpx.post(daemon.url, params={"name": "known.txt"}, content=b"known").text
    unknown = sha256(b"unknown")
    lay(daemon.store, unknown, b"unknown")
    for _ in range(8):
        assert httpx.get(f"{daemon.url}/{unknown}").content == b"unknown"
    assert set(listed(daemon)) == {known}
    assert call(daemon.store, "reindex").output == "added: 1 files without owner, 7 bytes; blobs: 2\n"
    files = listed(daemon)
    assert set(files) == {known, unknown}
    assert (files[known]["name"], files[known]["owner"]) == ("known.txt", "anonymous")
    # whoever uploads it has it for its own
    assert httpx.post(daemon.url, content=b"unknown").text == unknown
    assert listed(daemon)[unknown]["owner"] == "anonymous"
    require_agreement(daemon.store)


def test_reindex_does_not_bring_back_what_is_being_deleted(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    over = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for _ in range(3):
                assert call(daemon.store, "reindex").status == 0
            over.set()
            return
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            while not over.is_set():
                digest = client.post("/", content=os.urandom(100)).text
                assert client.delete(f"/{digest}").status_code == 200
                assert client.get(f"/{digest}").status_code == 404

    run_together(5, work)
    require_agreement(daemon.store)
    assert blobs(daemon.store) == set()


def test_reindex_leaves_a_decided_removal_to_be_carried_out(tmp_path: Path) -> None:
    store = tmp_path / "store"
    blob = lay(store, sha256(b"deleted"), b"deleted")
    assert call(store, "gc").status == 0
    execute(store, "INSERT INTO removals (digest) VALUES (?)", blob.name)
    assert call(store, "reindex").output.startswith("added: 0 ")
    assert removals(store) == [blob.name]


# gc


def test_gc_ends_expired_files_and_keeps_what_another_owner_keeps(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    anna, boris = (bearer(make_token(daemon.store, name, "read,write")) for name in ("anna", "boris"))
    shared, own = os.urandom(1000), os.urandom(300_000)
    for body in (shared, own):
        assert httpx.post(daemon.url, content=body, headers=anna, params={"expires_in": "1h"}).status_code == 200
    assert httpx.post(daemon.url, content=shared, headers=boris).status_code == 200
    assert daemon.stop() == 0
    assert call(daemon.store, "gc", "--json").json() == [
        {"files": 0, "blobs": 0, "uploads": 0, "temporary_files": 0, "freed_bytes": 0, "stuck_blobs": 0}
    ]
    execute(daemon.store, "UPDATE files SET expires_at = 1 WHERE expires_at IS NOT NULL")
    status, output, errors = call(daemon.store, "gc")
    assert (status, errors) == (0, "")
    assert output == collected(files=2, blobs=1, freed=300000)
    assert blobs(daemon.store) == {sha256(shared)}
    assert execute(daemon.store, "SELECT owner FROM files") == [("boris",)]
    assert execute(daemon.store, "SELECT owner, files, bytes FROM usage WHERE files > 0") == [("boris", 1, 1000)]
    daemon.start()
    assert httpx.get(f"{daemon.url}/{sha256(shared)}", headers=boris).content == shared


@pytest.mark.parametrize("is_running", [True, False], ids=["beside a daemon", "alone"])
def test_gc_never_removes_a_blob_it_does_not_know(start_daemon: StartDaemon, is_running: bool) -> None:
    daemon = start_daemon()
    unknown = lay(daemon.store, sha256(b"unknown"), b"unknown")
    odd = lay(daemon.store, "abc", b"odd")
    quarantined = daemon.store / ".filestored" / "quarantine" / sha256(b"x")
    quarantined.write_bytes(b"y")
    os.utime(unknown, (1, 1))
    if not is_running:
        assert daemon.stop() == 0
    assert call(daemon.store, "gc").output == collected()
    assert [path.read_bytes() for path in (unknown, odd, quarantined)] == [b"unknown", b"odd", b"y"]


def test_gc_leaves_the_temporary_file_of_a_running_upload(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    body = os.urandom(5 << 20)
    with RawConnection(daemon.address, timeout=30) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1])
        assert wait_until(lambda: len(daemon.leftovers()) == 1)
        old = daemon.store / ".filestored" / "tmp" / "left-by-a-crash"
        old.write_bytes(bytes(1000))
        os.utime(old, (time.time() - 90_000,) * 2)
        assert call(daemon.store, "gc").output == collected(temporary=1, freed=1000)
        assert len(daemon.leftovers()) == 1
        connection.send(body[-1:])
        assert connection.answer()[0] == 200
    assert daemon.blob(sha256(body)).read_bytes() == body


def test_gc_leaves_an_upload_that_somebody_writes_to_though_its_time_is_over(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    body = os.urandom(300_000)
    with httpx.Client(base_url=daemon.url) as client:
        path = Tus(client).begin(len(body))
    folder = daemon.store / ".filestored" / "uploads"
    left = folder / ("0" * 32)
    left.write_bytes(bytes(1000))
    with RawConnection(daemon.address, timeout=30) as connection:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nContent-Type: {CHUNK}\r\n"
            f"Upload-Offset: 0\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.send(head.encode() + body[:-1])
        assert wait_until(lambda: (folder / path.rpartition("/")[2]).exists())
        execute(daemon.store, "UPDATE uploads SET expires_at = 1")
        # what no upload names goes at once
        assert call(daemon.store, "gc").output == collected(uploads=1, freed=1000)
        connection.send(body[-1:])
        status, headers, _ = connection.answer()
    assert (status, headers["filestored-hash"]) == (204, sha256(body))
    assert list(folder.iterdir()) == []
    assert daemon.blob(sha256(body)).read_bytes() == body


def test_gc_removes_all_temporary_files_where_no_daemon_runs(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    assert daemon.stop() == 0
    (daemon.store / ".filestored" / "tmp" / "new").write_bytes(bytes(1000))
    assert call(daemon.store, "gc", "--json").json()[0]["freed_bytes"] == 1000
    assert daemon.leftovers() == []
    daemon.start()


def test_gc_carries_out_removals_that_were_left_undone(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    kept = httpx.post(daemon.url, content=b"kept").text
    left = lay(daemon.store, sha256(b"left"), b"left")
    for digest in (kept, left.name):
        execute(daemon.store, "INSERT INTO removals (digest) VALUES (?)", digest)
    assert call(daemon.store, "gc").output == collected(blobs=1, freed=4)
    assert removals(daemon.store) == []
    require_agreement(daemon.store)
    assert blobs(daemon.store) == {kept}
