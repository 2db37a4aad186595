"""Tasks that are cancelled: what runs in threads meanwhile disturbs nobody, and nothing is left behind."""

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path

import anyio
import pytest

from filestored import AsyncClient
from tests.conftest import Daemon
from tests.processes import wait_until

MIB = 1 << 20


def _slowly(*_: object) -> None:
    # called in the thread that writes: long enough to be cancelled in between
    time.sleep(0.01)


def _threads() -> int:
    return sum(thread.name == "hash" for thread in threading.enumerate())


def test_a_cancelled_download_writes_into_no_other_file(daemon: Daemon, tmp_path: Path) -> None:
    async def fetch_many() -> None:
        async with AsyncClient(daemon.url, state=None) as files:
            contents = [os.urandom(3 * MIB) for _ in range(8)]
            hashes = [(await files.put(content)).hash for content in contents]
            for turn in range(6):
                doomed = [
                    asyncio.create_task(files.get(digest, tmp_path / f"doomed{turn}-{number}", progress=_slowly))
                    for number, digest in enumerate(hashes)
                ]
                await asyncio.sleep(0.01 * turn)
                for task in doomed:
                    task.cancel()
                targets = [tmp_path / f"kept{turn}-{number}" for number in range(len(hashes))]
                await asyncio.gather(*map(files.get, hashes, targets))
                for target, digest in zip(targets, hashes, strict=True):
                    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
                await asyncio.gather(*doomed, return_exceptions=True)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(fetch_many())
    assert wait_until(lambda: _threads() == 0)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# under trio httpx leaves a generator of its own to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_uploads_leave_nothing(daemon: Daemon, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(40 * MIB))

    async def send_many() -> None:
        async with AsyncClient(daemon.url, state=tmp_path / "state") as files:
            for turn in range(10):
                with anyio.move_on_after(0.02 * turn):
                    await files.put(path, skip=False)
                with anyio.move_on_after(0.02 * turn):
                    await files.put(iter([os.urandom(20 * MIB)]))
            assert (await files.put(path)).size == 40 * MIB

    before = len(os.listdir("/proc/self/fd"))
    anyio.run(send_many, backend=backend)
    assert wait_until(lambda: _threads() == 0)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_stream_that_is_left_is_closed(daemon: Daemon) -> None:
    async def leave() -> None:
        async with AsyncClient(daemon.url, state=None, connections=2) as files:
            digest = (await files.put(os.urandom(20 * MIB))).hash
            for _ in range(5):
                async with files.stream(digest) as stream:
                    async for _piece in stream:
                        break
            assert len(await files.get(digest)) == 20 * MIB

    asyncio.run(leave())
