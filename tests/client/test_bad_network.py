"""The library where connections break, servers come and go, and other runs have begun what this one ends."""

import contextlib
import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from filestored import Client
from filestored.client import ClientError, LocalFault, Refused, Unreachable
from tests.api.raw import RawConnection
from tests.client.conftest import Connect
from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.tokens import make_token

MIB = 1 << 20
LARGE = 40 * MIB
IN_SOCKETS = 12 * MIB
"""What may be on its way, in sockets, when a connection breaks: it comes twice."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def at_bytes(limits: list[int], act: Callable[[], object]) -> Callable[[int, int | None], None]:
    """Act when so many bytes have been moved, once for each limit."""
    left = sorted(limits)

    def watch(done: int, _: int | None) -> None:
        if left and done >= left[0]:
            del left[0]
            act()

    return watch


# connections that break


def test_an_upload_goes_on_where_it_was_cut(connect: Connect, proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    files = connect(proxy.url)
    cuts = [10 * MIB, 22 * MIB, 39 * MIB]
    assert files.put(path, progress=at_bytes(cuts, proxy.cut)).hash == sha256(path.read_bytes())
    assert proxy.uploaded < LARGE + 3 * IN_SOCKETS


def test_a_stream_that_cannot_be_read_again_goes_on_too(connect: Connect, proxy: Proxy) -> None:
    content = os.urandom(LARGE)
    files = connect(proxy.url)
    cuts = [8 * MIB, 16 * MIB, 40 * MIB]
    assert files.put(io.BytesIO(content), progress=at_bytes(cuts, proxy.cut)).hash == sha256(content)


def test_a_small_upload_is_sent_again(connect: Connect, proxy: Proxy) -> None:
    files = connect(proxy.url)
    files.caller()
    content = os.urandom(8 * MIB)
    proxy.limit(20 * MIB)

    def cut() -> None:
        proxy.wait_for(proxy.uploaded + 2 * MIB)
        proxy.cut()
        proxy.limit(None)

    cutting = threading.Thread(target=cut)
    cutting.start()
    assert files.put(content, skip=False).hash == sha256(content)
    cutting.join()
    assert proxy.uploaded > 10 * MIB


def test_a_download_goes_on_where_it_was_cut(connect: Connect, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    files = connect(proxy.url)
    digest = connect(daemon.url).put(content).hash
    for target in (tmp_path / "copy", io.BytesIO(), None):
        before = proxy.connections
        seen: list[int] = []
        cut = at_bytes([5 * MIB, 15 * MIB, 25 * MIB], proxy.cut)

        def watch(done: int, size: int | None, seen: list[int] = seen, cut: Callable[..., None] = cut) -> None:
            seen.append(done)
            cut(done, size)

        assert target is None or files.get(digest, target, progress=watch).size == LARGE
        assert target is not None or files.get(digest, progress=watch) == content
        assert seen == sorted(set(seen))
        assert proxy.connections >= before + 3
    assert (tmp_path / "copy").read_bytes() == content


def test_a_stream_of_bytes_goes_on_where_it_was_cut(connect: Connect, daemon: Daemon, proxy: Proxy) -> None:
    content = os.urandom(LARGE)
    digest = connect(daemon.url).put(content).hash
    came = bytearray()
    with connect(proxy.url).stream(digest) as stream:
        cut = at_bytes([5 * MIB, 20 * MIB, 39 * MIB], proxy.cut)
        for piece in stream:
            came += piece
            cut(len(came), None)
    assert came == content


def test_a_network_that_says_nothing_any_more_is_noticed(
    connect: Connect, daemon: Daemon, proxy: Proxy, tmp_path: Path
) -> None:
    content = os.urandom(LARGE)
    digest = connect(daemon.url).put(content).hash
    files = connect(proxy.url, timeout=1.0)

    def freeze() -> None:
        proxy.freeze()
        threading.Timer(2.5, proxy.thaw).start()

    assert files.get(digest, tmp_path / "copy", progress=at_bytes([5 * MIB], freeze)).size == LARGE


def test_deleting_what_was_deleted_when_the_answer_got_lost_is_no_failure(connect: Connect, daemon: Daemon) -> None:
    with _answers_lost(daemon) as url:
        files = connect(url)
        content = os.urandom(10)
        digest = connect(daemon.url).put(content).hash
        files.caller()
        files.delete(digest)
        assert connect(daemon.url).missing([digest]) == {digest}


@contextlib.contextmanager
def _answers_lost(daemon: Daemon) -> Iterator[str]:
    """A network that loses the answer to each first DELETE."""
    lost: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_pass_on, args=(client, daemon.address, lost), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert lost, "no answer was lost"


def _pass_on(client: socket.socket, target: tuple[str, int], lost: list[bytes]) -> None:
    with client, socket.create_connection(target) as server, contextlib.suppress(OSError):
        while request := client.recv(65536):
            server.sendall(request)
            answer = server.recv(65536)
            if request.startswith(b"DELETE") and not lost:
                lost.append(answer)
                return
            client.sendall(answer)


# servers that come and go


def test_a_server_that_is_killed_and_started_again(connect: Connect, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon()
    with Proxy(daemon.address) as proxy:
        files = connect(proxy.url)
        path = tmp_path / "large"
        path.write_bytes(os.urandom(LARGE))

        def restart() -> None:
            daemon.kill()
            proxy.cut()

            def start() -> None:
                daemon.start()
                proxy.aim(daemon.address)

            threading.Thread(target=start).start()

        digest = files.put(path, progress=at_bytes([20 * MIB], restart)).hash
        assert digest == sha256(path.read_bytes())
        assert files.get(digest, tmp_path / "copy", progress=at_bytes([20 * MIB], restart)).size == LARGE
        assert wait_until(lambda: _answers(files))


def _answers(files: Client) -> bool:
    with contextlib.suppress(ClientError):
        return files.stats().files == 1
    return False


def test_a_server_that_stays_away_is_given_up_in_time(connect: Connect, daemon: Daemon, proxy: Proxy) -> None:
    files = connect(proxy.url, retry_for=1.0)
    files.caller()
    proxy.vanish()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="cannot connect"):
        files.stats()
    assert time.monotonic() - began < 15


def test_a_deadline_ends_an_operation_that_goes_on(connect: Connect, proxy: Proxy) -> None:
    files = connect(proxy.url, deadline=1.0)
    proxy.limit(4 * MIB)
    with pytest.raises(Unreachable, match="deadline of 1 seconds"):
        files.put(os.urandom(LARGE))


def test_a_server_that_is_busy_is_waited_for(connect: Connect, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--max-uploads", "1", "--workers", "1")
    files = connect(daemon.url)
    with RawConnection(daemon.address) as other:
        other.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\nContent-Type: a/b\r\n\r\nhalf")
        short = connect(daemon.url, retry_for=0.5)
        assert wait_until(lambda: _is_busy(short))
        threading.Timer(1.5, lambda: other.send(bytes(199_996))).start()
        assert files.put(b"waits").size == 5


def _is_busy(files: Client) -> bool:
    try:
        files.put(b"busy?")
    except Refused as refused:
        return refused.status == 503
    return False


# another run


def test_another_run_goes_on_with_an_upload(connect: Connect, proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    with pytest.raises(_Stopped):
        connect(proxy.url).put(path, progress=at_bytes([30 * MIB], _stop))
    seen: list[int] = []
    sent = proxy.uploaded
    connect(proxy.url).put(path, progress=lambda done, _: seen.append(done))
    assert seen[0] > 10 * MIB
    assert proxy.uploaded - sent < LARGE - 10 * MIB
    assert list((tmp_path / "state").iterdir()) == []


def test_another_run_goes_on_with_a_download(connect: Connect, daemon: Daemon, tmp_path: Path) -> None:
    digest = connect(daemon.url).put(os.urandom(LARGE)).hash
    with pytest.raises(_Stopped):
        connect(daemon.url).get(digest, tmp_path / "copy", progress=at_bytes([20 * MIB], _stop))
    assert not (tmp_path / "copy").exists()
    seen: list[int] = []
    connect(daemon.url).get(digest, tmp_path / "copy", progress=lambda done, _: seen.append(done))
    assert seen[0] > 20 * MIB


def test_what_was_begun_is_nothing_to_another_user_or_another_file(
    connect: Connect, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon()
    anna, boris = (make_token(daemon.store, name, "read,write") for name in ("anna", "boris"))
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))

    def begin() -> None:
        with pytest.raises(_Stopped):
            connect(daemon.url, anna).put(path, progress=at_bytes([20 * MIB], _stop))

    begin()
    seen: list[int] = []
    assert connect(daemon.url, boris).put(path, progress=lambda done, _: seen.append(done)).owner == "boris"
    assert min(seen) <= 2 * MIB
    path.write_bytes(os.urandom(LARGE))
    seen.clear()
    assert connect(daemon.url, anna).put(path, progress=lambda done, _: seen.append(done)).owner == "anna"
    assert min(seen) <= 2 * MIB
    # and what the server has forgotten is begun anew
    begin()
    for upload in (daemon.store / ".filestored" / "uploads").iterdir():
        if upload.is_file():
            upload.unlink()
    assert connect(daemon.url, anna).put(path).size == LARGE


class _Stopped(Exception):
    """Stands for whatever ends a run."""


def _stop() -> None:
    raise _Stopped


def test_what_becomes_known_to_be_stored_while_it_is_sent_is_sent_no_further(
    connect: Connect, daemon: Daemon, proxy: Proxy, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    connect(daemon.url).put(path)
    proxy.limit(20 * MIB)
    files = connect(proxy.url)
    assert not files.put(path).is_new
    assert proxy.uploaded < LARGE - 10 * MIB


# memory and the way to the server


_TRANSFER = """
import resource, sys
from filestored import Client
files = Client(sys.argv[1], state=None)
file = files.put(sys.argv[2])
files.get(file.hash, sys.argv[3])
with open(sys.argv[2], "rb") as stream:
    files.put(stream, skip=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_a_file(daemon: Daemon, tmp_path: Path) -> None:
    kibibytes = []
    for size in (20 * MIB, 320 * MIB):
        path = tmp_path / f"large{size}"
        with path.open("wb") as file:
            file.write(os.urandom(MIB))
            file.truncate(size)
        command = [sys.executable, "-c", _TRANSFER, daemon.url, str(path), str(tmp_path / f"copy{size}")]
        kibibytes.append(int(subprocess.run(command, check=True, capture_output=True, timeout=100).stdout))
    assert kibibytes[1] < kibibytes[0] + 48 * 1024, kibibytes


def test_large_pieces_are_read_at_a_time(daemon: Daemon) -> None:
    """What makes downloads fast hangs on how httpx is built inside."""
    with Client(daemon.url, state=None) as files:
        digest = files.put(os.urandom(LARGE)).hash
        with files.stream(digest) as stream:
            assert max(map(len, stream)) > 64 * 1024


def test_tls(connect: Connect, start_daemon: StartDaemon, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            require_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    daemon = _with_tls(start_daemon, certificate, key)
    content = os.urandom(LARGE)
    files = connect(daemon, verify=str(certificate))
    digest = files.put(content).hash
    assert files.get(digest) == content
    assert connect(daemon, verify=False).get(digest) == content
    with pytest.raises(Unreachable, match="not trusted"):
        connect(daemon).get(digest)
    with pytest.raises(Unreachable):
        connect(daemon.replace("https", "http")).get(digest)


def _with_tls(start_daemon: StartDaemon, certificate: Path, key: Path) -> str:
    return start_daemon("--tls-cert", str(certificate), "--tls-key", str(key)).url


def test_a_full_disk_is_told_before_anything_comes(
    connect: Connect, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = connect(daemon.url).put(os.urandom(LARGE)).hash
    full = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "fstatvfs", lambda _: _Full(full.f_frsize))
    with pytest.raises(LocalFault, match="no room"):
        connect(daemon.url).get(digest, tmp_path / "copy")
    assert [name for name in os.listdir(tmp_path) if name != "state"] == []


class _Full:
    f_bavail = 100

    def __init__(self, frsize: int) -> None:
        self.f_frsize = frsize
