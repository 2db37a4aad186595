"""A server, or what is between, that lies, never ends, or says what makes no sense: an error in time, nothing worse."""

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from filestored import Client
from filestored.client import ClientError, Damaged, LocalFault
from tests.client.conftest import Connect

MIB = 1 << 20
LARGE = 17 * MIB
CONTENT = b"what was asked for"
HASH = hashlib.sha256(CONTENT).hexdigest()
FILE = {
    "hash": HASH, "algorithm": "sha256", "size": len(CONTENT), "name": "n", "type": "a/b", "owner": "o",
    "created_at": "2026-01-01T00:00:00Z", "expires_at": None, "url": "/x",
}  # fmt: skip
CALLER = {"owner": "o", "permissions": ["read"], "quota": None, "expires_at": None, "algorithm": "sha256"}


def answer(status: int = 200, body: bytes | str = b"", **headers: str) -> bytes:
    """Write an answer; underscores in the names of headers become hyphens."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(content))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items() if value), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + content


Script = Callable[[str, str, socket.socket], bytes]
"""Told of method, path and connection; returns what to send, after which the connection goes on."""


class Liar:
    """A server that answers as it is told, whatever it is asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self.asked: list[str] = []
        self.heads: list[str] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    buffer += (piece := connection.recv(65536))
                    if not piece:
                        return
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                buffer = self._skip_body(head, buffer, connection)
                method, path, _ = head.decode("latin-1").split(" ", 2)
                self.asked.append(f"{method} {path}")
                self.heads.append(head.decode("latin-1"))
                connection.sendall(self._script(method, path, connection))

    def _skip_body(self, head: bytes, buffer: bytes, connection: socket.socket) -> bytes:
        length = re.search(rb"content-length: ([0-9]+)", head.lower())
        if length is None and b"chunked" not in head.lower():
            return buffer
        while not (buffer.endswith(b"0\r\n\r\n") if length is None else len(buffer) >= int(length[1])):
            buffer += (piece := connection.recv(1 << 20))
            if not piece:
                raise OSError
            buffer = buffer[-64:] if length is None else buffer
        return b""

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def lie() -> Iterator[Callable[[Script], Liar]]:
    """Start servers that lie."""
    liars: list[Liar] = []

    def start(script: Script) -> Liar:
        liars.append(Liar(script))
        return liars[-1]

    yield start
    for liar in liars:
        liar.close()


Lie = Callable[[Script], Liar]


@pytest.mark.parametrize(
    "said",
    [
        "", "nonsense", "[]", "{}", "null", "[" * 100_000, json.dumps(FILE | {"size": "many"}),
        json.dumps(FILE | {"size": -1}), json.dumps(FILE | {"name": 5}), json.dumps(FILE | {"hash": None}),
        json.dumps(FILE).replace(str(len(CONTENT)), "Infinity"),
        json.dumps(FILE | {"created_at": "2026-01-01T00:00:00"}),
        json.dumps(FILE | {"created_at": "0001-01-01T00:00:00+14:00"}),
    ],
)  # fmt: skip
def test_answers_that_make_no_sense(connect: Connect, lie: Lie, said: str) -> None:
    files = connect(lie(lambda *_: answer(body=said)).url, retry_for=1.0)
    for ask in (files.info, lambda _: files.put(b"x"), files.link, lambda _: files.stats(), lambda _: files.caller(),
                lambda _: list(files.list()), lambda _: files.missing([HASH])):  # fmt: skip
        with pytest.raises(ClientError):
            ask(HASH)


def test_a_listing_without_an_end_ends(connect: Connect, lie: Lie) -> None:
    page = json.dumps({"files": [FILE] * 9, "next_cursor": "again"})
    files = connect(lie(lambda *_: answer(body=page)).url)
    assert len(list(files.list(limit=3))) == 3
    with pytest.raises(ClientError):
        list(files.list())


def _chunks(connection: socket.socket, piece: bytes, head: str) -> bytes:
    """Send a body without an end, until the other side has had enough."""
    connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(3000):
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    raise AssertionError("the client takes anything")


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 X\r\n", "HTTP/1.1 404 X\r\n", "HTTP/1.1 302 X\r\nLocation: /x\r\n", "HTTP/1.1 500 X\r\n"]
)
def test_bodies_without_an_end_are_not_taken_into_memory(connect: Connect, lie: Lie, head: str) -> None:
    liar = lie(lambda _method, _path, connection: _chunks(connection, b" " * MIB, head))
    with pytest.raises(ClientError):
        connect(liar.url, retry_for=1.0).info(HASH)


def test_no_more_is_taken_than_the_file_has(connect: Connect, lie: Lie, tmp_path: Path) -> None:
    head = "HTTP/1.1 206 X\r\nContent-Range: bytes 0-9/10\r\n"
    liar = lie(lambda _method, _path, connection: _chunks(connection, b"x" * MIB, head))
    for target in (None, tmp_path / "target"):
        with pytest.raises(ClientError):
            connect(liar.url, retry_for=1.0).get(HASH, target)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 5-9/10"}, {"Content_Range": "bytes x-9/10"}, {"Content_Range": ""},
        {"Content_Range": "bytes 0-9/\u00b2"}, {"Content_Range": f"bytes 0-9/{'9' * 5000}"},
        {"Content_Range": "bytes 0-9/*"},
    ],
)  # fmt: skip
def test_parts_that_are_not_what_was_asked_for(connect: Connect, lie: Lie, headers: dict[str, str]) -> None:
    files = connect(lie(lambda *_: answer(206, b"0123456789", **headers)).url, retry_for=1.0)
    for ask in (files.get, lambda each: files.read(each, 0, 3), lambda each: files.read(each, 5, 6)):
        with pytest.raises(ClientError):
            ask(HASH)


def test_ranges_begin_at_zero(files: Client) -> None:
    with pytest.raises(ValueError, match="-5"):
        files.read(HASH, -5, 5)


def test_a_token_goes_to_its_own_server_only(connect: Connect, lie: Lie) -> None:
    other = lie(lambda *_: answer(body=CONTENT, Repr_Digest="sha-256=:x:"))
    liar = lie(lambda *_: answer(302, Location=f"{other.url}/elsewhere"))
    files = connect(liar.url, "fs-0123456789ab-secret")
    assert files.get(HASH) == CONTENT
    assert "authorization" in liar.heads[0].lower()
    assert all("authorization" not in head.lower() for head in other.heads)
    with pytest.raises(ClientError, match="sends elsewhere"):
        files.put(b"any")


@pytest.mark.parametrize(
    "location", ["/again", "file:///etc/passwd", "http://a..b/", "http://[::1", "", "\u00e9", "http://" + "a" * 70]
)
def test_being_sent_elsewhere_in_vain(connect: Connect, lie: Lie, location: str) -> None:
    liar = lie(lambda *_: answer(302, Location=location))
    with pytest.raises(ClientError):
        connect(liar.url, retry_for=1.0).get(HASH)
    assert len(liar.asked) < 20


def test_a_file_without_a_digest_in_its_header_is_compared_all_the_same(
    connect: Connect, lie: Lie, tmp_path: Path
) -> None:
    files = connect(lie(lambda *_: answer(body=CONTENT)).url)
    assert files.get(HASH) == CONTENT
    assert files.get(HASH, tmp_path / "x").size == len(CONTENT)
    with pytest.raises(Damaged):
        files.get(hashlib.sha256(b"other").hexdigest())


@pytest.mark.parametrize(
    "disposition",
    [";" * 60_000, "x; filename*=undefined''x", "x; filename*=idna''x", 'x; filename="' + "a" * 5000 + '"'],
)
def test_strange_names(connect: Connect, lie: Lie, tmp_path: Path, disposition: str) -> None:
    said = answer(body=CONTENT, Content_Disposition=disposition, Repr_Digest="sha-256=:x:")
    files = connect(lie(lambda *_: said).url)
    with contextlib.suppress(ClientError):
        received = files.get(HASH, tmp_path)
        assert received.path is not None
        assert received.path.parent == tmp_path


def _tus(patched: bytes | None = None, told: bytes | None = None, location: str = "/v1/uploads/x") -> Script:
    """A tus server that answers PATCH and HEAD always alike."""

    def script(method: str, path: str, _: socket.socket) -> bytes:
        if path == "/v1/caller":
            return answer(body=json.dumps(CALLER))
        if path == "/v1/files/missing":
            return answer(body='{"missing": []}')
        if method == "POST":
            return answer(201, Location=location)
        if method == "DELETE":
            return answer(204)
        return (told if method == "HEAD" else patched) or answer(204, Upload_Offset="0")

    return script


@pytest.mark.parametrize(
    "script",
    [
        _tus(), _tus(answer(204, Upload_Offset="1000000")), _tus(answer(409)), _tus(answer(404)), _tus(answer(423)),
        _tus(answer(204, Upload_Offset=str(LARGE))), _tus(answer(204, Upload_Offset=str(LARGE + 1))),
        _tus(answer(204, Upload_Offset="-1")), _tus(answer(204, Upload_Offset="9" * 5000)),
        _tus(answer(204, Upload_Offset="\u00b2")),
        _tus(answer(204)), _tus(answer(409), answer(500)), _tus(answer(302, Location="/x")),
        _tus(answer(204, Upload_Offset=str(LARGE), Filestored_Hash="ab" * 32)),
        *(_tus(location=location) for location in ("", "nonsense", "file:///x", "http://[::1", "ftp://x/y", "\x07/")),
    ],
)  # fmt: skip
def test_resumable_uploads_that_do_not_get_on_end(connect: Connect, lie: Lie, tmp_path: Path, script: Script) -> None:
    liar = lie(script)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    for source in (path, iter([path.read_bytes()])):
        files = connect(liar.url, retry_for=1.5)
        with pytest.raises(ClientError):
            files.put(source, skip=False)
    assert len(liar.asked) < 100


def test_a_server_with_a_bad_address_for_an_upload_does_not_spoil_the_next_run(
    connect: Connect, lie: Lie, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    bad = True

    def script(method: str, path: str, connection: socket.socket) -> bytes:
        return _tus(answer(409), None, "nonsense" if bad else "/v1/uploads/x")(method, path, connection)

    liar = lie(script)
    with pytest.raises(ClientError):
        connect(liar.url, retry_for=0.5).put(path)
    bad = False
    with pytest.raises(ClientError):
        connect(liar.url, retry_for=0.5).put(path)
    assert any(asked.startswith("PATCH") for asked in liar.asked)


def test_a_deadline_holds_against_a_server_that_drips(connect: Connect, lie: Lie) -> None:
    def drip(_method: str, _path: str, connection: socket.socket) -> bytes:
        connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(300):
            connection.sendall(b" ")
            threading.Event().wait(0.1)
        return b""

    files = connect(lie(drip).url, deadline=1.0)
    for ask in (files.info, files.get, lambda _: files.stats()):
        with pytest.raises(ClientError, match="deadline"):
            ask(HASH)


# what is given wrongly, and what lies in the way


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "текст"}, {"type": "a/b\n"}, {"type": "a"}, {"name": "\ud800"}, {"expires_in": "soon"},
        {"expires_in": -1}, {"hash": "xyz"}, {"expires_in": float("nan")},
    ],
)  # fmt: skip
def test_wishes_that_cannot_be_said(files: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        files.put(b"any", **wrong)


def test_paths_that_cannot_be(files: Client, tmp_path: Path) -> None:
    digest = files.put(CONTENT).hash
    for path in ("a\0b", str(tmp_path / ("x" * 300)), str(tmp_path / "f" / "x")):
        (tmp_path / "f").touch()
        with pytest.raises(LocalFault):
            files.put(path)
        with pytest.raises(LocalFault):
            files.get(digest, path)
    assert files.get(digest, os.fsencode(tmp_path / "bytes").decode()).size == len(CONTENT)


def test_streams_that_do_not_wait_are_no_end(files: Client) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as sink:
        os.write(writing, b"something")
        with pytest.raises(LocalFault, match="waits"):
            files.put(source)
        digest = files.put(os.urandom(MIB)).hash
        with pytest.raises(LocalFault):
            files.get(digest, sink)


def test_what_is_in_the_way_of_a_partial_file_is_left_alone(files: Client, tmp_path: Path) -> None:
    digest = files.put(CONTENT).hash
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    hidden = tmp_path / f".target.{digest[:16]}.part"
    obstacles: list[Callable[[], object]] = [
        lambda: os.link(precious, hidden), lambda: hidden.symlink_to(precious), hidden.mkdir,
    ]  # fmt: skip
    for put in obstacles:
        put()
        assert files.get(digest, tmp_path / "target").size == len(CONTENT)
        assert (tmp_path / "target").read_bytes() == CONTENT
        assert precious.read_bytes() == b"keep me"
        (tmp_path / "target").unlink()
        if hidden.is_dir() and not hidden.is_symlink():
            hidden.rmdir()
        else:
            hidden.unlink()


def test_a_partial_file_that_somebody_clears_away_leaves_nothing(files: Client, tmp_path: Path) -> None:
    digest = files.put(os.urandom(LARGE)).hash

    def clear(*_: object) -> None:
        for path in tmp_path.glob(".target.*.part"):
            path.unlink()

    with pytest.raises(LocalFault):
        files.get(digest, tmp_path / "target", progress=clear)
    assert list(tmp_path.glob("*target*")) == []


def test_a_folder_named_for_the_state_keeps_what_is_no_trace(connect: Connect, daemon: Any, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("thesis.odt", "a" * 64):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    connect(daemon.url, state=folder, resume_from=MIB).put(os.urandom(2 * MIB))
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * MIB))
    connect(daemon.url, state=str(folder), resume_from=MIB).put(path)
    assert [entry.name for entry in folder.iterdir()] == ["thesis.odt"]


def test_same_content_that_came_meanwhile_is_no_failure(files: Client, tmp_path: Path) -> None:
    digest = files.put(os.urandom(LARGE)).hash
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            files.get(digest, tmp_path / "target")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.name for entry in tmp_path.iterdir() if "target" in entry.name] == ["target"]


def test_what_a_run_left_that_was_killed_at_its_very_end_is_cleared(files: Client, tmp_path: Path) -> None:
    digest = files.put(CONTENT).hash
    hidden = tmp_path / f".target.{digest[:16]}.part"
    hidden.write_bytes(CONTENT)
    os.link(hidden, tmp_path / "target")
    assert files.get(digest, tmp_path / "target").was_there
    assert not hidden.exists()
