"""The folder, its permissions, and the disk and clock below it: each is made wrong, found, and told what mends it."""

import json
import os
import time
from pathlib import Path

import pytest

from filestored.doctor.disk import filesystem_of, measure_flush
from tests.conftest import EVERYTHING
from tests.doctor.examining import NOBODY, doctor, look, look_at, nobody


def test_a_folder_that_would_be_refused(folder: Path) -> None:
    (folder / "thesis.txt").write_text("mine")
    assert "neither empty nor a store" in look_at("folder", folder).of("folder", "fault")["found"]
    (folder / "file").write_text("")
    assert "is not a folder" in look_at("folder", folder / "file").of("folder", "fault")["found"]


@pytest.mark.parametrize(
    ("mark", "found"), [("{", "is damaged"), (json.dumps({"layout": 99, "algorithms": ["sha256"]}), "newer version")]
)
def test_a_mark_that_cannot_be_read(stopped: Path, mark: str, found: str) -> None:
    (stopped / ".filestored/format.json").write_text(mark)
    assert found in look_at("folder", stopped).of("folder", "fault")["found"]


def test_a_store_that_others_may_look_into(stopped: Path) -> None:
    (stopped / ".filestored").chmod(0o755)
    told = look_at("permissions", stopped)
    assert told.of("permissions", "warning")["mend"] == f"chmod 700 {stopped}/.filestored"


def test_a_store_that_is_not_ones_own(stopped: Path) -> None:
    if os.geteuid() == 0:
        os.chown(stopped / ".filestored", 12345, 12345)
        found = "belongs to user 12345"
    else:
        (stopped / ".filestored").chmod(0o500)
        found = "cannot be written to"
    try:
        told = doctor(stopped)
    finally:
        (stopped / ".filestored").chmod(0o700)
    assert found in told.of("permissions", "fault")["found"]
    assert told.status == 1
    if os.geteuid() == 0:
        mend = told.of("permissions", "fault")["mend"]
        assert "sudo -u '#12345'" in mend
        # it would take the store from a service
        assert "chown" not in mend
        # as root SQLite would make files that the daemon could not write to
        told.of("catalogue", "skipped")


def test_a_store_that_everybody_may_change(stopped: Path) -> None:
    shard = next(stopped.glob("[0-9a-f]0"), None) or (stopped / "10")
    shard.mkdir(exist_ok=True)
    for each in (stopped, shard):
        each.chmod(0o777)
    told = look_at("permissions", stopped)
    found = told.says("permissions", "warning", "everybody on this machine may delete and replace")
    assert str(shard) in found["found"]
    assert found["mend"].startswith(f"chmod o-w {stopped} ")
    stopped.chmod(0o700)
    # nobody else gets to what is below
    told = look_at("permissions", stopped)
    assert told.of("permissions", "good")


@pytest.mark.root
def test_a_folder_and_a_file_of_roots_inside_ones_own(stopped: Path) -> None:
    os.chown(stopped, NOBODY, NOBODY)
    for each in stopped.rglob("*"):
        os.chown(each, NOBODY, NOBODY)
    log, lock = stopped / ".filestored/log", stopped / ".filestored/scrub.lock"
    os.chown(log, 0, 0)
    lock.touch(0o600)
    with nobody():
        found = look_at("permissions", stopped).of("permissions", "fault")
    assert "belong to root" in found["found"]
    assert found["mend"] == f"as root: chown nobody {log} {lock}"
    os.chown(log, NOBODY, NOBODY)
    lock.unlink()
    with nobody():
        look_at("permissions", stopped).of("permissions", "good")


def test_a_store_in_memory() -> None:
    place = Path("/dev/shm")
    if filesystem_of(place) != "tmpfs":
        assert not EVERYTHING, filesystem_of(place)
        pytest.skip("this system has no file system in memory there")
    assert "is in memory (tmpfs)" in look_at("disk", place / "none-of-that-name").of("disk", "fault")["found"]
    spool = {"store": "s3://files/here", "spool": str(place / "none-of-that-name")}
    look("disk", spool, {}).says("disk", "fault", "a restart loses the catalogue")
    elsewhere = {**spool, "catalogue": "postgresql://me@db.example/files"}
    assert "--spool" in look("disk", elsewhere, {}).says("disk", "warning", "loses unfinished uploads")["mend"]


def test_flushes_that_reach_no_disk(folder: Path) -> None:
    told = look_at("flushing", folder, env={"LD_PRELOAD": "libeatmydata.so"})
    assert told.of("flushing", "fault")["mend"] == "start without LD_PRELOAD"
    assert (
        "--durability relaxed"
        in look_at("flushing", folder, "--durability", "relaxed", "--port", "0").of("flushing", "warning")["found"]
    )
    assert 0 < measure_flush(folder) < 60
    assert list(folder.iterdir()) == []


def test_a_disk_that_has_no_room(folder: Path) -> None:
    told = look_at("space", folder, "--min-free-space", "1000TiB", "--port", "0")
    assert "they are answered 507" in told.of("space", "fault")["found"]


def test_a_clock_that_has_gone_back(stopped: Path) -> None:
    ahead = time.time() + 86400
    os.utime(stopped / ".filestored/format.json", (ahead, ahead))
    assert "set the clock right" in look_at("clock", stopped).of("clock", "fault")["mend"]


def test_a_spool_that_would_be_refused(stopped: Path) -> None:
    given = {"store": "s3://files/here", "spool": str(stopped)}
    found = look("folder", given, {}).of("folder", "fault")
    assert found["found"] == f"{stopped} is a store itself, not the spool of s3://files/here"
    assert found["mend"] == "name another folder with --spool"
    new = look("folder", {**given, "spool": str(stopped.parent / "new")}, {})
    assert "the first start makes it" in new.of("folder", "good")["found"]


def test_a_link_that_leads_out_of_the_store_is_told(stopped: Path, tmp_path: Path) -> None:
    log = stopped / ".filestored" / "log"
    log.rename(tmp_path / "log")
    log.symlink_to(tmp_path / "log")
    assert "leads out of the store" in look_at("folder", stopped).of("folder", "fault")["found"]
    log.unlink()
    (tmp_path / "log").rename(stopped / ".filestored" / "elsewhere")
    log.symlink_to("elsewhere")
    assert look_at("folder", stopped).of("folder", "good")
