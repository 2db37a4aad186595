"""What an earlier run of a store, or another program, has left: served as it is, and flushed before it counts."""

import contextlib
import hashlib
import os
import re
import signal
from pathlib import Path

import httpx

from filestored import recovery
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.client import Client
from filestored.digest import Algorithm
from tests.care import call, execute
from tests.conftest import StartDaemon, require_program


def test_names_by_two_algorithms_of_one_length_are_not_taken_for_each_other(start_daemon: StartDaemon) -> None:
    from blake3 import blake3

    first = start_daemon("--hash", "blake3", "--workers", "1")
    old, new = b"named by BLAKE3", b"named by SHA-256"
    httpx.post(first.url, content=old)
    assert first.stop() == 0
    daemon = start_daemon("--hash", "sha256", "--workers", "1", store=first.store)
    httpx.post(daemon.url, content=new)
    with Client(daemon.url) as client:
        for body, name in ((old, blake3(old).hexdigest()), (new, hashlib.sha256(new).hexdigest())):
            answer = httpx.get(f"{daemon.url}/{name}")
            assert (answer.content, answer.headers.get("repr-digest")) == (body, None)
            assert client.get(name) == body


def test_what_an_import_did_not_flush_is_flushed_at_the_next_start(tmp_path: Path) -> None:
    store, source = tmp_path / "store", tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("imported")
    folder = StoreFolder.adopt(store, Algorithm.SHA256)
    recovery.prepare(folder, None, durable=True)
    ended = call(store, "import", str(source), env={"FILESTORED_DURABILITY": "relaxed"})
    assert ended.status == 0, ended
    assert noted(folder) == "relaxed"


def test_an_import_beside_a_daemon_that_flushes_is_noted_too(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    folder = StoreFolder(daemon.store, Algorithm.SHA256)
    assert noted(folder) == "full"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("imported")
    ended = call(daemon.store, "import", str(tmp_path / "source"), env={"FILESTORED_DURABILITY": "relaxed"})
    assert ended.status == 0, ended
    assert noted(folder) == "relaxed"


def noted(folder: StoreFolder) -> str | None:
    with contextlib.closing(Catalogue(folder.catalogue_file, durable=False)) as catalogue:
        return catalogue.note(recovery.DURABILITY_NOTE)


def syncs(start_daemon: StartDaemon, store: Path, durability: str) -> list[str]:
    """Start a daemon, upload, stop it, and return its calls that flush the store's folder or its whole file system."""
    traces = store.parent / "traces"
    wrapper = (require_program("strace"), "-f", "-y", "-e", "trace=syncfs,fsync", "-o", str(traces))
    daemon = start_daemon("--durability", durability, "--workers", "1", store=store, wrapper=wrapper)
    httpx.post(daemon.url, content=durability.encode(), timeout=30)
    # the tracer would not pass it on
    os.kill(int((store / ".filestored" / "daemon.pid").read_text().split()[0]), signal.SIGTERM)
    assert daemon.wait() == 0
    return re.findall(rf"((?:syncfs|fsync)\(\d+<{re.escape(str(store))}>\))", traces.read_text())


def test_what_was_not_flushed_before_is_flushed_before_it_counts(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert not any("syncfs" in call for call in syncs(start_daemon, store, "relaxed"))
    assert any("syncfs" in call for call in syncs(start_daemon, store, "full"))
    # all that was acknowledged since then was flushed by itself, but the folders of blobs made before a crash
    again = syncs(start_daemon, store, "full")
    assert any("fsync" in call for call in again)
    assert not any("syncfs" in call for call in again)


def test_what_could_not_be_removed_is_gone_all_the_same(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    body = b"deleted, as its owner was told"
    digest = httpx.post(daemon.url, content=body).text
    # what a delete leaves whose removal the disk refuses
    execute(daemon.store, "DELETE FROM files WHERE digest = ?", digest)
    assert httpx.get(f"{daemon.url}/{digest}").content == body
    execute(daemon.store, "INSERT INTO removals (digest) VALUES (?)", digest)
    assert httpx.get(f"{daemon.url}/{digest}", headers={"cache-control": "no-cache"}).status_code in (200, 404)
    assert httpx.get(f"{daemon.url}/v1/files/{digest}").status_code == 404
    assert httpx.post(f"{daemon.url}/v1/files/missing", json={"hashes": [digest]}).json() == {"missing": [digest]}
    assert httpx.post(daemon.url, content=body).text == digest
    assert httpx.get(f"{daemon.url}/{digest}").content == body


def test_a_link_among_the_uploads_under_way_is_nobodys_bytes(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    tus = {"tus-resumable": "1.0.0"}
    place = httpx.post(f"{daemon.url}/v1/uploads", headers={**tus, "upload-length": "3"}).headers["location"]
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    folder = daemon.store / ".filestored" / "uploads"
    name = folder / place.rpartition("/")[2]
    name.unlink(missing_ok=True)
    for path in (name, folder / ("0" * 32)):
        path.symlink_to(outside)
    assert daemon.stop() == 0
    daemon.start()
    patch = {**tus, "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    address = daemon.url + httpx.URL(place).path
    assert httpx.patch(address, headers=patch, content=b"abc").status_code < 500
    assert outside.read_bytes() == b"untouched"


def test_how_the_last_run_flushed_is_noted(tmp_path: Path) -> None:
    folder = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    for durable, wanted in ((False, "relaxed"), (True, "full"), (True, "full"), (False, "relaxed")):
        recovery.prepare(folder, None, durable=durable)
        assert noted(folder) == wanted


def test_what_is_stored_is_served_also_where_the_mark_is_damaged_meanwhile(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(daemon.url, content=b"stored").text
    mark = daemon.store / ".filestored" / "format.json"
    whole = mark.read_bytes()
    for damage in (lambda: mark.write_bytes(b"{"), mark.unlink):
        damage()
        assert httpx.get(f"{daemon.url}/{digest}").content == b"stored"
        # not from memory: the worker forgets what it knows of a file that is changed
        assert httpx.patch(f"{daemon.url}/v1/files/{digest}", json={"name": damage.__name__}).status_code == 200
        assert httpx.get(f"{daemon.url}/{digest}").content == b"stored"
    mark.write_bytes(whole)
