"""Importing a store: of simple_filestorage_httpd_api, whose files are named by MD5, or of this program."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.bad_days.consistency import blobs, require_agreement, sha256
from tests.care import call, lay, rot
from tests.importing.reports import import_, report_of, rows


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def lay_original(root: Path, bodies: list[bytes]) -> None:
    """Make a store as simple_filestorage_httpd_api leaves it."""
    for body in bodies:
        blob = lay(root, md5(body), body)
        os.utime(blob, ns=(0, 1_234_567_890_123_000_000))


def test_the_originals_files_get_new_hashes_and_the_report_has_both(tmp_path: Path) -> None:
    bodies = [b"%d" % number * 1000 for number in range(50)] + [b"", os.urandom(300_000)]
    lay_original(tmp_path / "old", bodies)
    summary, _ = import_(tmp_path / "store", tmp_path / "old")
    assert (summary["kind"], summary["new"], summary["failed"], summary["skipped"]) == ("store", 52, 0, 0)
    assert {line["old_hash"]: line["hash"] for line in report_of(summary).values()} == {
        md5(body): sha256(body) for body in bodies
    }
    assert {row.created_at for row in rows(tmp_path / "store").values()} == {1_234_567_890_123}
    require_agreement(tmp_path / "store")
    # the source is as it was: not even marked
    assert not (tmp_path / "old" / ".filestored").exists()


def test_a_damaged_blob_is_named_and_not_imported(tmp_path: Path) -> None:
    bodies = [b"good", b"rotten body", b"short"]
    lay_original(tmp_path / "old", bodies)
    rotten = rot(tmp_path / "old" / md5(b"rotten body")[:2] / md5(b"rotten body"))
    rot(tmp_path / "old" / md5(b"short")[:2] / md5(b"short"), b"sho")
    summary, _ = import_(tmp_path / "store", tmp_path / "old", status=1)
    assert (summary["new"], summary["failed"]) == (1, 2)
    line = report_of(summary)[f"{md5(b'rotten body')[:2]}/{md5(b'rotten body')}"]
    assert (line["state"], line["hash"], line["old_hash"]) == ("failed", None, md5(b"rotten body"))
    assert f"damaged: its bytes have the hash {md5(rotten)}" in line["reason"]
    assert blobs(tmp_path / "store") == {sha256(b"good")}
    # a source that is mended is imported by the next run
    lay(tmp_path / "old", md5(b"short"), b"short").touch()
    lay(tmp_path / "old", md5(b"rotten body"), b"rotten body").touch()
    summary, _ = import_(tmp_path / "store", tmp_path / "old")
    assert (summary["new"], summary["unchanged"]) == (2, 1)


def test_a_store_with_several_algorithms_is_proved_by_each(tmp_path: Path) -> None:
    old = tmp_path / "old"
    names = [hashlib.new(name, b"body").hexdigest() for name in ("md5", "sha1", "sha256", "sha512")]
    for name in names:
        lay(old, name, b"body")
    summary, _ = import_(tmp_path / "store", old)
    assert (summary["new"], summary["known"]) == (1, 3)
    assert set(rows(tmp_path / "store")) == {sha256(b"body")}


def test_a_store_of_this_program_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_bytes(b"a")
    import_(tmp_path / "first", tmp_path / "files")
    summary, ended = import_(tmp_path / "second", tmp_path / "first")
    assert (summary["kind"], summary["new"], summary["skipped"]) == ("store", 1, 0)
    assert "copy-store" in ended.errors
    assert set(rows(tmp_path / "second")) == {sha256(b"a")}


def test_what_is_no_blob_is_counted(tmp_path: Path) -> None:
    lay_original(tmp_path / "old", [b"a", b"b"])
    (tmp_path / "old" / "readme.txt").write_bytes(b"no blob")
    summary, ended = import_(tmp_path / "store", tmp_path / "old", "--from", "store")
    assert (summary["new"], summary["skipped"]) == (2, 1)
    assert "names in the store that are no blobs: 1" in ended.output


@pytest.mark.parametrize("algorithm", ["md5", "sha512"])
def test_the_store_names_files_as_it_does_otherwise(tmp_path: Path, algorithm: str) -> None:
    lay_original(tmp_path / "old", [b"a"])
    import_(tmp_path / "store", tmp_path / "old", env={"FILESTORED_HASH": algorithm})
    digest = hashlib.new(algorithm, b"a").hexdigest()
    assert set(rows(tmp_path / "store")) == {digest}
    # and a store keeps to what it was made with
    assert call(tmp_path / "store", "import", str(tmp_path / "old")).status == 0
    assert blobs(tmp_path / "store") == {digest}
