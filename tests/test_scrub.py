"""Scrubbing: damage is found, set aside and healed; what is sound never is; a pass goes on where it stopped."""

import hashlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from filestored.blobs import walking
from filestored.blobs.layout import StoreFolder
from filestored.blobs.walking import Walk
from filestored.catalogue.catalogue import Catalogue
from filestored.digest import Algorithm
from filestored.scrub import Finding, Scrub, TokenBucket
from tests.bad_days.consistency import blobs, rows, sha256
from tests.bad_days.test_races import act, require_settled, run_together
from tests.care import begin, call, end, execute, lay, noted, quarantined, rot
from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until

SIZES = pytest.mark.parametrize("size", [1000, 300_000], ids=["small", "large"])


def post(daemon: Daemon, body: bytes) -> str:
    answer = httpx.post(daemon.url, content=body)
    assert (answer.status_code, answer.text) == (200, sha256(body))
    return answer.text


def answers(daemon: Daemon, digest: str) -> list[httpx.Response]:
    """Ask for a file on connections of their own, so that every worker is asked."""
    return [httpx.get(f"{daemon.url}/{digest}") for _ in range(12)]


def fill(store: Path, count: int, size: int) -> dict[str, bytes]:
    """Put blobs into a store, without the program."""
    bodies = [os.urandom(size) for _ in range(count)]
    for body in bodies:
        lay(store, sha256(body), body)
    return {sha256(body): body for body in bodies}


# damage


@SIZES
@pytest.mark.parametrize("is_hot", [True, False], ids=["hot", "cold"])
def test_a_flipped_bit_is_set_aside_and_an_upload_heals_it(start_daemon: StartDaemon, size: int, is_hot: bool) -> None:
    daemon = start_daemon("--workers", "2")
    body, sound = os.urandom(size), os.urandom(size)
    digest, other = post(daemon, body), post(daemon, sound)
    if is_hot:
        assert {answer.status_code for answer in answers(daemon, digest)} == {200}
    rotten = rot(daemon.blob(digest))
    status, output, errors = call(daemon.store, "scrub", "--rate", "none")
    assert {answer.status_code for answer in answers(daemon, digest)} == {404}
    assert (status, errors) == (1, "")
    place = daemon.store / ".filestored" / "quarantine" / digest
    damage, summary = output.splitlines()
    assert damage == f"{digest} damaged: its {size} bytes have the hash {sha256(rotten)}; moved to {place}"
    assert re.fullmatch(rf"verified: 1 blobs, {size} bytes; damaged: 1; missing: 0; [\d.]+ seconds", summary)
    assert quarantined(daemon.store) == {digest: rotten}
    assert rows(daemon.store) == {digest: size, other: size}
    log = (daemon.store / ".filestored" / "log" / "filestored.log").read_text()
    assert re.fullmatch(rf"\d{{4}}-[^ ]+Z ERROR scrub: {digest} damaged: [^\n]+\n", log)
    post(daemon, body)
    assert {answer.content for answer in answers(daemon, digest)} == {body}
    assert call(daemon.store, "scrub").status == 0
    assert quarantined(daemon.store) == {digest: rotten}


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x", lambda body: b""])
@SIZES
def test_a_truncated_or_lengthened_blob_is_damaged(
    start_daemon: StartDaemon, size: int, change: Callable[[bytes], bytes]
) -> None:
    daemon = start_daemon("--workers", "2")
    body = os.urandom(size)
    digest = post(daemon, body)
    rotten = rot(daemon.blob(digest), change(body))
    (damage, summary) = (scrubbed := call(daemon.store, "scrub", "--json")).json()
    assert scrubbed.status == 1
    assert (damage["hash"], damage["state"]) == (digest, "damaged")
    assert Path(damage["moved_to"]).read_bytes() == rotten
    assert (summary["verified_blobs"], summary["damaged"], summary["missing"]) == (0, 1, 0)
    assert {answer.status_code for answer in answers(daemon, digest)} == {404}
    post(daemon, body)
    assert {answer.content for answer in answers(daemon, digest)} == {body}


def test_what_lies_in_quarantine_is_never_overwritten(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    body = os.urandom(1000)
    expected = {}
    for name in ("", ".1", ".2"):
        digest = post(daemon, body)
        expected[f"{digest}{name}"] = rot(daemon.blob(digest), os.urandom(1000))
        assert call(daemon.store, "scrub").status == 1
        assert quarantined(daemon.store) == expected


def test_a_file_without_its_blob_is_missing_until_it_is_uploaded_again(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    body = os.urandom(1000)
    digest = post(daemon, body)
    post(daemon, b"sound")
    daemon.blob(digest).unlink()
    for _ in range(2):
        status, output, _ = call(daemon.store, "scrub")
        assert (status, output.splitlines()[:-1]) == (
            1, [f"{digest} missing: a file names it, but there is no blob (of 1000 bytes)"]
        )  # fmt: skip
        assert (noted(daemon.store)["damaged"], noted(daemon.store)["missing"]) == (0, 1)
    post(daemon, body)
    assert call(daemon.store, "scrub").status == 0
    assert noted(daemon.store)["missing"] == 0


def test_a_blob_of_another_size_than_its_files_say_is_missing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    digest = post(daemon, b"12345")
    execute(daemon.store, "UPDATE files SET size = 6")
    status, output, _ = call(daemon.store, "scrub")
    assert status == 1
    assert output.splitlines()[0] == f"{digest} missing: its blob has 5 bytes instead of 6"
    assert daemon.blob(digest).read_bytes() == b"12345"


def test_an_expired_file_without_its_blob_is_not_missing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    digest = post(daemon, b"12345")
    assert daemon.stop() == 0
    execute(daemon.store, "UPDATE files SET expires_at = 1")
    daemon.blob(digest).unlink()
    assert call(daemon.store, "scrub").status == 0


def test_a_blob_that_the_disk_cannot_read_is_damaged_and_stays(tmp_path: Path) -> None:
    store = tmp_path / "store"
    digest, *others = sorted(fill(store, 3, 5000))
    wrapper = (
        require_program("strace"), "-f", "-qq", "-o", os.devnull, "-P", str(store / digest[:2] / digest),
        "-e", "trace=preadv,preadv2", "-e", "inject=preadv,preadv2:error=EIO",
    )  # fmt: skip
    status, output, errors = call(store, "scrub", wrapper=wrapper)
    assert (status, errors) == (1, "")
    assert output.splitlines()[0] == f"{digest} damaged: it cannot be read: Input/output error"
    assert noted(store)["verified_blobs"] == 2
    assert blobs(store) == {digest, *others}
    assert quarantined(store) == {}


def test_a_folder_of_blobs_that_the_disk_cannot_list_is_damaged(tmp_path: Path) -> None:
    store = tmp_path / "store"
    digest, *_ = sorted(fill(store, 3, 5000), key=lambda name: name[:2])
    assert call(store, "reindex").status == 0
    wrapper = (
        require_program("strace"), "-f", "-qq", "-o", os.devnull, "-P", str(store / digest[:2]),
        "-e", "trace=getdents64", "-e", "inject=getdents64:error=EIO",
    )  # fmt: skip
    status, output, _ = call(store, "scrub", wrapper=wrapper)
    assert status == 1
    assert output.splitlines()[0] == f"{digest[:2]} damaged: the folder cannot be listed: Input/output error"
    # those that files name are known all the same
    assert noted(store)["verified_blobs"] == 3


# what is no damage


def test_a_blob_may_be_named_by_any_algorithm_of_its_length(tmp_path: Path) -> None:
    store = tmp_path / "store"
    body = os.urandom(5000)
    for algorithm in Algorithm:
        lay(store, algorithm.new(body).hexdigest(), body)
    assert call(store, "scrub").status == 0
    assert noted(store)["verified_blobs"] == len(Algorithm)
    assert Algorithm.BLAKE3 not in StoreFolder.find(store, Algorithm.SHA256).algorithms()
    for algorithm in Algorithm:
        rot(store / algorithm.new(body).hexdigest()[:2] / algorithm.new(body).hexdigest())
    assert call(store, "scrub").status == 1
    assert noted(store)["damaged"] == len(Algorithm)
    assert blobs(store) == set()


def test_a_store_of_the_first_program_is_taken_as_it_is(tmp_path: Path) -> None:
    store = tmp_path / "store"
    bodies = [os.urandom(1000) for _ in range(20)]
    names = [hashlib.md5(body).hexdigest() for body in bodies]
    for name, body in zip(names, bodies, strict=True):
        lay(store, name, body)
    assert call(store, "scrub").status == 0
    rot(store / names[0][:2] / names[0])
    status, output, _ = call(store, "scrub")
    assert status == 1
    assert output.startswith(f"{names[0]} damaged: ")
    assert blobs(store) == set(names[1:])


def test_what_is_no_blob_is_left_alone_and_counted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (digest,) = fill(store, 1, 10)
    assert call(store, "scrub").status == 0
    (store / "README").write_text("x")
    (store / digest[:2] / "notes.txt").write_text("x")
    (store / digest[:2] / f"{digest[:2]}{'A' * 62}").write_text("x")
    (store / digest[:2] / f"{digest[:2]}{'a' * 62}").symlink_to("/etc/passwd")
    (store / digest[:2] / f"{digest[:2]}{'b' * 62}").mkdir()
    before = sorted(path for path in store.rglob("*") if ".filestored" not in path.parts)
    status, output, _ = call(store, "scrub")
    assert status == 0
    assert output.splitlines()[0] == "left alone, since they are no blobs: 5 of the names in the store"
    assert sorted(path for path in store.rglob("*") if ".filestored" not in path.parts) == before


@contextmanager
def scrubbing(store: Path, pause: Callable[[float], bool]) -> Iterator[tuple[Scrub, list[Finding]]]:
    """A scrub in this process, which something can happen to between two pieces."""
    folder = StoreFolder.find(store, Algorithm.SHA256)
    Catalogue.prepare(folder.catalogue_file)
    found: list[Finding] = []
    with closing(Catalogue(folder.catalogue_file, durable=False)) as catalogue:
        with closing(Scrub(folder, catalogue, rate=None, pause=pause, found=found.append)) as scrub:
            yield scrub, found


def test_a_blob_that_goes_while_it_is_read_is_no_damage(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ((digest, _),) = fill(store, 1, 3 << 20).items()
    blob = store / digest[:2] / digest
    rot(blob)

    def remove(_: float) -> bool:
        blob.unlink(missing_ok=True)
        return False

    with scrubbing(store, remove) as (scrub, found):
        assert scrub.run()
        assert (found, scrub.state.damaged, scrub.state.missing, scrub.state.verified_blobs) == ([], 0, 0, 0)


def test_a_blob_that_is_replaced_while_it_is_read_is_no_damage_and_stays(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ((digest, body),) = fill(store, 1, 3 << 20).items()
    blob = store / digest[:2] / digest
    rot(blob)

    def replace(_: float) -> bool:
        fresh = tmp_path / "fresh"
        fresh.write_bytes(body)
        fresh.rename(blob)
        return False

    with scrubbing(store, replace) as (scrub, found):
        assert scrub.run()
        assert (found, quarantined(store)) == ([], {})
        assert blob.read_bytes() == body


def test_beside_racing_uploads_and_deletes_nothing_is_called_damaged_and_nothing_is_lost(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon("--workers", "2")
    over = threading.Event()
    passes: list[list[Finding]] = []

    def scrub_again_and_again() -> None:
        end_at = time.monotonic() + 6
        while time.monotonic() < end_at or len(passes) < 2:
            with scrubbing(daemon.store, lambda _: False) as (scrub, found):
                assert scrub.run()
                passes.append(found)
        over.set()

    def work(number: int) -> None:
        if number == 0:
            scrub_again_and_again()
            return
        dice = random.Random(number)
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            while not over.is_set():
                act(client, dice)

    run_together(5, work)
    assert not any(passes)
    require_settled(daemon)
    assert quarantined(daemon.store) == {}


# going on


def test_a_scrub_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    store = tmp_path / "store"
    bodies = fill(store, 60, 40_000)
    process = begin(store, "scrub", "--rate", "400KB")
    assert wait_until(lambda: noted(store).get("verified_blobs", 0) >= 10)
    assert end(process, signal.SIGKILL).status == -signal.SIGKILL
    before = noted(store)
    assert 10 <= before["verified_blobs"] < 60
    assert before["position"] == sorted(bodies)[before["verified_blobs"] - 1]
    (after,) = call(store, "scrub", "--rate", "none", "--json").json()
    assert after["read_bytes"] == (60 - before["verified_blobs"]) * 40_000
    assert (after["verified_blobs"], after["verified_bytes"]) == (60, 60 * 40_000)
    assert after["started_at"] == before["started_at"]
    assert (after["position"], after["finished_at"] >= after["started_at"]) == ("", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_scrub_that_is_interrupted_ends_at_once_and_goes_on_later(tmp_path: Path, number: int) -> None:
    store = tmp_path / "store"
    bodies = fill(store, 20, 40_000)
    first = min(bodies)
    rot(store / first[:2] / first)
    # a piece every 0.125 s, and all of it in 80 s
    process = begin(store, "scrub", "--rate", "10KB")
    assert wait_until(lambda: noted(store).get("damaged", 0) == 1)
    told_at = time.monotonic()
    status, output, errors = end(process, number)
    assert time.monotonic() - told_at < 5
    assert (status, errors) == (130, "filestored: interrupted; the next scrub goes on from here\n")
    assert output.splitlines()[-1].startswith("verified: ")
    before = noted(store)
    assert (before["damaged"], before["finished_at"]) == (1, None)
    status, output, _ = call(store, "scrub", "--rate", "none")
    # what was found earlier in the pass counts, but is not told again
    assert (status, len(output.splitlines())) == (1, 1)
    assert noted(store)["verified_blobs"] == 19
    assert noted(store)["damaged"] == 1


def test_restart_and_a_finished_pass_begin_anew(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 20, 40_000)
    process = begin(store, "scrub", "--rate", "100KB")
    assert wait_until(lambda: noted(store).get("verified_blobs", 0) >= 2)
    assert end(process, signal.SIGINT).status == 130
    for arguments in (["--restart"], [], []):
        (summary,) = call(store, "scrub", "--rate", "none", "--json", *arguments).json()
        assert summary["read_bytes"] == summary["verified_bytes"] == 20 * 40_000
    finished_at = noted(store)["finished_at"]
    process = begin(store, "scrub", "--rate", "100KB")
    assert wait_until(lambda: noted(store)["position"] != "")
    # when a pass was finished last stays known while the next one runs
    assert noted(store)["finished_at"] == finished_at
    assert end(process, signal.SIGINT).status == 130


@pytest.mark.parametrize("note", ["", "nonsense", "[]", '{"position": 7}', '{"position": "../.."}'])
def test_a_note_that_makes_no_sense_begins_a_pass(tmp_path: Path, note: str) -> None:
    store = tmp_path / "store"
    fill(store, 2, 10)
    assert call(store, "scrub").status == 0
    execute(store, "UPDATE notes SET value = ? WHERE name = 'scrub'", note)
    assert call(store, "scrub").status == 0
    assert noted(store)["verified_blobs"] == 2


def test_only_one_scrub_runs_at_a_time(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 20, 40_000)
    process = begin(store, "scrub", "--rate", "100KB")
    assert wait_until(lambda: bool(noted(store)))
    status, output, errors = call(store, "scrub")
    assert (status, output, errors) == (1, "", f"filestored: another scrub of {store} is running\n")
    assert end(process, signal.SIGINT).status == 130
    assert call(store, "scrub").status == 0


# how fast


def test_the_rate_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 40, 25_000)
    (summary,) = call(store, "scrub", "--rate", "250KB", "--json").json()
    assert 3 <= summary["seconds"] <= 15
    (summary,) = call(store, "scrub", "--rate", "none", "--json").json()
    assert summary["seconds"] < 3


def test_waiting_takes_no_processor_time(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fill(store, 1, 100_000)
    process = begin(store, "scrub", "--rate", "10KB")
    assert wait_until(lambda: bool(noted(store)))

    def used() -> int:
        times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(times[11]) + int(times[12])

    before = used()
    time.sleep(2)
    assert used() - before < 0.2 * os.sysconf("SC_CLK_TCK")
    assert end(process, signal.SIGINT).status == 130


def test_no_more_is_saved_up_than_a_quarter_of_a_second() -> None:
    bucket = TokenBucket(1000)
    time.sleep(0.4)
    assert bucket.take(250) < 0.1
    assert 0.8 < bucket.take(1000) < 1.2
    assert TokenBucket(None).take(10**12) == 0


# the walk


def test_the_walk_is_in_order_however_many_names_a_folder_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_MOST_NAMES", 3)
    names = sorted(f"{number % 5:02x}" + sha256(b"%d" % number)[2:] for number in range(40))
    for name in names:
        lay(tmp_path, name, b"")
    folder = StoreFolder.find(tmp_path, Algorithm.SHA256)

    def failed(shard: str, error: OSError) -> None:
        raise error

    for after in ("", names[0], names[17], names[-1], "02", "ff"):
        assert list(Walk(folder, after, failed=failed)) == [name for name in names if name > after]
