"""Adopting a folder as a store: what becomes one, what is refused, and that nothing of a stranger's is touched."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import LAYOUT_VERSION, StoreFolder
from filestored.digest import Algorithm, parse_digest
from filestored.errors import StartError


def mark(store: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((store / ".filestored" / "format.json").read_text())
    return loaded


def test_a_missing_folder_is_made_and_marked(tmp_path: Path) -> None:
    folder = StoreFolder.adopt(tmp_path / "a" / "b" / "store", Algorithm.SHA256)
    assert mark(folder.path) == {"layout": LAYOUT_VERSION, "algorithms": ["sha256"]}
    assert (folder.private / "tmp").is_dir()
    assert folder.private.stat().st_mode & 0o777 == 0o700


def test_algorithms_in_use_are_all_recorded(tmp_path: Path) -> None:
    for algorithm in (Algorithm.SHA256, Algorithm.MD5, Algorithm.SHA256, Algorithm.BLAKE3):
        StoreFolder.adopt(tmp_path, algorithm)
    assert mark(tmp_path)["algorithms"] == ["sha256", "md5", "blake3"]


def test_a_store_of_the_first_program_is_adopted_with_its_algorithm(tmp_path: Path) -> None:
    digest = hashlib.md5(b"x").hexdigest()
    (tmp_path / digest[:2]).mkdir()
    (tmp_path / digest[:2] / digest).write_bytes(b"x")
    (tmp_path / "ff").mkdir()
    StoreFolder.adopt(tmp_path, Algorithm.SHA256)
    assert mark(tmp_path)["algorithms"] == ["md5", "sha256"]


@pytest.mark.parametrize(
    "name",
    ["letter.txt", "ab/letter.txt", "ab/cd" + "0" * 62, "AB/x", "abc/x", "ab/" + "ab" + "g" * 62, "ab/ab" + "0" * 61],
)
def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StartError, match="neither empty nor a store"):
        StoreFolder.adopt(tmp_path, Algorithm.SHA256)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_mount_point_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    StoreFolder.adopt(tmp_path, Algorithm.SHA256)


def test_a_file_a_link_for_a_mark_and_a_newer_layout_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".filestored").symlink_to(tmp_path)
    newer = StoreFolder.adopt(tmp_path / "newer", Algorithm.SHA256)
    (newer.private / "format.json").write_text(json.dumps({"layout": LAYOUT_VERSION + 1, "algorithms": []}))
    damaged = StoreFolder.adopt(tmp_path / "damaged", Algorithm.SHA256)
    (damaged.private / "format.json").write_text("{")
    for name, reason in [("file", "folder"), ("linked", "link"), ("newer", "newer version"), ("damaged", "damaged")]:
        with pytest.raises(StartError, match=reason):
            StoreFolder.adopt(tmp_path / name, Algorithm.SHA256)


def test_a_folder_of_blobs_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    blobs = DiskBlobStore(StoreFolder.adopt(tmp_path / "store", Algorithm.MD5))
    digest, other = parse_digest("ab" + "0" * 30), parse_digest("ab" + "1" * 30)
    assert digest is not None
    assert other is not None
    shard = tmp_path / "store" / "ab"
    shard.mkdir()
    (shard / digest).write_bytes(b"old")
    handle = blobs.open(digest)
    assert handle is not None
    shard.rename(tmp_path / "elsewhere")
    shard.mkdir()
    assert blobs.stat(other) is None, "a look in vain finds that the folder is another"
    assert blobs.stat(digest) is None
    (shard / digest).write_bytes(b"restored")
    found = blobs.stat(digest)
    assert found is not None
    assert found.size == 8
    assert handle.size == 3
    blobs.close()


def test_a_replaced_folder_is_noticed_without_a_look_in_vain(tmp_path: Path) -> None:
    blobs = DiskBlobStore(StoreFolder.adopt(tmp_path / "store", Algorithm.MD5))
    digest = parse_digest("ab" + "0" * 30)
    assert digest is not None
    shard = tmp_path / "store" / "ab"
    shard.mkdir()
    (shard / digest).write_bytes(b"old")
    assert blobs.stat(digest) is not None
    shard.rename(tmp_path / "elsewhere")
    shard.mkdir()
    deadline = time.monotonic() + 5
    while blobs.stat(digest) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    blobs.close()


@pytest.mark.parametrize("name", ["catalogue.sqlite3", "tmp", "uploads", "quarantine", "log", "log/filestored.log"])
def test_what_the_program_writes_does_not_lead_out_of_the_store(tmp_path: Path, name: str) -> None:
    private = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256).private
    outside = tmp_path / "outside"
    if name in ("catalogue.sqlite3", "log/filestored.log"):
        outside.write_bytes(b"")
    else:
        (private / name).rmdir()
        outside.mkdir()
    (private / name).symlink_to(outside)
    with pytest.raises(StartError, match="symbolic link"):
        StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    assert outside.stat().st_size == 0 or not list(outside.iterdir())
