"""To and from buckets: everything goes over, beside daemons that run."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.care import end, execute
from tests.conftest import Daemon, StartDaemon
from tests.copying.copies import begin_copy, copy, require_same, state_home
from tests.importing.reports import import_
from tests.postgres import Database
from tests.s3 import Bucket
from tests.tokens import bearer, make_token

BIG = os.urandom(9_000_000)


class Filled:
    """A store on disk with files of two owners, and a blob that no row names."""

    def __init__(self, daemon: Daemon) -> None:
        self.store = daemon.store
        self.url = daemon.url
        self.anna = bearer(make_token(daemon.store, "anna", "read,write,delete", quota=100_000_000))
        boss = bearer(make_token(daemon.store, "boss", "admin"))
        self.put(b"hers", "hers.txt")
        self.put(BIG, "big")
        self.put(b"his", "naïve 文.txt", boss)
        unnamed = daemon.blob(sha256(b"nobody knows"))
        unnamed.parent.mkdir(exist_ok=True)
        unnamed.write_bytes(b"nobody knows")

    def link(self, body: bytes) -> str:
        """Return the path of a link to a file of the first owner."""
        made = httpx.post(f"{self.url}/v1/files/{sha256(body)}/link", headers=self.anna, json={}, timeout=60)
        return str(made.json()["url"]).removeprefix(self.url)

    def put(self, body: bytes, name: str, headers: dict[str, str] | None = None) -> None:
        """Upload a file, by default of the first owner."""
        answer = httpx.post(self.url, content=body, params={"name": name}, headers=headers or self.anna, timeout=60)
        assert answer.text == sha256(body)


@pytest.fixture
def source(start_daemon: StartDaemon) -> Filled:
    return Filled(start_daemon("--workers", "1"))


def on_bucket(start_daemon: StartDaemon, bucket: Bucket, spool: Path, *flags: str) -> Daemon:
    return start_daemon(
        "--store", bucket.url, "--spool", str(spool), "--workers", "1", *flags, store=spool, env=bucket.env
    )


def test_moving_from_disk_to_bucket_beside_a_daemon(
    source: Filled, start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    target = on_bucket(start_daemon, bucket, spool, "--catalogue", database.url)
    link = source.link(b"hers")
    assert httpx.get(target.url + link, timeout=60).status_code == 403
    flags = ("--to-spool", str(spool))
    summary, findings = copy(source.store, bucket.url, *flags, env=bucket.env)
    assert (summary["copied"], summary["failed"], summary["tokens"], summary["has_key"]) == (4, 0, 2, True)
    assert [finding["state"] for finding in findings] in ([], ["apart"])
    assert bucket.blob(sha256(BIG)) == BIG
    listed = httpx.get(f"{target.url}/v1/files", headers=source.anna, timeout=60).json()["files"]
    assert {file["name"] for file in listed} == {"hers.txt", "big"}
    assert httpx.get(f"{target.url}/{sha256(BIG)}", headers=source.anna, timeout=60).content == BIG
    assert httpx.get(target.url + link, timeout=60).content == b"hers"
    # again, and only what is new goes over
    source.put(b"later", "later.txt")
    summary, _ = copy(source.store, bucket.url, *flags, env=bucket.env)
    assert (summary["copied"], summary["present"]) == (1, 4)
    assert bucket.blob(sha256(b"later")) == b"later"


def test_from_a_bucket_to_a_folder(source: Filled, bucket: Bucket, database: Database, tmp_path: Path) -> None:
    there = ("--to-spool", str(tmp_path / "spool"), "--to-catalogue", database.url)
    copy(source.store, bucket.url, *there, env=bucket.env)
    back = tmp_path / "back"
    summary, findings = copy(bucket.url, back, "--from-catalogue", database.url, env=bucket.env)
    assert (summary["copied"], summary["failed"], summary["missing"], findings) == (4, 0, 0, [])
    require_same(source.store, back)
    summary, findings = copy(bucket.url, back, "--from-catalogue", database.url, "--verify", env=bucket.env)
    assert (summary["copied"], summary["verified"], findings) == (0, 4, [])
    # what a copy reads from leaves nothing behind
    assert not (tmp_path / "store").exists()


def test_from_a_bucket_to_a_server_and_to_another_bucket(
    source: Filled, start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    spool = ("--to-spool", str(tmp_path / "spool"))
    copy(source.store, bucket.url, *spool, env=bucket.env)
    server = start_daemon("--anonymous", "full", "--workers", "1")
    env = {**bucket.env, **state_home(tmp_path)}
    summary, _ = copy(bucket.url, server.url, "--from-spool", str(tmp_path / "spool"), env=env)
    assert (summary["copied"], summary["failed"]) == (4, 0)
    assert httpx.get(f"{server.url}/{sha256(BIG)}").content == BIG
    other = Bucket(bucket.server)
    flags = (
        "--from-spool",
        str(tmp_path / "spool"),
        "--to-spool",
        str(tmp_path / "other"),
        "--to-catalogue",
        database.url,
    )
    summary, _ = copy(bucket.url, other.url, *flags, env=env)
    assert (summary["copied"], summary["tokens"]) == (4, 2)
    assert other.blob(sha256(b"nobody knows")) == b"nobody knows"


def test_what_is_damaged_in_the_target_is_healed(source: Filled, bucket: Bucket, tmp_path: Path) -> None:
    flags = ("--to-spool", str(tmp_path / "spool"))
    copy(source.store, bucket.url, *flags, env=bucket.env)
    digest = sha256(b"hers")
    bucket.server.put(bucket.name, f"files/{digest[:2]}/{digest}", b"hurt")
    summary, findings = copy(source.store, bucket.url, *flags, env=bucket.env)
    assert (summary["copied"], findings) == (0, [])
    summary, findings = copy(source.store, bucket.url, "--verify", *flags, env=bucket.env)
    assert (summary["healed"], summary["verified"]) == (1, 3)
    assert [(finding["name"], finding["state"]) for finding in findings] == [(digest, "healed")]
    assert bucket.blob(digest) == b"hers"
    assert bucket.get(f".filestored/quarantine/{digest}") == b"hurt"


def refusal(origin: Path | str, target: Path | str, *flags: str, env: dict[str, str]) -> str:
    ended = end(begin_copy(origin, target, *flags, env=env))
    assert ended.status in (1, 2), ended
    assert ended.errors.count("\n") == 1, ended.errors
    return str(ended.errors)


def test_a_bucket_that_cannot_be_copied_is_one_clear_line_and_left_alone(
    source: Filled, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    assert f"there is no store at {bucket.url}" in refusal(bucket.url, to, env=bucket.env)
    assert not to.exists()
    # nothing makes a store of what is only read
    bucket.server.put(bucket.name, f"files/{sha256(b'lone')[:2]}/{sha256(b'lone')}", b"lone")
    summary, _ = copy(bucket.url, to, env=bucket.env)
    assert summary["copied"] == 1
    assert bucket.get(".filestored/format.json") is None
    bucket.server.delete(bucket.name, f"files/{sha256(b'lone')[:2]}/{sha256(b'lone')}")
    copy(source.store, bucket.url, "--to-spool", str(tmp_path / "spool"), env=bucket.env)
    assert "--from-catalogue" in refusal(bucket.url, tmp_path / "x", env=bucket.env)
    other = source.store / ".filestored" / "catalogue.sqlite3"
    told = refusal(bucket.url, tmp_path / "x", "--from-catalogue", f"sqlite:///{other}", env=bucket.env)
    assert "that of another store" in told
    wrong = {**bucket.env, "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert "cannot be used" in refusal(bucket.url, tmp_path / "x", "--from-catalogue", database.url, env=wrong)
    told = refusal(
        source.store, bucket.url, "--to-spool", str(tmp_path / "y"), "--to-catalogue", database.url, env=bucket.env
    )
    assert "another catalogue" in told
    assert "--to-catalogue" in told
    assert not (tmp_path / "y").exists()
    for option in ("--to-spool", "--from-region"):
        told = refusal(source.store, tmp_path / "z", option, "x", env=bucket.env)
        assert f"{option} is for a bucket" in told
    assert not (tmp_path / "z").exists()
    assert not (tmp_path / "x").exists()


def test_import_brings_files_into_a_bucket(start_daemon: StartDaemon, bucket: Bucket, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    bodies = {"a.txt": b"a", "deep/big.bin": BIG, "empty": b""}
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    spool = tmp_path / "spool"
    daemon = on_bucket(start_daemon, bucket, spool, "--anonymous", "full")
    place = ("--store", bucket.url, "--spool", str(spool))
    for new in (3, 0):
        summary, _ = import_(spool, str(folder), *place, env=bucket.env)
        assert (summary["new"], summary["failed"]) == (new, 0)
    assert bucket.blob(sha256(BIG)) == BIG
    listed: list[dict[str, Any]] = httpx.get(f"{daemon.url}/v1/files", timeout=60).json()["files"]
    assert {file["name"] for file in listed} == {"a.txt", "big.bin", "empty"}
    assert execute(spool, "SELECT count(*) FROM files") == [(3,)]
