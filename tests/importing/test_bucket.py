"""Importing a bucket, from a real S3 server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_days.consistency import blobs, require_agreement, sha256
from tests.care import call
from tests.importing.reports import import_, report_of, rows, states
from tests.importing.swift import Swift


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """One server for all tests here."""
    running = Swift(tmp_path_factory.mktemp("swift"))
    try:
        yield running.start()
    finally:
        running.stop()


def test_names_types_and_times_are_kept(tmp_path: Path, swift: Swift) -> None:
    store = tmp_path / "store"
    began = time.time() * 1000
    swift.make_bucket("kept")
    bodies = {
        "a.txt": b"a", "deep/er/photo.jpg": b"jpeg", "deep/100% ~ü#?+&.txt": b"odd", "deep/big": os.urandom(3_000_000),
        "deep/empty": b"",
    }  # fmt: skip
    for key, body in bodies.items():
        swift.put("kept", key, body, "image/jpeg" if key.endswith("jpg") else "text/x-mine; charset=utf-8")
    flags = ("--endpoint", swift.endpoint, "--region", "us-east-1")
    summary, _ = import_(store, "s3://kept", *flags, env=swift.variables())
    assert (summary["kind"], summary["new"], summary["failed"]) == ("s3", 5, 0)
    assert states(summary) == dict.fromkeys(bodies, "new")
    files = rows(store)
    assert files[sha256(b"jpeg")][:3] == ("anonymous", "photo.jpg", "image/jpeg")
    assert files[sha256(b"odd")][:3] == ("anonymous", "100% ~ü#?+&.txt", "text/x-mine; charset=utf-8")
    # to the second, rounded either way
    assert all(began - 1000 <= file.created_at <= time.time() * 1000 for file in files.values())
    assert set(files) == {sha256(body) for body in bodies.values()}
    require_agreement(store)
    # again: nothing is downloaded, but what is another object by now
    swift.put("kept", "a.txt", b"b", "text/plain")
    summary, _ = import_(store, "s3://kept/", *flags, env=swift.variables())
    assert (summary["new"], summary["unchanged"], summary["read_bytes"]) == (1, 4, 1)


def test_a_prefix_is_a_folder_of_the_bucket(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("prefixed")
    for key in ("in/a", "in/deep/b", "inside", "out/c"):
        swift.put("prefixed", key, key.encode())
    flags = ("--endpoint", swift.endpoint)
    summary, _ = import_(tmp_path / "store", "s3://prefixed/in", *flags, env=swift.variables())
    assert states(summary) == {"in/a": "new", "in/deep/b": "new"}


def test_an_etag_that_is_no_md5_is_no_proof_and_no_fault(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("parts")
    parts = [os.urandom(5 << 20), os.urandom(1 << 20)]
    swift.put_in_parts("parts", "big", parts)
    flags = ("--endpoint", swift.endpoint)
    summary, _ = import_(tmp_path / "store", "s3://parts", *flags, env=swift.variables())
    line = report_of(summary)["big"]
    assert (line["state"], line["old_hash"], line["hash"]) == ("new", None, sha256(b"".join(parts)))


def test_the_mark_of_a_folder_is_no_file(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("marked")
    for key in ("folder/", "folder/a", "both", "both/", "both/b"):
        swift.put("marked", key, b"" if key.endswith("/") else key.encode())
    for new, unchanged in ((3, 0), (0, 3)):
        summary, _ = import_(tmp_path / "store", "s3://marked", "--endpoint", swift.endpoint, env=swift.variables())
        assert (summary["new"], summary["unchanged"], summary["skipped"]) == (new, unchanged, 2)
        assert states(summary) == {
            "folder/": "skipped", "folder/a": "new", "both": "new", "both/": "skipped", "both/b": "new",
        }  # fmt: skip


def test_a_key_that_cannot_be_read_is_one_line(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("unreadable")
    swift.put("unreadable", "a//b", b"ab")
    ended = call(tmp_path / "store", "import", "s3://unreadable", "--endpoint", swift.endpoint, env=swift.variables())
    assert (ended.status, ended.errors.count("\n")) == (1, 1)
    assert "keys with an empty part" in ended.errors


def test_an_object_that_changes_after_it_was_listed_is_told(swift: Swift) -> None:
    swift.make_bucket("changing")
    swift.put("changing", "a", b"before")
    script = (
        "import os, sys\nfrom filestored.importing.bucket import BucketSource\n"
        "from filestored.importing.source import SourceFault\n"
        "source = BucketSource('s3://changing', endpoint=sys.argv[1], region=None)\n"
        "(item,) = source\nprint('listed', flush=True)\ninput()\n"
        "try:\n    source.open(item)\nexcept SourceFault as fault:\n    print(fault, flush=True)\nos._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, swift.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | swift.variables(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "listed\n"
        swift.put("changing", "a", b"after!")
        said, _ = process.communicate("go on\n", timeout=60)
    assert said == "it has changed since it was listed; import again\n"


def test_a_damaged_object_is_named_and_not_imported(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("damaged")
    before = set(swift.blob_files())
    swift.put("damaged", "rotten", b"as it was uploaded")
    (blob,) = set(swift.blob_files()) - before
    swift.put("damaged", "good", b"good")
    # the disk fails, and the server does not look
    with blob.open("r+b") as file:
        file.write(b"AS")
    flags = ("--endpoint", swift.endpoint)
    summary, _ = import_(tmp_path / "store", "s3://damaged", *flags, env=swift.variables(), status=1)
    line = report_of(summary)["rotten"]
    assert line["state"] == "failed"
    assert "which is not what its ETag says" in line["reason"]
    assert blobs(tmp_path / "store") == {sha256(b"good")}


@pytest.mark.parametrize(
    ("bucket", "variables", "said"),
    [
        ("nowhere", {}, "bucket"),
        ("kept", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "signature"),
    ],
)
def test_what_the_server_refuses_is_one_line(
    tmp_path: Path, swift: Swift, bucket: str, variables: dict[str, str], said: str
) -> None:
    env = swift.variables() | variables
    ended = call(tmp_path / "store", "import", f"s3://{bucket}", "--endpoint", swift.endpoint, env=env)
    assert (ended.status, ended.errors.count("\n")) == (1, 1), ended
    assert said in ended.errors
    assert "cannot be listed" in ended.errors
    assert "<" not in ended.errors


def test_a_dry_run_downloads_nothing(tmp_path: Path, swift: Swift) -> None:
    swift.make_bucket("dry")
    swift.put("dry", "a", b"1234")
    ended = call(
        tmp_path / "store", "import", "s3://dry", "--endpoint", swift.endpoint, "--dry-run", env=swift.variables()
    )
    assert (ended.status, ended.output) == (0, "s3: 1 files, 4 bytes would be imported, 0 skipped\n")
    assert not (tmp_path / "store").exists()
