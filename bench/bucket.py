"""``python -m bench.bucket``: the daemon on a bucket beside direct access to the same bucket, in turn.

Direct is obstore, with the parts and the concurrency that the daemon uses. The S3 server is that of the tests: Swift,
or Ceph with ``TEST_S3=ceph``; both run on this machine and take their share of its processors.
"""

import argparse
import contextlib
import hashlib
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import Tree
from bench.servers import ROOT, CannotMeasure

if TYPE_CHECKING:
    from tests.s3 import Bucket

DOWNLOAD_GOAL, UPLOAD_GOAL, SMALL_GOAL_MS = 0.8, 0.6, 2.0

MIB = 1 << 20
_SMALL = 4096
_PIECE = 256 * 1024
_PART = 8 * MIB
_PARTS_AT_ONCE = 4
_START_SECONDS = 60.0
_SAMPLED_EVERY_SECONDS = 0.05


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.bucket", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each transfer is made (5)")
    parser.add_argument("--small", type=int, default=60, help="how many small files are fetched (60)")
    parser.add_argument("--mib", type=int, default=64, help="size of a transfer (64)")
    parser.add_argument("--large-mib", type=int, default=512, help="size of the file for the memory (512); 0 for none")
    arguments = parser.parse_args()
    # here: the servers of the tests are no part of what the other benches need
    from tests import s3

    work = ROOT / ".cache" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with s3.running() as server, tempfile.TemporaryDirectory(dir=work) as folder:
        bucket = s3.Bucket(server)
        with running_daemon(bucket, Path(folder)) as daemon:
            print(f"S3: {type(server).__name__}; rounds: {arguments.rounds}", flush=True)
            pair = Pair(bucket, daemon, Path(folder))
            pair.compare_transfers(arguments.rounds, arguments.mib)
            pair.compare_small(arguments.small)
            for mebibytes in (arguments.mib, arguments.large_mib):
                if mebibytes:
                    pair.watch_memory(mebibytes)
    return 0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon on a bucket, with one worker."""

    tree: Tree
    port: int


@contextlib.contextmanager
def running_daemon(bucket: "Bucket", work: Path) -> Iterator[Daemon]:
    """Run a daemon from this checkout."""
    spool = work / "spool"
    command = [
        sys.executable, "-m", "filestored", "run", "--store", bucket.url, "--spool", str(spool), "--host", "127.0.0.1",
        "--port", "0", "--workers", "1", "--anonymous", "full", "--log", "warning",
    ]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")} | bucket.env
    tree = Tree(command, work / "daemon.log", env)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while (port := _port_of(spool)) is None:
            if tree.has_ended() or time.monotonic() > deadline:
                raise CannotMeasure(f"the daemon does not start:\n{tree.printed()}")
            time.sleep(0.05)
        yield Daemon(tree, port)
    finally:
        tree.stop()


def _port_of(spool: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError, http.client.HTTPException):
        port = int((spool / ".filestored" / "daemon.pid").read_text().split()[1].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            return port
    return None


class Pair:
    """The two ways to the same bucket."""

    def __init__(self, bucket: "Bucket", daemon: Daemon, work: Path) -> None:
        from obstore.store import S3Store

        self._daemon = daemon
        self._work = work
        self._number = 0
        options: Any = {
            "endpoint": bucket.server.endpoint, "region": "us-east-1", "access_key_id": bucket.server.key,
            "secret_access_key": bucket.server.secret, "virtual_hosted_style_request": False, "prefix": "files",
            "client_options": {"allow_http": True, "timeout": "120s"},
            "retry_config": {"max_retries": 1000, "retry_timeout": timedelta(seconds=30)},
        }  # fmt: skip
        self._store = S3Store(bucket.name, **options)

    def compare_transfers(self, rounds: int, mebibytes: int) -> None:
        """Upload and download files of one size, in turn by either way, and print the ratios of the rounds."""
        size = mebibytes * MIB
        ups, downs, spent = list[tuple[float, float]](), list[tuple[float, float]](), [0.0, 0.0]
        for _ in range(rounds):
            through, direct = self._fresh_file(size), self._fresh_file(size)
            began = self._daemon.tree.cpu_seconds()
            there = _timed(partial(self._upload, through))
            spent[0] += self._daemon.tree.cpu_seconds() - began
            ups.append((there, _timed(partial(self._put, direct))))
            digest = _digest_of(through)
            began = self._daemon.tree.cpu_seconds()
            here = _timed(partial(self._download, digest, size))
            spent[1] += self._daemon.tree.cpu_seconds() - began
            downs.append((here, _timed(partial(self._get, digest, size))))
            through.unlink()
            direct.unlink()
        for name, pairs, goal, seconds in (
            ("download", downs, DOWNLOAD_GOAL, spent[1]), ("upload", ups, UPLOAD_GOAL, spent[0])
        ):  # fmt: skip
            ratio = statistics.median(direct / through for through, direct in pairs)
            mine, other = (statistics.median(mebibytes / each[at] for each in pairs) for at in (0, 1))
            cpu = size * rounds / 1e9 / seconds
            print(
                f"{name} {mebibytes} MiB: {mine:.0f} MiB/s, direct {other:.0f} MiB/s, ratio {ratio:.2f} (goal {goal}); "
                f"{cpu:.2f} GB a second of the daemon's CPU time", flush=True,
            )  # fmt: skip

    def compare_small(self, count: int) -> None:
        """Upload small files, then fetch each by both ways, one after the other."""
        bodies = [os.urandom(_SMALL) for _ in range(count)]
        connection = self._connection()
        began = self._daemon.tree.cpu_seconds()
        for body in bodies:
            self._exchange(connection, "POST", "/", body)
        put = (self._daemon.tree.cpu_seconds() - began) / count * 1000
        through, direct = list[float](), list[float]()
        began = self._daemon.tree.cpu_seconds()
        for body in bodies:
            digest = hashlib.sha256(body).hexdigest()
            through.append(_timed(partial(self._exchange, connection, "GET", f"/{digest}")))
            direct.append(_timed(partial(self._get, digest, _SMALL)))
        spent = (self._daemon.tree.cpu_seconds() - began) / count * 1000
        mine, other = (statistics.median(times) * 1000 for times in (through, direct))
        print(
            f"small get: {mine:.2f} ms, direct {other:.2f} ms, {mine - other:+.2f} ms (goal {SMALL_GOAL_MS:+g}); "
            f"CPU of the daemon {spent:.2f} ms a get, {put:.2f} ms an upload", flush=True,
        )  # fmt: skip

    def watch_memory(self, mebibytes: int) -> None:
        """Upload and download one file; print how much memory the daemon's processes took at most."""
        path = self._fresh_file(mebibytes * MIB)
        before = self._daemon.tree.memory()
        with _watching(self._daemon.tree) as up:
            self._upload(path)
        digest = _digest_of(path)
        with _watching(self._daemon.tree) as down:
            self._download(digest, mebibytes * MIB)
        path.unlink()
        print(
            f"memory for {mebibytes} MiB: {before / MIB:.0f} MiB before, at most {up[0] / MIB:.0f} MiB in the upload, "
            f"{down[0] / MIB:.0f} MiB in the download", flush=True,
        )  # fmt: skip

    def _fresh_file(self, size: int) -> Path:
        self._number += 1
        path = self._work / f"body{self._number}"
        block = os.urandom(MIB)
        with path.open("wb") as file:
            for number in range(size // MIB):
                file.write(number.to_bytes(8, "big") + block[8:])
        return path

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=300, blocksize=_PIECE)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
    ) -> bytes:
        connection.request(method, path, body=body, headers={"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise CannotMeasure(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content

    def _upload(self, path: Path) -> None:
        connection = self._connection()
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        with path.open("rb") as file:
            connection.request("POST", "/", body=file, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise CannotMeasure(f"POST /: {answer.status} {content[:300]!r}")

    def _put(self, path: Path) -> None:
        import obstore

        obstore.put(self._store, f"direct/{path.name}", path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def _download(self, digest: str, size: int) -> None:
        connection = self._connection()
        connection.request("GET", f"/{digest}")
        answer = connection.getresponse()
        buffer, left = memoryview(bytearray(_PIECE)), size
        while count := answer.readinto(buffer):
            left -= count
        if answer.status != 200 or left:
            raise CannotMeasure(f"GET: {answer.status}, {left} bytes did not come")

    def _get(self, digest: str, size: int) -> None:
        import obstore

        got = obstore.get(self._store, f"{digest[:2]}/{digest}")
        count = sum(len(piece) for piece in got.stream(min_chunk_size=_PIECE)) if size > _SMALL else len(got.bytes())
        if count != size:
            raise CannotMeasure(f"{size - count} bytes did not come from the bucket")


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _watching(tree: Tree) -> Iterator[list[int]]:
    """Give a list with the most memory that a program takes meanwhile, in bytes."""
    most, over = [tree.memory()], threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLED_EVERY_SECONDS):
            most[0] = max(most[0], tree.memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    try:
        status = main()
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # obstore's threads may abort an interpreter that ends in order
    os._exit(status)
