"""Importing a tree of files: what is kept, what is left out, and that nothing is read twice."""

import os
import shutil
import socket
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_agreement, sha256
from tests.care import call, execute
from tests.conftest import StartDaemon
from tests.importing.reports import Row, import_, report_of, rows, states
from tests.tokens import bearer, make_token

LONG_AGO = 1_234_567_890_123


def lay(path: Path, body: bytes, modified: int = LONG_AGO) -> Path:
    """Make a file that was written at a time in milliseconds since 1970."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    os.utime(path, ns=(0, modified * 1_000_000))
    return path


def test_names_types_and_times_are_kept(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    big = os.urandom(3_000_000)
    lay(source / "a" / "b" / "photo.JPG", b"jpeg")
    lay(source / "big.bin", big, 5000)
    lay(source / "empty", b"")
    summary, ended = import_(store, source)
    assert rows(store) == {
        sha256(b"jpeg"): Row("anonymous", "photo.JPG", "image/jpeg", 4, LONG_AGO, None),
        sha256(big): Row("anonymous", "big.bin", "application/octet-stream", 3_000_000, 5000, None),
        sha256(b""): Row("anonymous", "empty", "application/octet-stream", 0, LONG_AGO, None),
    }
    assert (summary["kind"], summary["new"], summary["new_bytes"], summary["failed"]) == ("folder", 3, 3_000_004, 0)
    assert Path(summary["report"]).parent == store / ".filestored" / "imports"
    report = report_of(summary)
    assert report["a/b/photo.JPG"]["hash"] == sha256(b"jpeg")
    assert (report["big.bin"]["hash"], report["big.bin"]["size"]) == (sha256(big), 3_000_000)
    assert ended.errors == ""
    require_agreement(store)


def test_a_second_run_reads_only_what_has_changed(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    for number in range(40):
        lay(source / f"{number}.txt", b"file %d" % number)
    import_(store, source)
    lay(source / "7.txt", b"changed!")
    lay(source / "new.txt", b"new")
    # stored no longer, though the report says so
    execute(store, "DELETE FROM files WHERE digest = ?", sha256(b"file 9"))
    summary, _ = import_(store, source)
    assert (summary["new"], summary["unchanged"], summary["known"]) == (3, 38, 0)
    assert summary["read_bytes"] == len(b"changed!" + b"new" + b"file 9")
    assert {sha256(b"changed!"), sha256(b"new"), sha256(b"file 9")} < set(rows(store))


def test_a_file_of_the_same_size_that_was_written_anew_is_read_again(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay(source / "a", b"before", 1000)
    import_(store, source)
    lay(source / "a", b"after!", 2000)
    summary, _ = import_(store, source)
    assert summary["new"] == 1
    assert report_of(summary)["a"]["hash"] == sha256(b"after!")


def test_links_and_special_files_are_left_out_and_named(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    secret = lay(tmp_path / "secret", b"not to be followed")
    lay(source / "file", b"file")
    (source / "link").symlink_to(secret)
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # the name of a socket is short
        listening.bind(os.path.relpath(source / "s"))
        summary, _ = import_(store, source)
    assert states(summary) == {"file": "new", "link": "skipped", "loop": "skipped", "pipe": "skipped", "s": "skipped"}
    assert "symbolic link" in report_of(summary)["link"]["reason"]
    assert set(rows(store)) == {sha256(b"file")}


def test_names_that_are_no_text_come_through_the_report_byte_for_byte(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    raw = os.fsencode(source) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw)).write_bytes(b"latin")
    (source / "nai\u0308ve \u202e.txt").write_bytes(b"decomposed")
    (source / "back\\slash.txt").write_bytes(b"slash")
    summary, _ = import_(store, source)
    (latin,) = [source for source in report_of(summary) if source.startswith("caf")]
    assert os.fsencode(latin) == b"caf\xe9.txt"
    files = rows(store)
    assert files[sha256(b"latin")].name == "caf%E9.txt"
    assert files[sha256(b"decomposed")].name == "nai\u0308ve .txt"
    assert files[sha256(b"slash")].name == "slash.txt"
    assert "slash.txt" in report_of(summary)["back\\slash.txt"]["reason"]
    # and in sentences it does not reach the terminal
    assert call(store, "import", str(source)).status == 0


def test_what_cannot_be_read_is_named_and_the_rest_imported(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay(source / "good", b"good")
    lay(source / "bad", b"bad")
    # root reads everything: a fault of the disk is the same to everybody
    wrapper = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(source / "bad"), "-e", "inject=pread64:error=EIO")
    ended = call(store, "import", str(source), wrapper=wrapper)
    assert ended.status == 1
    assert "bad: failed: it cannot be read: Input/output error" in ended.output
    assert set(rows(store)) == {sha256(b"good")}
    summary, _ = import_(store, source)
    assert (summary["new"], summary["unchanged"]) == (1, 1)


def test_beside_a_daemon_its_files_are_served_at_once(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source = tmp_path / "source"
    for number in range(300):
        lay(source / f"{number}.txt", b"file %d" % number)
    daemon = start_daemon("--workers", "2")
    token = make_token(daemon.store, "anna", "read,write")
    mine = bearer(token)
    known = httpx.post(daemon.url, content=b"file 5", params={"name": "mine.txt", "expires_in": "1h"}, headers=mine)
    assert known.text == sha256(b"file 5")
    summary, _ = import_(daemon.store, source, "--owner", "anna")
    assert (summary["new"], summary["known"]) == (299, 1)
    for number in (0, 5, 299):
        assert httpx.get(f"{daemon.url}/{sha256(b'file %d' % number)}", headers=mine).content == b"file %d" % number
    # uploading again what is there: the name that is given replaces the old one, and the longer life wins
    file = httpx.get(f"{daemon.url}/v1/files/{known.text}", headers=mine).json()
    assert (file["name"], file["expires_at"], file["owner"]) == ("5.txt", None, "anna")
    stats = httpx.get(f"{daemon.url}/v1/stats", headers=mine).json()
    assert stats["files"] == 300
    require_agreement(daemon.store)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay(source / "a", b"1234")
    (source / "link").symlink_to("a")
    ended = call(store, "import", str(source), "--dry-run")
    assert ended.status == 0
    assert ended.output.splitlines()[-1] == "folder: 1 files, 4 bytes would be imported, 1 skipped"
    assert not store.exists()


def test_a_store_inside_the_source_is_not_imported_into_itself(tmp_path: Path) -> None:
    source = tmp_path / "source"
    lay(source / "a", b"a")
    for _ in range(2):
        summary, _ = import_(source / "store", source)
        assert report_of(summary)["store"]["reason"] == "the store itself"
    assert blobs(source / "store") == {sha256(b"a")}


@pytest.mark.parametrize("inner", ["", "ab", ".filestored"])
def test_the_store_and_what_lies_in_it_is_no_source(tmp_path: Path, inner: str) -> None:
    lay(tmp_path / "other" / "a", b"a")
    import_(tmp_path / "store", tmp_path / "other")
    (tmp_path / "store" / inner).mkdir(exist_ok=True)
    ended = call(tmp_path / "store", "import", str(tmp_path / "store" / inner), "--from", "folder")
    assert (ended.status, ended.output, ended.errors.count("\n")) == (1, "", 1)
    assert "lies in the store" in ended.errors


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("/does/not/exist",), 1, "there is no folder /does/not/exist"),
        (("s3://",), 2, "s3://bucket/prefix"),
        (("s3://bucket", "--from", "folder"), 2, "is a bucket"),
        ((".", "--from", "s3"), 2, "no s3://bucket/prefix"),
        ((".", "--owner", "no/name"), 2, "--owner no/name"),
        ((".", "--from", "nonsense"), 2, "nonsense"),
        ((), 2, "SOURCE"),
    ],
)
def test_a_wrong_call_is_one_line_and_makes_no_store(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    ended = call(tmp_path / "store", "import", *arguments)
    assert (ended.status, ended.output, ended.errors.count("\n")) == (status, "", 1)
    assert said in ended.errors
    assert not (tmp_path / "store").exists()


def test_a_report_of_another_import_is_refused(tmp_path: Path) -> None:
    lay(tmp_path / "one" / "a", b"a")
    lay(tmp_path / "two" / "b", b"b")
    report = tmp_path / "report.jsonl"
    import_(tmp_path / "store", tmp_path / "one", "--report", str(report))
    before = report.read_bytes()
    ended = call(tmp_path / "store", "import", str(tmp_path / "two"), "--report", str(report))
    assert (ended.status, ended.errors.count("\n")) == (1, 1)
    assert "is not a report of importing" in ended.errors
    assert report.read_bytes() == before


def test_a_folder_that_is_no_store_is_not_filled(tmp_path: Path) -> None:
    lay(tmp_path / "home" / "holiday.jpg", b"x")
    lay(tmp_path / "source" / "a", b"a")
    ended = call(tmp_path / "home", "import", str(tmp_path / "source"))
    assert (ended.status, ended.errors.count("\n")) == (1, 1)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["holiday.jpg"]


def test_times_before_1970_and_to_come_are_brought_within_bounds(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay(source / "old", b"old", -5_000_000)
    lay(source / "new", b"new", 99_999_999_999_000)
    import_(store, source)
    daemon = start_daemon("--anonymous", "full", store=store)
    files = httpx.get(f"{daemon.url}/v1/files").json()["files"]
    assert [file["name"] for file in files] == ["new", "old"]
    assert files[1]["created_at"] == "1970-01-01T00:00:00.000Z"
    assert rows(store)[sha256(b"new")].created_at < 99_999_999_999_000


def test_a_file_whose_time_was_set_back_is_read_again(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    lay(source / "a", b"before")
    import_(store, source)
    lay(source / "a", b"after!")
    summary, _ = import_(store, source)
    assert summary["new"] == 1
    assert report_of(summary)["a"]["hash"] == sha256(b"after!")


def test_a_file_larger_than_the_disk_keeps_no_other_from_coming(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    for number in range(600):
        lay(source / f"{number}", b"%d" % number)
    with (source / "sparse").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free + (1 << 40))
    summary, _ = import_(store, source, status=1)
    assert (summary["new"], summary["failed"]) == (600, 1)
    assert report_of(summary)["sparse"]["state"] == "failed"


def test_a_dry_run_calls_a_fault_a_fault(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "ab").mkdir(parents=True)
    lay(source / "ab" / "x", b"x")
    wrapper = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(source / "ab"), "-e", "inject=openat:error=EIO")
    ended = call(tmp_path / "store", "import", str(source), "--dry-run", "--from", "folder", wrapper=wrapper)
    assert ended.status == 1
    assert "ab: failed: the folder cannot be listed: Input/output error" in ended.output
