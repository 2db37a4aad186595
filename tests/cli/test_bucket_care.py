"""Care of a store in a bucket: whose catalogue keeps it, scrub, reindex and gc beside daemons and without one."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.care import CLEAN, Ended, begin, call, end
from tests.conftest import Daemon, StartDaemon
from tests.importing.swift import Swift
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket, S3Server, not_on_ceph
from tests.tokens import bearer
from tests.twins import Twins

# servers of several programs are started, and answer slowly on a busy machine
pytestmark = pytest.mark.timeout(400)

PART_BYTES = 3_456_789
BODIES = [b"one", os.urandom(70_000), os.urandom(300_000)]


@pytest.fixture
def twins(bucket: Bucket, database: Database, start_daemon: StartDaemon, tmp_path: Path) -> Twins:
    return Twins(bucket, database, start_daemon, tmp_path)


def where(twins: Twins, spool: Path, catalogue: str | None = None) -> tuple[str, ...]:
    """Return the options that name the bucket, with the test's database or another catalogue."""
    return ("--store", twins.bucket.url, "--spool", str(spool), "--catalogue", catalogue or twins.database.url)


def run(twins: Twins, spool: Path, command: str, *words: str, catalogue: str | None = None) -> Ended:
    """Run a command on the machine that has this spool."""
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", *command.split(), *words, *where(twins, spool, catalogue)],
        capture_output=True, text=True, timeout=90, env=CLEAN | twins.bucket.env,
    )  # fmt: skip
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def upload(daemon: Daemon, body: bytes, **parameters: str) -> str:
    answer = httpx.post(daemon.url, content=body, params=parameters, headers={"content-type": "a/b"}, timeout=60)
    assert (answer.status_code, answer.text) == (200, sha256(body))
    return answer.text


def require_one_line(ended: Ended, *parts: str) -> None:
    assert ended.status == 1, ended
    assert ended.errors.count("\n") == 1
    for part in parts:
        assert part in ended.errors


def lay(twins: Twins, name: str, body: bytes) -> None:
    """Put an object under a blob's name, as another program would."""
    twins.bucket.server.put(twins.bucket.name, f"files/{name[:2]}/{name}", body)


def test_a_daemon_with_a_catalogue_of_its_own_is_refused(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one")
    upload(daemon, BODIES[0])
    spool = tmp_path / "another"
    own = f"sqlite:///{tmp_path}/own.sqlite3"
    for command in ("run --port 0", "gc", "reindex", "token list"):
        ended = run(twins, spool, command, catalogue=own)
        require_one_line(ended, "kept by another catalogue", "reindex --take-over")
    assert httpx.get(f"{daemon.url}/{sha256(BODIES[0])}").content == BODIES[0]


def test_a_database_of_another_bucket_is_refused(twins: Twins, tmp_path: Path) -> None:
    twins.start("one").stop()
    other = Bucket(twins.bucket.server)
    spool = tmp_path / "another"
    ended = call(
        spool, "run", "--port", "0", "--store", other.url, "--spool", str(spool), "--catalogue", twins.database.url,
        env=other.env,
    )  # fmt: skip
    require_one_line(ended, "belongs to another store")


def test_a_lost_catalogue_is_made_anew_and_takes_the_bucket_over(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one")
    digests = [upload(daemon, body) for body in BODIES]
    assert daemon.stop() == 0
    old, twins.database = twins.database, Database(twins.database.server)
    try:
        spool = tmp_path / "one"
        require_one_line(run(twins, spool, "run --port 0"), "kept by another catalogue")
        require_one_line(run(twins, spool, "reindex"), "kept by another catalogue")
        ended = run(twins, spool, "reindex", "--take-over", "--json")
        assert (ended.status, ended.json()) == (0, [{"added": 3, "added_bytes": 370_003, "blobs": 3}])
        again = twins.start("one")
        for digest, body in zip(digests, BODIES, strict=True):
            assert httpx.get(f"{again.url}/{digest}").content == body
        twins.require_agreement()
        require_one_line(run(twins, spool, "gc", catalogue=old.url), "kept by another catalogue")
    finally:
        # what still uses it ends with it
        twins.database.drop()


def test_scrub_moves_what_is_damaged_out_of_the_way_and_an_upload_heals_it(twins: Twins, tmp_path: Path) -> None:
    daemons = [twins.start("one"), twins.start("two")]
    digests = [upload(daemons[0], body) for body in BODIES]
    assert run(twins, tmp_path / "one", "scrub", "--rate", "none").status == 0
    rotten = b"x" + BODIES[1][1:]
    lay(twins, digests[1], rotten)
    ended = run(twins, tmp_path / "two", "scrub", "--rate", "none", "--json")
    assert ended.status == 1
    finding, summary = ended.json()
    assert (finding["hash"], finding["state"]) == (digests[1], "damaged")
    assert finding["moved_to"].endswith(f".filestored/quarantine/{digests[1]}")
    assert (summary["verified_blobs"], summary["damaged"], summary["missing"]) == (2, 1, 0)
    assert twins.bucket.get(f".filestored/quarantine/{digests[1]}") == rotten
    assert twins.bucket.blob(digests[1]) is None
    assert twins.removals() == []
    for daemon in daemons:
        assert httpx.get(f"{daemon.url}/{digests[1]}", timeout=30).status_code == 404
        assert httpx.get(f"{daemon.url}/{digests[0]}", timeout=30).content == BODIES[0]
    ended = run(twins, tmp_path / "one", "scrub", "--rate", "none", "--json")
    assert (ended.status, [each.get("state") for each in ended.json()]) == (1, ["missing", None])
    upload(daemons[1], BODIES[1])
    assert httpx.get(f"{daemons[0].url}/{digests[1]}", timeout=30).content == BODIES[1]
    assert run(twins, tmp_path / "one", "scrub", "--rate", "none").status == 0
    twins.require_agreement()


@not_on_ceph
def test_a_blob_whose_parts_are_missing_is_told_and_keeps_nothing_from_being_looked_at(
    twins: Twins, tmp_path: Path
) -> None:
    daemon = twins.start("one")
    for body in BODIES:
        upload(daemon, body)
    broken = upload(daemon, os.urandom((16 << 20) + PART_BYTES))
    swift = twins.bucket.server
    assert isinstance(swift, Swift)
    (last_part,) = [path for path in swift.blob_files() if path.stat().st_size == PART_BYTES]
    last_part.unlink()
    with httpx.stream("GET", f"{daemon.url}/{broken}", timeout=60) as answer, pytest.raises(httpx.RemoteProtocolError):
        answer.read()
    ended = run(twins, tmp_path / "one", "scrub", "--rate", "none", "--json")
    finding, summary = ended.json()
    assert (ended.status, finding["hash"], finding["state"]) == (1, broken, "damaged")
    assert "cannot be read" in finding["reason"]
    assert (summary["verified_blobs"], summary["damaged"], summary["missing"]) == (3, 1, 0)
    assert httpx.delete(f"{daemon.url}/{broken}", timeout=60).status_code == 200
    assert run(twins, tmp_path / "one", "scrub", "--rate", "none").status == 0


def test_one_machine_at_a_time_scrubs_a_bucket(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one")
    upload(daemon, BODIES[2])
    spool = tmp_path / "one"
    slow = begin(spool, "scrub", *where(twins, spool), "--rate", "4KiB", env=twins.bucket.env)
    holders = "SELECT holder FROM leases WHERE name = 'scrub'"
    assert wait_until(lambda: len(twins.database.execute(holders)) == 1)
    require_one_line(run(twins, tmp_path / "two", "scrub"), "another machine scrubs")
    assert end(slow, signal.SIGTERM).status == 130
    assert run(twins, tmp_path / "two", "scrub", "--rate", "none").status == 0
    assert twins.database.execute(holders) == []


def test_reindex_beside_daemons_names_what_nobody_does_but_not_what_is_going(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one")
    upload(daemon, BODIES[0])
    going = b"deleted, but not gone yet"
    lay(twins, sha256(BODIES[1]), BODIES[1])
    lay(twins, sha256(going), going)
    twins.database.execute(
        "INSERT INTO removals (digest, sent_at) VALUES (%s, extract(epoch FROM clock_timestamp()) * 1000)",
        sha256(going),
    )
    ended = run(twins, tmp_path / "two", "reindex", "--json")
    assert (ended.status, ended.json()) == (0, [{"added": 1, "added_bytes": 70_000, "blobs": 3}])
    assert set(twins.rows()) == {sha256(BODIES[0]), sha256(BODIES[1])}
    assert httpx.get(f"{daemon.url}/{sha256(going)}").status_code == 404
    twins.require_agreement()


def test_gc_ends_what_has_expired_and_carries_out_removals(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one")
    upload(daemon, BODIES[0])
    ended = upload(daemon, BODIES[1], expires_in="1h")
    assert daemon.stop() == 0
    twins.expire(ended)
    lay(twins, sha256(BODIES[2]), BODIES[2])
    twins.database.execute("INSERT INTO removals (digest) VALUES (%s)", sha256(BODIES[2]))
    cared = run(twins, tmp_path / "one", "gc", "--json")
    (done,) = cared.json()
    assert (cared.status, done["files"], done["blobs"], done["freed_bytes"]) == (0, 1, 2, 370_000)
    assert twins.blobs() == {sha256(BODIES[0])}
    twins.require_agreement()


def test_what_is_refused_after_it_was_brought_is_not_readable(twins: Twins, tmp_path: Path) -> None:
    daemon = twins.start("one", workers=2)
    bodies = [os.urandom(400_000) for _ in range(4)]
    # room for one of them: which is seen only when they are recorded
    made = run(twins, tmp_path / "one", "token create small", "--permissions", "write", "--quota", "500KiB")
    reader = run(twins, tmp_path / "one", "token create reader", "--permissions", "read")
    assert wait_until(lambda: httpx.get(f"{daemon.url}/v1/files", headers=bearer(reader.output.strip())).is_success)

    def send(body: bytes) -> int:
        headers = {**bearer(made.output.strip()), "content-type": "a/b"}
        return httpx.post(daemon.url, content=body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(send, bodies))
    assert sorted(statuses) == [200, 413, 413, 413]
    for body, status in zip(bodies, statuses, strict=True):
        answer = httpx.get(f"{daemon.url}/{sha256(body)}", headers=bearer(reader.output.strip()), timeout=30)
        assert answer.status_code == (200 if status == 200 else 404)
    twins.require_agreement()


def test_what_expires_while_the_object_store_is_away_is_not_served_and_removed_afterwards(
    own_s3: S3Server, database: Database, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    twins = Twins(Bucket(own_s3), database, start_daemon, tmp_path)
    daemon = twins.start("one")
    digest = upload(daemon, BODIES[0], expires_in="1h")
    own_s3.kill()
    twins.expire(digest)
    assert wait_until(lambda: twins.rows() == {}, seconds=40)
    assert httpx.get(f"{daemon.url}/{digest}", timeout=60).status_code in (404, 503)
    own_s3.start()
    assert wait_until(lambda: httpx.get(f"{daemon.url}/{digest}", timeout=30).status_code == 404)
    twins.require_agreement()
    assert twins.blobs() == set()
