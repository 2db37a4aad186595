"""The fsspec file system against a real daemon: what it reads, writes, lists, and how it fails."""

import hashlib
import io
import os
import pickle
import random
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import httpx
import pytest
from fsspec.callbacks import Callback

from filestored import Client
from filestored.client.filesystem import FilestoredFileSystem
from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.tokens import make_token

CONTENT = random.Random(5).randbytes(3 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64


@pytest.fixture(autouse=True)
def _no_instances_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep no instance from test to test; nothing of the user's own configuration counts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("FILESTORED_URL", "FILESTORED_TOKEN", "FILESTORED_SERVER"):
        monkeypatch.delenv(name, raising=False)
    yield
    FilestoredFileSystem.clear_instance_cache()


def address(daemon: Daemon, path: str) -> str:
    return f"filestored://{daemon.address[0]}:{daemon.address[1]}/{path}"


def store(daemon: Daemon, content: bytes, name: str | None = None) -> str:
    with Client(daemon.url) as client:
        return client.put(content, name=name).hash


@pytest.fixture
def own(start_daemon: StartDaemon) -> Daemon:
    """A daemon with one file and no other."""
    daemon = start_daemon()
    assert store(daemon, CONTENT, "content.bin") == DIGEST
    return daemon


@pytest.fixture
def files(daemon: Daemon) -> FilestoredFileSystem:
    assert store(daemon, CONTENT, "content.bin") == DIGEST
    return FilestoredFileSystem(server=daemon.url)


def test_it_is_found_by_its_protocol_and_by_an_address(daemon: Daemon) -> None:
    assert fsspec.get_filesystem_class("filestored") is FilestoredFileSystem
    digest = store(daemon, b"Hello")
    with fsspec.open(address(daemon, digest)) as file:
        assert file.read() == b"Hello"
    with fsspec.open(address(daemon, f"{digest.upper()}/name.txt"), "rt") as text:
        assert text.read() == "Hello"


def test_a_file_is_read_at_any_place(files: FilestoredFileSystem) -> None:
    chance = random.Random(7)
    with files.open(DIGEST, block_size=64 << 10) as file, io.BytesIO(CONTENT) as expected:
        assert file.size == len(CONTENT)
        for _ in range(40):
            place, length = chance.randrange(len(CONTENT) + 10), chance.choice([0, 1, 100, 70_000, 300_000])
            file.seek(place)
            expected.seek(place)
            assert file.read(length) == expected.read(length)
        file.seek(-5, os.SEEK_END)
        assert file.read() == CONTENT[-5:]


def test_only_what_is_read_is_sent(own: Daemon) -> None:
    files = FilestoredFileSystem(server=own.url)
    with files.open(DIGEST, block_size=1 << 10) as file:
        file.seek(2 << 20)
        assert file.read(10) == CONTENT[2 << 20 : (2 << 20) + 10]
    assert wait_until(lambda: "status=206" in own.read_log())
    (line,) = (line for line in own.read_log().splitlines() if "status=206" in line)
    assert "bytes=1034" in line


def test_lines_and_text_are_read(files: FilestoredFileSystem, daemon: Daemon) -> None:
    text = "".join(f"строка {number}\n" for number in range(5000))
    digest = store(daemon, text.encode())
    with files.open(digest, "rt", encoding="utf-8", block_size=1 << 10) as lines:
        assert "".join(lines) == text


@pytest.mark.parametrize(
    ("start", "end"),
    [(None, None), (0, 10), (5, None), (None, 7), (-4, None), (None, -4), (-9, -3), (10, 10), (12, 3), (0, 10**9)],
)
def test_ranges_are_those_of_a_slice(files: FilestoredFileSystem, start: int | None, end: int | None) -> None:
    assert files.cat_file(DIGEST, start, end) == CONTENT[start:end]


def test_a_range_behind_the_end_is_empty(files: FilestoredFileSystem) -> None:
    assert files.cat_file(DIGEST, len(CONTENT) + 5, len(CONTENT) + 9) == b""


def test_an_empty_file_is_read(files: FilestoredFileSystem, daemon: Daemon) -> None:
    digest = store(daemon, b"", "empty")
    assert files.cat(digest) == b""
    with files.open(digest) as file:
        assert file.read() == b""
    assert files.size(digest) == 0


def test_many_ranges_come_in_their_order_and_errors_in_their_places(files: FilestoredFileSystem) -> None:
    starts = [n * 1000 for n in range(50)]
    ends = [start + n for n, start in enumerate(starts)]
    got = files.cat_ranges([DIGEST] * 50, starts, ends)
    assert got == [CONTENT[start:end] for start, end in zip(starts, ends, strict=True)]
    mixed = files.cat_ranges([DIGEST, OTHER], 0, 3)
    assert mixed[0] == CONTENT[:3]
    assert isinstance(mixed[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        files.cat_ranges([DIGEST, OTHER], 0, 3, on_error="raise")
    with pytest.raises(ValueError, match="shorter"):
        files.cat_ranges([DIGEST, DIGEST], [0], [3, 4])


def test_a_file_is_described(files: FilestoredFileSystem) -> None:
    said = files.info(f"{DIGEST}/any.name")
    assert said == {
        "name": f"{DIGEST}/any.name",
        "size": len(CONTENT),
        "type": "file",
        "hash": DIGEST,
        "filename": "content.bin",
        "mimetype": "application/octet-stream",
    }
    assert files.isfile(DIGEST)
    assert not files.isdir(DIGEST)
    assert files.ukey(DIGEST) == DIGEST
    assert files.checksum(DIGEST) == int(DIGEST, 16)
    assert abs(files.created(DIGEST) - datetime.now(UTC)) < timedelta(minutes=10)
    assert files.modified(DIGEST) == files.created(DIGEST)


@pytest.mark.parametrize("path", [OTHER, "xyz", f"{OTHER}/name", "../etc/passwd", "data/table.csv"])
def test_what_is_not_there_is_not_found(files: FilestoredFileSystem, path: str) -> None:
    assert not files.exists(path)
    for read in (files.info, files.cat_file, files.open, files.created, files.rm_file):
        with pytest.raises(FileNotFoundError) as told:
            read(path)
        assert told.value.filename == path.strip("/")


def test_the_root_lists_the_callers_files(own: Daemon) -> None:
    small = store(own, b"small", "small.txt")
    files = FilestoredFileSystem(server=own.url)
    assert files.isdir("")
    assert files.ls("", detail=False) == [small, DIGEST]
    entry = files.ls("/")[0]
    assert (entry["size"], entry["filename"], entry["type"], entry["expires"]) == (5, "small.txt", "file", None)
    assert files.ls(small, detail=False) == [small]
    assert sorted(files.find("")) == sorted([small, DIGEST])
    assert files.glob(f"{DIGEST[:5]}*") == [DIGEST]
    assert files.du("") == len(CONTENT) + 5
    assert [file.full_name for file in fsspec.open_files(address(own, "*"))] == sorted(
        address(own, digest) for digest in (small, DIGEST)
    )


def test_a_file_is_downloaded_and_its_callback_told(files: FilestoredFileSystem, tmp_path: Path) -> None:
    callback = Callback()
    files.get_file(DIGEST, tmp_path / "new" / "copy.bin", callback=callback)
    assert (tmp_path / "new" / "copy.bin").read_bytes() == CONTENT
    assert (callback.size, callback.value) == (len(CONTENT), len(CONTENT))
    files.get(f"{DIGEST}/content.bin", f"{tmp_path}/folder/")
    assert (tmp_path / "folder" / "content.bin").read_bytes() == CONTENT
    into = io.BytesIO()
    files.get_file(DIGEST, into)
    assert into.getvalue() == CONTENT


def test_damaged_bytes_are_not_handed_over(own: Daemon, tmp_path: Path) -> None:
    blob = own.blob(DIGEST)
    blob.chmod(0o644)
    blob.write_bytes(b"x" + CONTENT[1:])
    files = FilestoredFileSystem(server=own.url)
    for read in (
        files.cat_file,
        lambda path: files.open(path).read(),
        lambda path: files.get_file(path, tmp_path / "copy"),
    ):
        with pytest.raises(OSError, match=DIGEST):
            read(DIGEST)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("copy")] == []


def test_bytes_are_stored_under_their_hash_and_no_other(files: FilestoredFileSystem, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=digest):
        files.pipe_file(OTHER, content)
    assert not files.exists(digest)
    files.pipe_file(f"{digest}/data/own.bin", content)
    assert files.cat(digest) == content
    assert files.info(digest)["filename"] == "own.bin"
    with pytest.raises(FileExistsError):
        files.pipe_file(digest, content, mode="create")
    (tmp_path / "local.bin").write_bytes(content + b"!")
    with pytest.raises(ValueError, match="hash"):
        files.put_file(tmp_path / "local.bin", digest)
    callback = Callback()
    files.put_file(tmp_path / "local.bin", hashlib.sha256(content + b"!").hexdigest(), callback=callback)
    assert callback.value == callback.size == len(content) + 1


def test_a_file_is_written_piece_by_piece(files: FilestoredFileSystem) -> None:
    content = os.urandom(300_000)
    digest = hashlib.sha256(content).hexdigest()
    with files.open(f"{digest}/written.bin", "wb", block_size=10_000) as file:
        for begin in range(0, len(content), 7000):
            file.write(content[begin : begin + 7000])
        assert not files.exists(digest)
    assert files.cat(digest) == content
    with pytest.raises(FileExistsError):
        files.open(digest, "xb")
    with pytest.raises(ValueError, match="appended"):
        files.open(digest, "ab")


def test_a_write_that_fails_stores_nothing(files: FilestoredFileSystem) -> None:
    content = os.urandom(50_000)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=hashlib.sha256(content[:30_000]).hexdigest()):
        with files.open(digest, "wb", block_size=10_000) as file:
            file.write(content[:30_000])
    assert not files.exists(digest)
    with files.transaction:
        file = files.open(digest, "wb")
        file.write(content)
        file.close()
        assert not files.exists(digest)
    assert files.exists(digest)


def test_files_are_deleted_but_not_all_at_once(files: FilestoredFileSystem, daemon: Daemon) -> None:
    digest = store(daemon, os.urandom(20))
    files.rm(digest)
    assert not files.exists(digest)
    for root in ("", "/", address(daemon, "")):
        with pytest.raises(PermissionError, match="by their hashes"):
            files.rm(root, recursive=True)
    assert files.exists(DIGEST)


def test_an_address_is_signed(files: FilestoredFileSystem, daemon: Daemon) -> None:
    assert httpx.get(files.sign(DIGEST, expiration=60)).content == CONTENT


def test_addresses_and_paths_turn_into_each_other(daemon: Daemon) -> None:
    host = f"{daemon.address[0]}:{daemon.address[1]}"
    files, path = fsspec.url_to_fs(address(daemon, f"{DIGEST.upper()}/table.csv"))
    assert path == f"{DIGEST}/table.csv"
    assert files.unstrip_protocol(path) == address(daemon, path)
    assert fsspec.url_to_fs(f"filestored://{DIGEST}", server=daemon.url)[1] == DIGEST
    assert FilestoredFileSystem._strip_protocol(f"filestored://{host}/") == ""
    assert FilestoredFileSystem._strip_protocol([f"/{DIGEST}/", f"{DIGEST}/a"]) == [DIGEST, f"{DIGEST}/a"]
    assert files.fsid == FilestoredFileSystem(server=daemon.url).fsid
    assert FilestoredFileSystem(server=daemon.url).unstrip_protocol(DIGEST) == address(daemon, DIGEST)


def test_what_may_not_be_read_is_a_permission_error(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "store")
    reader = make_token(daemon.store, "reader", "read")
    writer = make_token(daemon.store, "writer", "read,write")
    with Client(daemon.url, writer) as client:
        digest = client.put(b"secret", name="s").hash
    for token in (None, "wrong"):
        files = FilestoredFileSystem(server=daemon.url, token=token)
        for ask in (files.info, files.exists, files.cat_file, files.open):
            with pytest.raises(PermissionError):
                ask(digest)
    assert fsspec.open(address(daemon, digest), token=reader).open().read() == b"secret"
    with pytest.raises(PermissionError):
        FilestoredFileSystem(server=daemon.url, token=reader).pipe_file(hashlib.sha256(b"x").hexdigest(), b"x")
    with pytest.raises(FileNotFoundError):
        FilestoredFileSystem(server=daemon.url, token=reader).created(digest)


def test_a_token_of_the_environment_counts_also_when_it_is_set_later(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "store")
    token = make_token(daemon.store, "all", "admin")
    with Client(daemon.url, token) as client:
        digest = client.put(b"secret", name="s").hash
    with pytest.raises(PermissionError):
        fsspec.open(address(daemon, digest)).open()
    monkeypatch.setenv("FILESTORED_TOKEN", token)
    with pytest.raises(PermissionError):
        # no variable names this server
        fsspec.open(address(daemon, digest)).open()
    monkeypatch.setenv("FILESTORED_URL", daemon.url)
    with fsspec.open(address(daemon, digest)) as file:
        assert file.read() == b"secret"
    with fsspec.open(f"filestored:///{digest}") as file:
        assert file.read() == b"secret"


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        files = FilestoredFileSystem(host=f"127.0.0.1:{probe.getsockname()[1]}")
        for ask in (files.info, files.exists, files.cat_file, files.open):
            with pytest.raises(ConnectionError):
                ask(DIGEST)


def test_reading_goes_on_after_a_cut_and_gives_up_in_the_end(files: FilestoredFileSystem, proxy: Proxy) -> None:
    behind = FilestoredFileSystem(server=proxy.url, client_options={"retry_for": 1.0})
    assert files.exists(DIGEST)
    with behind.open(DIGEST, block_size=100_000) as file:
        assert file.read(10) == CONTENT[:10]
        proxy.cut()
        file.seek(1_000_000)
        assert file.read(10) == CONTENT[1_000_000:1_000_010]
        proxy.vanish()
        file.seek(2_000_000)
        with pytest.raises(ConnectionError):
            file.read(10)
        proxy.come_back()
        assert file.read(10) == CONTENT[2_000_000:2_000_010]


def test_a_certificate_is_checked_unless_told_otherwise(start_daemon: StartDaemon, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    daemon = start_daemon("--tls-cert", str(certificate), "--tls-key", str(key))
    with Client(daemon.url, verify=str(certificate)) as client:
        digest = client.put(b"Hello", name="hello.txt").hash
    with pytest.raises(ConnectionError, match="certificate"):
        fsspec.open(address(daemon, digest), secure=True).open()
    for verify in (str(certificate), False):
        with fsspec.open(address(daemon, digest), secure=True, verify=verify) as file:
            assert file.read() == b"Hello"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine that nobody else vouches for; return it and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            require_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return certificate, key


def test_local_files_that_are_not_there_are_told_as_such(files: FilestoredFileSystem, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        files.put_file(tmp_path / "no-such-file", DIGEST)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.get_file(DIGEST, tmp_path / "file" / "below" / "it")


def test_it_can_be_pickled_open_files_too(files: FilestoredFileSystem) -> None:
    again = pickle.loads(pickle.dumps(files))
    assert again == files
    assert again.cat(DIGEST) == CONTENT
    with files.open(DIGEST) as file:
        file.seek(1000)
        copy = pickle.loads(pickle.dumps(file))
        assert copy.read(10) == file.read(10) == CONTENT[1000:1010]
        copy.close()


def test_it_works_after_a_fork(files: FilestoredFileSystem) -> None:
    assert files.cat_file(DIGEST, 0, 5) == CONTENT[:5]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # nothing of the test's must be run here
        try:
            os.write(writer, files.cat_file(DIGEST, 5, 10))
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == CONTENT[5:10]
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert files.cat_file(DIGEST, 10, 15) == CONTENT[10:15]


def test_file_systems_of_one_server_and_token_share_their_connections(files: FilestoredFileSystem) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        there = elsewhere.submit(lambda: FilestoredFileSystem(server=files.client.url)).result()
    assert there is not files
    assert there.client is files.client
    assert FilestoredFileSystem(server=files.client.url, token="other").client is not files.client
    assert FilestoredFileSystem(server=files.client.url, client_options={"timeout": 5}).client is not files.client


def test_threads_share_it(files: FilestoredFileSystem) -> None:
    begun = threading.Barrier(8)

    def read(number: int) -> bool:
        begun.wait(20)
        with files.open(DIGEST, block_size=100_000) as file:
            file.seek(number * 1000)
            return bool(file.read(200_000) == CONTENT[number * 1000 : number * 1000 + 200_000])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


# the library's block cache leaves closing its file to the interpreter
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("protocol", ["simplecache", "filecache", "blockcache"])
def test_fsspecs_caches_work(own: Daemon, tmp_path: Path, protocol: str) -> None:
    options = {protocol: {"cache_storage": str(tmp_path / "cache")}}
    for _ in range(2):
        with fsspec.open(f"{protocol}::{address(own, DIGEST)}", **options) as file:
            file.seek(1000)
            assert file.read(10) == CONTENT[1000:1010]
    assert any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_what_is_cached_is_read_without_the_server(own: Daemon, tmp_path: Path) -> None:
    options = {"filecache": {"cache_storage": str(tmp_path / "cache"), "check_files": True}}
    for _ in range(2):
        with fsspec.open(f"filecache::{address(own, DIGEST)}", **options) as file:
            assert file.read() == CONTENT
        # from the second time on there is nobody to ask
        own.kill()
        FilestoredFileSystem.clear_instance_cache()


def test_members_of_an_archive_are_read(daemon: Daemon) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("folder/a.txt", "inside " * 1000)
        packed.writestr("b.bin", CONTENT)
    digest = store(daemon, archive.getvalue(), "archive.zip")
    with fsspec.open(f"zip://folder/a.txt::{address(daemon, digest)}", "rt") as text:
        assert text.read() == "inside " * 1000
