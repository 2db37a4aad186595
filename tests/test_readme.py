"""The README's commands, word for word against a real daemon; only ports, paths and the large file are others."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartDaemon, require_program
from tests.documents.checkout import make_checkout
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket, free_ports

ROOT = Path(__file__).parent.parent

LONGEST_SECONDS = 280
"""For the commands of a block, each of which starts a program of its own, on a machine that does other things too."""

pytestmark = pytest.mark.timeout(LONGEST_SECONDS + 20)

ENGLISH, RUSSIAN = "README.md", "README.ru.md"

BOTH = pytest.mark.parametrize("name", [ENGLISH, RUSSIAN])


TITLE, TOUR, DAEMON, PUBLIC, RUNNING, JSON, UPLOADS, CLIENT, CLUSTER = 0, 1, 4, 6, 7, 8, 9, 10, 11
"""The sections that have commands, by their numbers; what stands before the first one is number 0."""


def sections_of(name: str) -> list[str]:
    """Return the sections."""
    return re.split(r"^## ", (ROOT / name).read_text(), flags=re.MULTILINE)


def blocks_of(name: str, number: int, language: str = "sh") -> list[str]:
    """Return the blocks of commands in a section."""
    return re.findall(rf"^```{language}\n(.*?)^```", sections_of(name)[number], re.MULTILINE | re.DOTALL)


def run_block(block: str, folder: Path, port: int, command: str = "", **environment: str) -> str:
    """Run commands in a folder, and return what they print."""
    script = block.replace("localhost:9000", f"localhost:{port}").replace(".venv/bin/filestored", command)
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=LONGEST_SECONDS,
        env={**os.environ, "no_proxy": "*", "FILESTORED_PORT": str(port), "XDG_STATE_HOME": str(folder), **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@BOTH
def test_every_section_with_commands_is_tried_here(name: str) -> None:
    tried = {TITLE, TOUR, DAEMON, PUBLIC, RUNNING, JSON, UPLOADS, CLIENT, CLUSTER}
    assert {number for number, text in enumerate(sections_of(name)) if "```sh" in text} == tried


@pytest.mark.parametrize("language", ["sh", "python"])
def test_what_is_run_here_is_the_same_in_both_languages(language: str) -> None:
    """Check it but for the remarks, so that running the commands of one shows that those of the other work."""
    english, russian = (
        [re.sub(r"^# .*|\s+# .*", "", block, flags=re.MULTILINE) for number in range(len(sections_of(name)))
         for block in blocks_of(name, number, language)]
        for name in (ENGLISH, RUSSIAN)
    )  # fmt: skip
    assert english == russian != []


def test_make_runs_the_server_and_the_tests_as_written(tmp_path: Path) -> None:
    require_program("make")
    (block,) = blocks_of("README.md", TITLE)
    run, test = (line.partition(" #")[0].split() for line in block.splitlines())
    checkout = make_checkout(tmp_path / "filestored")
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_it.py").write_text("def test_it():\n    assert True\n")
    ended = subprocess.run(test, cwd=checkout, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    assert (ended.returncode, "1 passed" in ended.stdout) == (0, True), ended.stdout + ended.stderr
    (port,) = free_ports(1)
    environment = {**os.environ, "FILESTORED_PORT": str(port)}
    with subprocess.Popen(run, cwd=checkout, env=environment, stderr=subprocess.PIPE) as running:
        held = checkout / "store" / ".filestored" / "daemon.pid"
        try:
            assert wait_until(lambda: held.exists() and is_ready(f"http://127.0.0.1:{port}"))
            os.kill(int(held.read_text().split()[0]), signal.SIGTERM)
            assert running.wait(60) == 0
        finally:
            kill_daemon(checkout / "store")


def is_ready(url: str) -> bool:
    """Tell whether a server answers that it is ready."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_daemon_works_as_written(tmp_path: Path) -> None:
    (block,) = blocks_of("README.md", DAEMON)
    (port,) = free_ports(1)
    try:
        printed = run_block(f"set -e\n{block}", tmp_path, port, f"{sys.executable} -m filestored")
    finally:
        kill_daemon(tmp_path / "store")
    started, running, pid, stopped, again, last = printed.splitlines()
    number = pid.strip()
    assert (started, running) == tuple(
        f"{word}: process {number}, http://0.0.0.0:{port}" for word in ("started", "running")
    )
    assert stopped == f"stopped: process {number}"
    assert re.fullmatch(rf"started: process \d+, http://0\.0\.0\.0:{port}", again)
    assert last == stopped.replace(number, again.split()[2].rstrip(","))


def test_running_it_works_as_written(tmp_path: Path) -> None:
    require_program("curl")
    (block,) = blocks_of("README.md", RUNNING)
    (port,) = free_ports(1)
    command = f"{sys.executable} -m filestored"
    try:
        run_block(".venv/bin/filestored start", tmp_path, port, command)
        stored = httpx.post(f"http://127.0.0.1:{port}", content=b"kept", params={"name": "kept.txt"}).text
        printed = run_block(f"set -e -o pipefail\n{block}", tmp_path, port, command)
        file = httpx.get(f"http://127.0.0.1:{port}/v1/files/{stored}").json()
        assert (file["name"], file["size"]) == ("kept.txt", 4)
    finally:
        kill_daemon(tmp_path / "store")
    assert printed.startswith('{"status": "ok"}\nfilestored_free_bytes ')
    assert "GET /readyz" in printed
    assert printed.count("copied: 1 blobs, 4 bytes; ") == 2
    assert "verified: 1 blobs, 4 bytes; damaged: 0" in printed
    assert (tmp_path / "lost").is_dir()


def test_a_public_server_works_as_written(tmp_path: Path) -> None:
    require_program("curl")
    (block,) = blocks_of(ENGLISH, PUBLIC)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f"{sys.executable} -m filestored"
    subprocess.run([*command.split(), "start", "--port", "0"], cwd=tmp_path, check=True, timeout=60)
    printed = run_block(block, tmp_path, port, command)
    assert printed.count("Hello, world!") == 1
    assert '"status": 401' in printed
    assert '"name": "hello.txt"' in printed
    assert '"owner": "uploads"' in printed
    assert re.search(r"^http://localhost:\d+/[0-9a-f]{64}/hello\.txt\?expires=\d+&signature=", printed, re.MULTILINE)
    assert re.search(r"^uploads +read,write,delete", printed, re.MULTILINE)
    assert "revoked: uploads" in printed


def test_the_json_api_works_as_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    require_program("curl")
    (block,) = blocks_of(ENGLISH, JSON)
    daemon = start_daemon(store=tmp_path / "store")
    (tmp_path / "README.md").write_text("read me")
    printed = run_block(block, tmp_path, daemon.address[1])
    assert printed.count('"name": "README.md"') == 2
    assert '"next_cursor": null' in printed


def test_an_upload_goes_on_as_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    require_program("curl")
    (block,) = blocks_of(ENGLISH, UPLOADS)
    daemon = start_daemon(store=tmp_path / "store")
    printed = run_block(block, tmp_path, daemon.address[1])
    assert re.search(r"^upload-offset: 15728640\r?$", printed, re.MULTILINE)
    stored, own = re.findall(r"\b[0-9a-f]{64}\b", printed)
    assert stored == own


def test_the_client_works_as_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    (commands,) = blocks_of(ENGLISH, CLIENT)
    daemon = start_daemon(store=tmp_path / "store")
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "deep" / "page.md").write_text("a page")
    (tmp_path / "README.md").write_text("read me")
    command = f"{sys.executable} -m filestored"
    printed = run_block(commands, tmp_path, daemon.address[1], command, FILESTORED_URL=daemon.url)
    assert (tmp_path / "copy" / "deep" / "page.md").read_text() == "a page"
    assert "read me" in printed
    assert "page.md" in printed


def test_the_library_works_as_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    library, reading = blocks_of(ENGLISH, CLIENT, "python")
    daemon = start_daemon(store=tmp_path / "store")
    host = f"localhost:{daemon.address[1]}"
    (tmp_path / "README.md").write_text("read me")
    printed = run_python(library.replace("localhost:9000", host), tmp_path)
    assert re.search(rf"^http://{host}/[0-9a-f]{{64}}/README\.md\?expires=\d+&signature=", printed)
    assert re.search(r"^README\.md 7 20\d\d-", printed, re.MULTILINE)
    assert (tmp_path / "copy.md").read_text() == "read me"
    digest = httpx.post(daemon.url, content=b"city,people\nTula,466609\n", params={"name": "table.csv"}).text
    script = reading.replace("localhost:9000", host).replace("HASH", digest) + "print(table.people.sum())"
    assert run_python(script, tmp_path) == "466609\n"


def run_python(script: str, folder: Path) -> str:
    """Run a program in a folder, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FILESTORED_")}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**environment, "no_proxy": "*", "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_cluster_works_as_written(
    start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    require_program("curl")
    running, moving = blocks_of(ENGLISH, CLUSTER)
    disk = start_daemon("--anonymous", "full", store=tmp_path / "store")
    moved = httpx.post(disk.url, content=b"on the disk", params={"name": "old.txt"}).text
    (tmp_path / "README.md").write_text("read me")
    script = in_cluster(running + moving, bucket, database)
    try:
        printed = run_block(script, tmp_path, 0, f"{sys.executable} -m filestored", XDG_STATE_HOME=str(tmp_path))
    finally:
        for spool in ("one", "two"):
            kill_daemon(tmp_path / spool)
    assert printed.count("read me") == 1
    assert printed.count('"status": 404') == 1
    assert re.search(r"copied: 1 blobs, 11 bytes; .*failed: 0", printed)
    assert "verified: 1 blobs, 11 bytes; damaged: 0" in printed
    assert bucket.blob(moved) == b"on the disk"
    # there was a token first
    assert "links apart: " in printed


def test_links_move_into_a_cluster_that_is_new_as_written(
    start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    running, moving = blocks_of(ENGLISH, CLUSTER)
    starting = re.findall(r"^export .*|^\S+ start .*", running, re.MULTILINE)[:4]
    (copying,) = re.findall(r"^\S+ copy-store .*", moving, re.MULTILINE)
    disk = start_daemon("--anonymous", "full", store=tmp_path / "store")
    moved = httpx.post(disk.url, content=b"on the disk", params={"name": "old.txt"}).text
    link = httpx.URL(httpx.post(f"{disk.url}/v1/files/{moved}/link", json={"expires_in": "1h"}).json()["url"])
    command = f"{sys.executable} -m filestored"
    script = in_cluster("\n".join([*starting, copying]), bucket, database)
    # so that only the link opens the file
    script = script.replace(" --port", " --anonymous none --port")
    try:
        printed = run_block(script, tmp_path, 0, command, XDG_STATE_HOME=str(tmp_path))
        assert "links apart" not in printed
        for spool in ("one", "two"):
            url = (tmp_path / spool / ".filestored" / "daemon.pid").read_text().split()[1]
            assert wait_until(lambda at=url: httpx.get(at + link.raw_path.decode()).text == "on the disk")  # type: ignore[misc]
            assert httpx.get(f"{url}/{moved}").status_code == 401
    finally:
        for spool in ("one", "two"):
            kill_daemon(tmp_path / spool)


def in_cluster(script: str, bucket: Bucket, database: Database) -> str:
    """Put the real places where the commands for a cluster have others."""
    one, two = free_ports(2)
    own = {
        "=KEY": f"={bucket.server.key}",
        "=SECRET": f"={bucket.server.secret}",
        "https://s3.example": bucket.server.endpoint,
        "s3://bucket/files": bucket.url,
        "postgresql://filestored:PASSWORD@db.example/filestored": f"'{database.url}'",
        "9001": str(one),
        "9002": str(two),
    }
    for written, real in own.items():
        assert written in script
        script = script.replace(written, real)
    return script


def kill_daemon(spool: Path) -> None:
    """End a daemon that a failed test has left behind."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((spool / ".filestored" / "daemon.pid").read_text().split()[0]), signal.SIGTERM)


def test_the_tour_works_as_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    require_program("curl")
    tour = blocks_of(ENGLISH, TOUR)
    assert len(tour) == 2
    daemon = start_daemon(store=tmp_path / "store")
    script = "set -e\n" + "".join(tour).replace("localhost:9000", f"localhost:{daemon.address[1]}").replace("2G", "20M")
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    digest = lines[0]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert lines[1:3] == ["Hello, world!"] * 2
    assert f'etag: "{digest}"' in run.stdout
    assert f"worldstore/{digest[:2]}/{digest}" in run.stdout
    assert '"status": 404' in run.stdout
    assert re.search(r"^([0-9a-f]{64})\n\1  -$", run.stdout, re.MULTILINE)
