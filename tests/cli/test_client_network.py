"""The client's commands on a bad network, under Ctrl-C, and while the daemon dies: the next run goes on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.calling import Shell
from tests.cli.test_client_folders import state_of
from tests.cli.test_client_transfers import require_one_line, sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.proxy import Proxy, proxy_before

INTERRUPTED = b"filestored: interrupted; the same command goes on from here\n"


class Line:
    """A user behind a bad network."""

    def __init__(self, daemon: Daemon, proxy: Proxy, folder: Path) -> None:
        self.daemon = daemon
        self.proxy = proxy
        self.shell = Shell(proxy.url, folder)

    @property
    def folder(self) -> Path:
        return self.shell.folder

    def blobs(self) -> int:
        return int(httpx.get(f"{self.daemon.url}/v1/stats").json()["blobs"])

    def make_files(self, count: int, size: int) -> Path:
        tree = self.folder / "tree"
        tree.mkdir()
        for number in range(count):
            (tree / f"{number:05}").write_bytes(os.urandom(size))
        return tree


@pytest.fixture
def line(start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Line]:
    daemon = start_daemon("--workers", "1")
    folder = tmp_path / "home"
    folder.mkdir()
    with proxy_before(daemon.address) as proxy:
        yield Line(daemon, proxy, folder)


def interrupt(process: "subprocess.Popen[bytes]", number: int = signal.SIGINT) -> tuple[int, bytes]:
    """Send a signal; return status and standard error."""
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    return process.returncode, said


def partial(folder: Path) -> int:
    """Return how many bytes lie under hidden names."""
    sizes = []
    for path in folder.rglob(".*.part"):
        sizes.append(path.stat().st_size)
    return sum(sizes)


def test_a_folder_arrives_through_a_network_that_breaks_all_the_time(line: Line) -> None:
    tree = line.make_files(600, 16_000)
    (tree / "large").write_bytes(os.urandom(30_000_000))
    line.proxy.limit(20_000_000)
    sending = line.shell.begin("put", "-r", "tree", "--manifest", "m.json")
    for reached in range(2_000_000, 30_000_000, 4_000_000):
        line.proxy.wait_for(reached)
        line.proxy.cut()
    assert sending.communicate(timeout=100) == (b"", b"")
    assert sending.returncode == 0
    line.proxy.limit(None)
    fetching = line.shell.begin("get", "--manifest", "m.json", "-o", "back")
    for _ in range(10):
        connections = line.proxy.connections
        line.proxy.cut()
        wait_until(lambda: line.proxy.connections > connections or fetching.poll() is not None)  # noqa: B023
    assert fetching.communicate(timeout=100) == (b"", b"")
    assert fetching.returncode == 0
    assert state_of(line.folder / "back") == state_of(tree)


def test_a_server_that_is_away_for_a_moment_is_waited_for(line: Line) -> None:
    tree = line.make_files(300, 16_000)
    line.proxy.limit(1_000_000)
    sending = line.shell.begin("put", "-r", "tree")
    line.proxy.wait_for(1_000_000)
    line.proxy.vanish()
    line.daemon.kill()
    line.daemon.start()
    line.proxy.aim(line.daemon.address)
    line.proxy.come_back()
    line.proxy.limit(None)
    output, said = sending.communicate(timeout=100)
    assert (sending.returncode, said) == (0, b"")
    assert len(json.loads(output)["entries"]) == 300
    assert line.blobs() == 300
    for path in tree.iterdir():
        assert line.daemon.blob(sha256(path.read_bytes())).read_bytes() == path.read_bytes()


def test_a_server_that_stays_away_is_one_line_and_exit_status_5(line: Line) -> None:
    line.make_files(300, 16_000)
    line.proxy.limit(1_000_000)
    sending = line.shell.begin("put", "-r", "tree", "--retry-for", "1s", "--manifest", "m.json")
    line.proxy.wait_for(500_000)
    line.proxy.vanish()
    output, said = sending.communicate(timeout=60)
    assert (sending.returncode, output) == (5, b"")
    require_one_line(said.decode())
    # no half of a manifest
    assert sorted(path.name for path in line.folder.iterdir() if path.name != ".local") == ["tree"]


def test_silence_and_the_deadline_are_exit_status_5(line: Line) -> None:
    line.make_files(1, 10_000_000)
    line.proxy.freeze()
    for words in (["--timeout", "0.5s", "--retry-for", "1s"], ["--timeout", "0.5s", "--deadline", "1s"]):
        sending = line.shell.begin("put", "tree/00000", *words)
        output, said = sending.communicate(timeout=60)
        assert (sending.returncode, output) == (5, b"")
        require_one_line(said.decode())
    line.proxy.thaw()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_put_goes_on_where_it_was(line: Line, number: int) -> None:
    tree = line.make_files(1000, 16_000)
    line.proxy.limit(4_000_000)
    sending = line.shell.begin("put", "-r", "tree", "--jobs", "16", "--manifest", "m.json")
    assert wait_until(lambda: line.blobs() >= 100)
    began = time.monotonic()
    status, said = interrupt(sending, number)
    assert (status, said) == (128 + number, INTERRUPTED)
    assert time.monotonic() - began < 10
    stored = line.blobs()
    assert stored < 1000
    line.proxy.limit(None)
    before = line.proxy.uploaded
    line.shell.done("put", "-r", "tree", "--manifest", "m.json")
    assert line.blobs() == 1000
    # what was stored was not sent again, but for what was on its way
    assert line.proxy.uploaded - before < (1000 - stored) * 16_000 + 3_000_000
    line.shell.done("get", "--manifest", "m.json", "-o", "back")
    assert state_of(line.folder / "back") == state_of(tree)
    assert sorted(path.name for path in line.folder.iterdir() if path.name != ".local") == ["back", "m.json", "tree"]


def test_an_interrupted_upload_of_a_large_file_is_not_begun_anew(line: Line) -> None:
    content = os.urandom(60_000_000)
    (line.folder / "large").write_bytes(content)
    line.proxy.limit(20_000_000)
    sending = line.shell.begin("put", "large")
    line.proxy.wait_for(45_000_000)
    assert interrupt(sending) == (130, INTERRUPTED)
    line.proxy.limit(None)
    before = line.proxy.uploaded
    assert line.shell.done("put", "large").strip() == sha256(content)
    # the daemon notes every 32 MiB
    assert line.proxy.uploaded - before < 40_000_000
    assert httpx.get(f"{line.daemon.url}/{sha256(content)}").content == content


def test_an_interrupted_get_leaves_only_a_hidden_file_that_the_next_one_goes_on_from(line: Line) -> None:
    content = os.urandom(60_000_000)
    digest = httpx.post(line.daemon.url, content=content, params={"name": "large"}).text
    fetching = line.shell.begin("get", digest)
    assert wait_until(lambda: partial(line.folder) > 1_000_000)
    line.proxy.freeze()
    had = partial(line.folder)
    if fetching.poll() is None:
        assert interrupt(fetching) == (130, INTERRUPTED)
        assert [path.name for path in line.folder.iterdir() if not path.name.startswith(".")] == []
        assert partial(line.folder) >= had
    line.proxy.cut()
    line.proxy.thaw()
    assert line.shell.done("get", digest) == "large\n"
    assert (line.folder / "large").read_bytes() == content
    assert partial(line.folder) == 0


def test_an_interrupted_restore_goes_on_and_leaves_nothing_behind(line: Line) -> None:
    tree = line.make_files(1500, 4_000)
    line.shell.done("put", "-r", "tree", "--manifest", "m.json")
    fetching = line.shell.begin("get", "--manifest", "m.json", "-o", "back", "--jobs", "16")
    assert wait_until(lambda: (line.folder / "back").exists() and len(os.listdir(line.folder / "back")) > 50)
    assert interrupt(fetching, signal.SIGTERM) == (143, INTERRUPTED)
    line.shell.done("get", "--manifest", "m.json", "-o", "back")
    assert state_of(line.folder / "back") == state_of(tree)


def test_ctrl_c_ends_a_command_whose_server_says_nothing(line: Line) -> None:
    line.make_files(200, 1_000)
    line.proxy.freeze()
    for words in (["ls"], ["put", "-r", "tree"], ["put", "tree/00000"], ["get", "0" * 64], ["rm", "0" * 64]):
        connections = line.proxy.connections
        waiting = line.shell.begin(*words)
        assert wait_until(lambda: line.proxy.connections > connections)  # noqa: B023
        # where no files are moved there is nothing to go on with
        said = INTERRUPTED if words[0] in ("put", "get") else b"filestored: interrupted\n"
        assert interrupt(waiting) == (130, said)
    line.proxy.cut()
    line.proxy.thaw()


def test_a_large_file_that_changes_while_it_is_sent_is_exit_status_6(line: Line) -> None:
    (line.folder / "log").write_bytes(os.urandom(30_000_000))
    line.proxy.limit(10_000_000)
    sending = line.shell.begin("put", "log")
    line.proxy.wait_for(5_000_000)
    with (line.folder / "log").open("ab") as file:
        file.write(b"one more line\n")
    output, said = sending.communicate(timeout=60)
    assert (sending.returncode, output) == (6, b"")
    require_one_line(said.decode())
    assert line.blobs() == 0


def test_the_daemon_restarted_in_the_middle_of_a_download(line: Line) -> None:
    content = os.urandom(80_000_000)
    digest = httpx.post(line.daemon.url, content=content, params={"name": "large"}).text
    fetching = line.shell.begin("get", digest)
    assert wait_until(lambda: partial(line.folder) > 1_000_000 or fetching.poll() is not None)
    line.proxy.vanish()
    line.daemon.kill()
    line.daemon.start()
    line.proxy.aim(line.daemon.address)
    line.proxy.come_back()
    assert fetching.communicate(timeout=60) == (b"large\n", b"")
    assert (line.folder / "large").read_bytes() == content
