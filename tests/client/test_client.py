"""The library on a good network: every operation, and every way to say what is stored and where it goes."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from filestored import Client
from filestored.client import (
    ClientError,
    Damaged,
    Item,
    LocalFault,
    NotAllowed,
    NotStored,
    Refused,
    SourceChanged,
    TooMuch,
    Unreachable,
)
from tests.client.conftest import Connect
from tests.conftest import StartDaemon
from tests.tokens import make_token

MIB = 1 << 20
LARGE = 17 * MIB
"""More than is sent in one request."""

SIZES = [0, 1, MIB, 3 * MIB, 16 * MIB, 16 * MIB + 1, LARGE]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_file(folder: Path, size: int, name: str = "made.bin") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


# uploads


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_comes_back_as_it_was(files: Client, tmp_path: Path, size: int) -> None:
    path = make_file(tmp_path, size)
    file = files.put(path)
    assert (file.hash, file.size, file.name) == (sha256(path.read_bytes()), size, "made.bin")
    assert files.get(file.hash) == path.read_bytes()
    received = files.get(file.hash, tmp_path / "copy")
    assert (received.hash, received.size, received.path) == (file.hash, size, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", SIZES)
def test_bytes_and_streams_of_any_size(files: Client, size: int) -> None:
    content = os.urandom(size)
    assert files.put(content, name="bytes").hash == sha256(content)
    again = os.urandom(size)
    assert files.put(io.BytesIO(again), name="stream").hash == sha256(again)
    pieces = os.urandom(size)
    assert files.put(iter([pieces[: size // 3], b"", pieces[size // 3 :]])).hash == sha256(pieces)


def test_what_is_said_of_a_file_is_kept(files: Client) -> None:
    for content in (b"small" + os.urandom(8), os.urandom(LARGE)):
        file = files.put(content, name='Отчёт "1"\n.txt', type="text/x-report", expires_in="2h")
        told = files.info(file.hash)
        assert (told.name, told.type, told.owner) == ('Отчёт "1".txt', "text/x-report", "anonymous")
        assert told.expires_at is not None
        assert timedelta(minutes=119) < told.expires_at - datetime.now(UTC) <= timedelta(hours=2)
        assert told == file
        assert files.head(file.hash).name == 'Отчёт "1".txt'


def test_a_type_is_guessed_from_the_name(files: Client, tmp_path: Path) -> None:
    path = make_file(tmp_path, 10, "picture.png")
    assert files.put(path).type == "image/png"
    assert files.put(b"", name="empty.html").type == "text/html"


@pytest.mark.parametrize("size", [3 * MIB, LARGE])
def test_what_is_kept_already_is_not_sent_again(files: Client, tmp_path: Path, size: int) -> None:
    path = make_file(tmp_path, size)
    assert files.put(path).is_new
    seen: list[int] = []
    again = files.put(path, progress=lambda done, _: seen.append(done))
    assert not again.is_new
    assert seen[-1] == size
    renamed = files.put(path, name="other", type="text/plain")
    assert (renamed.name, renamed.type, renamed.is_new) == ("other", "text/plain", False)
    assert files.put(path, name="other", skip=False).hash == again.hash


def test_the_longer_life_wins_also_where_nothing_is_sent(files: Client) -> None:
    content = os.urandom(3 * MIB)
    files.put(content, expires_in="1h")
    longer = files.put(content, expires_in="3h")
    assert not longer.is_new
    assert longer.expires_at is not None
    assert longer.expires_at - datetime.now(UTC) > timedelta(hours=2)
    assert files.put(content, expires_in="1h").expires_at == longer.expires_at
    assert files.put(content).expires_at is None


@pytest.mark.parametrize("size", [10, 3 * MIB, LARGE])
def test_another_hash_than_expected_stores_nothing(files: Client, tmp_path: Path, size: int) -> None:
    path = make_file(tmp_path, size)
    right, wrong = sha256(path.read_bytes()), sha256(b"something else")
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(Damaged, match=wrong):
            files.put(source, hash=wrong)
    with pytest.raises(NotStored):
        files.info(right)
    assert files.put(path, hash=right.upper()).hash == right
    assert files.put(path, hash=hashlib.md5(path.read_bytes()).hexdigest()).hash == right


def test_small_files_go_together(files: Client) -> None:
    items = [Item(b"%d" % number + os.urandom(8), f'file {number} «»".txt') for number in range(50)]
    items += [Item(b""), Item(items[0].content, "same"), Item(b"typed" + os.urandom(8), None, "image/png")]
    stored = files.put_together(items, expires_in="1d")
    assert [file.hash for file in stored] == [sha256(item.content) for item in items]
    assert stored[3].name == "file 3 «».txt".replace("«»", '«»"')
    assert stored[-1].type == "image/png"
    assert all(file.expires_at for file in stored if file.size)
    assert files.put_together([]) == []
    [alone] = files.put_together([Item(b"alone" + os.urandom(8), "a.txt")])
    assert alone.name == "a.txt"


def test_pipes_and_devices_are_streams(files: Client, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = os.urandom(10 * MIB)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content))
    writer.start()
    assert files.put(pipe).hash == sha256(content)
    writer.join()
    assert files.put("/dev/null").size == 0
    # its size is said to be 0
    assert files.put("/proc/self/status").size > 100


def test_what_cannot_be_read_is_told(files: Client, tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="nothing-here: No such file"):
        files.put(tmp_path / "nothing-here")
    with pytest.raises(ClientError, match="it is a folder"):
        files.put(tmp_path)
    with pytest.raises(ClientError, match="binary mode"):
        files.put(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        files.put(17)  # type: ignore[arg-type]
    with pytest.raises(ClientError, match="expires_in"):
        files.put(b"any", expires_in="soon")


@pytest.mark.parametrize("size", [MIB + 1, LARGE, 64 * MIB])
def test_a_file_that_changes_while_it_is_read_is_not_stored(
    connect: Connect, start_daemon: StartDaemon, tmp_path: Path, size: int
) -> None:
    files = connect(start_daemon().url)
    path = make_file(tmp_path, size)
    before = path.stat()

    def grow(*_: object) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    if size > 16 * MIB:
        with pytest.raises(SourceChanged, match="changed while it was read"):
            files.put(path, progress=grow)
        assert files.stats().files == 0
        assert list((tmp_path / "state").iterdir()) == []
        os.truncate(path, size - 1)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.put(path).size == path.stat().st_size


def test_a_stream_that_fails_leaves_no_upload(connect: Connect, start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    files = connect(daemon.url)

    def failing() -> Iterator[bytes]:
        yield os.urandom(20 * MIB)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.put(failing())
    assert files.stats().files == 0
    assert [path for path in (daemon.store / ".filestored" / "uploads").iterdir() if path.is_file()] == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512", "blake3"])
def test_other_hash_functions(connect: Connect, start_daemon: StartDaemon, tmp_path: Path, algorithm: str) -> None:
    files = connect(start_daemon("--hash", algorithm).url)
    for size in (10, 3 * MIB, LARGE):
        path = make_file(tmp_path, size)
        file = files.put(path)
        assert (file.algorithm, len(file.hash)) == (algorithm, files.algorithm().hex_length)
        # as long as one by SHA-256: the server takes it for its own kind
        if algorithm != "blake3":
            assert files.put(path, hash=sha256(path.read_bytes())).hash == file.hash
        assert files.get(file.hash, tmp_path / f"copy{size}").size == size
        assert files.put(io.BytesIO(path.read_bytes())).hash == file.hash
        [left] = [tmp_path / f".again.{file.hash[:16]}.part"]
        left.write_bytes(path.read_bytes()[: size // 2])
        assert files.get(file.hash, tmp_path / "again", replace=True).size == size
        (tmp_path / "again").unlink()


# downloads


def test_a_download_takes_its_name_when_it_is_whole(files: Client, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    file = files.put(content)
    names: set[str] = set()
    files.get(file.hash, tmp_path / "new", progress=lambda *_: names.update(os.listdir(tmp_path)))
    assert "new" not in names
    assert [name for name in os.listdir(tmp_path) if name != "state"] == ["new"]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_what_is_in_the_way_is_not_replaced_unless_wished(files: Client, tmp_path: Path) -> None:
    content = os.urandom(100)
    file = files.put(content)
    target = tmp_path / "target"
    for other in (b"something else", os.urandom(100)):
        target.write_bytes(other)
        with pytest.raises(LocalFault, match="another file of this name"):
            files.get(file.hash, target)
        assert target.read_bytes() == other
    assert not files.get(file.hash, target, replace=True).was_there
    assert files.get(file.hash, target).was_there
    assert target.read_bytes() == content
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalFault):
        files.get(file.hash, tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(LocalFault, match="No such file"):
        files.get(file.hash, tmp_path / "no" / "such" / "folder")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("report.txt", "report.txt"), (".bashrc", "_bashrc"), ("..", None), (".", None), ("...x", "_x"),
        ("Отчёт.pdf", "Отчёт.pdf"), ("я" * 200 + ".pdf", None), ("a b  c", "a b  c"), ("-rf", "-rf"),
    ],
)  # fmt: skip
def test_a_name_in_a_folder_is_made_harmless(files: Client, tmp_path: Path, name: str, local: str | None) -> None:
    file = files.put(os.urandom(20), name=name)
    folder = tmp_path / "folder"
    folder.mkdir()
    received = files.get(file.hash, folder)
    [stored] = folder.iterdir()
    assert received.path == stored
    assert local is None or stored.name == local
    assert not stored.name.startswith(".")


def test_streams_and_devices(files: Client, tmp_path: Path) -> None:
    content = os.urandom(5 * MIB)
    file = files.put(content, name="film")
    memory = io.BytesIO()
    assert files.get(file.hash, memory).path is None
    assert memory.getvalue() == content
    assert files.get(file.hash, "/dev/null").size == len(content)
    with pytest.raises(LocalFault, match="No space left"):
        files.get(file.hash, "/dev/full")
    with files.stream(file.hash) as stream:
        assert (stream.size, stream.name) == (len(content), "film")
        assert b"".join(stream) == content
    # who has seen enough stops
    with files.stream(file.hash) as stream:
        first = next(iter(stream))
        assert content.startswith(first)
    empty = files.put(b"")
    with files.stream(empty.hash) as stream:
        assert (stream.size, b"".join(stream)) == (0, b"")


def test_parts(files: Client) -> None:
    content = os.urandom(1000)
    file = files.put(content)
    for start, end in ((0, 10), (990, 2000), (500, 501), (0, 1000)):
        assert files.read(file.hash, start, end) == content[start:end]
    assert files.read(file.hash, 1000, 1010) == b""
    assert files.read(file.hash, 10, 10) == b""
    with pytest.raises(NotStored):
        files.read(sha256(b"none"), 0, 10)


def test_a_blob_that_is_damaged_at_the_server_is_never_taken_for_good(
    connect: Connect, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon()
    files = connect(daemon.url)
    for size in (100, LARGE):
        file = files.put(os.urandom(size))
        blob = daemon.blob(file.hash)
        blob.chmod(0o644)
        with blob.open("r+b") as opened:
            opened.write(b"damage")
        daemon.stop()
        files = connect(daemon.start().url)
        target = tmp_path / "target"
        with pytest.raises(Damaged, match=file.hash):
            files.get(file.hash, target)
        with pytest.raises(Damaged):
            files.get(file.hash)
        with pytest.raises(Damaged), files.stream(file.hash) as stream:
            for _ in stream:
                pass
        assert not [name for name in os.listdir(tmp_path) if "target" in name]


def test_what_an_earlier_run_left_is_gone_on_from(files: Client, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    file = files.put(content)
    hidden = tmp_path / f".target.{file.hash[:16]}.part"
    for left in (content[: 10 * MIB], content, os.urandom(5 * MIB), content + b"more", b""):
        hidden.write_bytes(left)
        seen: list[int] = []
        files.get(file.hash, tmp_path / "target", progress=partial(_note, seen))
        assert (tmp_path / "target").read_bytes() == content
        if left == content[: 10 * MIB]:
            assert seen[0] > 10 * MIB
        (tmp_path / "target").unlink()
        assert not hidden.exists()


def _note(seen: list[int], done: int, _: int | None) -> None:
    seen.append(done)


def test_two_may_fetch_the_same_to_the_same_place(files: Client, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    file = files.put(content)
    threads = [threading.Thread(target=lambda: files.get(file.hash, tmp_path / "t", replace=True)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "t").read_bytes() == content
    assert sorted(name for name in os.listdir(tmp_path) if name != "state") == ["t"]


# what there is to know, and to change


def test_listing_goes_through_all_pages(connect: Connect, start_daemon: StartDaemon) -> None:
    files = connect(start_daemon().url)
    for batch in range(3):
        files.put_together([Item(b"%d %d" % (batch, number), f"n{batch}-{number:03}.txt") for number in range(250)])
    names = [file.name for file in files.list(sort="name")]
    assert names == sorted(f"n{batch}-{number:03}.txt" for batch in range(3) for number in range(250))
    assert len(list(files.list(limit=510))) == 510
    assert len(list(files.list(limit=0))) == 0
    assert len(list(files.list(name="n1-*", type="text/"))) == 250
    with pytest.raises(Refused, match="sort"):
        list(files.list(sort="colour"))


def test_the_short_operations(files: Client) -> None:
    content = os.urandom(50)
    file = files.put(content, name="first")
    assert files.missing([file.hash, sha256(b"none"), file.hash]) == {sha256(b"none")}
    changed = files.change(file.hash, name=None, type="text/css", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert (changed.name, changed.type, changed.expires_at) == (None, "text/css", datetime(2100, 1, 1, tzinfo=UTC))
    assert files.change(file.hash).type == "text/css"
    assert files.change(file.hash, expires_at=None).expires_at is None
    link = files.link(file.hash, "10m")
    assert link.url.startswith(files.url)
    assert timedelta(minutes=9) < link.expires_at - datetime.now(UTC) <= timedelta(minutes=10)
    assert files.stats().files >= 1
    assert "admin" in files.caller().permissions
    files.delete(file.hash)
    for ask in (files.info, files.delete, files.get, files.head, files.link):
        with pytest.raises(NotStored):
            ask(file.hash)
    for nonsense in ("xyz", "../../etc/passwd", "", "ab" * 31):
        with pytest.raises(NotStored, match="not a hash"):
            files.info(nonsense)


def test_many_hashes_are_asked_about_in_portions(files: Client) -> None:
    # numbers alone are what other tests may have stored in this daemon
    hashes = [sha256(b"never stored: %d" % number) for number in range(25_000)]
    assert files.missing(iter(hashes)) == set(hashes)


# who may do what


def test_tokens(connect: Connect, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon()
    tokens = {name: make_token(daemon.store, name, rights) for name, rights in (
        ("anna", "read,write,delete"), ("writer", "write"), ("reader", "read"), ("root", "admin"),
    )}  # fmt: skip
    anna, writer, reader, root = (connect(daemon.url, tokens[name]) for name in ("anna", "writer", "reader", "root"))
    path = make_file(tmp_path, LARGE)
    file = anna.put(path)
    assert file.owner == "anna"
    for none in (connect(daemon.url), connect(daemon.url, "fs-" + "0" * 12 + "-wrong")):
        for ask in (none.info, none.get, none.head, none.delete):
            with pytest.raises(NotAllowed):
                ask(file.hash)
    with pytest.raises(NotAllowed):
        reader.put(b"any")
    assert reader.get(file.hash, tmp_path / "copy").size == LARGE
    for content in (b"w" + os.urandom(10), os.urandom(3 * MIB), os.urandom(LARGE)):
        made = writer.put(content, name="written", expires_in="1h")
        assert (made.hash, made.owner, made.name) == (sha256(content), "writer", "written")
    # what another keeps is not kept by oneself, whatever one may see
    assert root.put(path).is_new
    anna.delete(file.hash)
    assert root.info(file.hash).owner == "root"


def test_limits_are_told(connect: Connect, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--max-upload-size", "18MiB")
    token = make_token(daemon.store, "anna", "read,write", quota=1000)
    for files, size in ((connect(daemon.url, token), 2000), (connect(daemon.url, token), LARGE)):
        with pytest.raises(TooMuch):
            files.put(os.urandom(size))
    with pytest.raises(TooMuch):
        connect(daemon.url, make_token(daemon.store, "boris", "write")).put(os.urandom(19 * MIB))
    with pytest.raises(TooMuch):
        connect(daemon.url, make_token(daemon.store, "vera", "write")).put(iter([os.urandom(19 * MIB)]))


# what is given wrongly


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://host", "http://", "http://host:port", "http://a b/", "http://h/?q", "http://me:t@h"]
)
def test_an_address_that_is_none_is_told(connect: Connect, url: str) -> None:
    with pytest.raises(ClientError):
        connect(url)


def test_a_token_that_cannot_be_one_is_told(connect: Connect) -> None:
    for token in ("", "a b", "x\ny", "я"):
        with pytest.raises(ClientError, match="token"):
            connect("http://localhost", token)


def test_a_file_of_certificates_that_cannot_be_read_is_told(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="CA certificates"):
        connect("https://localhost", verify=str(tmp_path / "none.pem"))


def test_a_server_that_is_not_there_is_not_waited_for(connect: Connect) -> None:
    with pytest.raises(Unreachable, match="cannot connect"):
        connect("http://127.0.0.1:1", retry_for=3600).stats()
