"""A folder on a disk, and a store there."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Daemon
from tests.doctor.examining import ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a disk: that of the tests may be in memory."""
    made = ROOT / ".cache" / f"doctor-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def stopped(folder: Path) -> Path:
    """A store with one file, whose daemon has ended."""
    daemon = Daemon(folder / "store", "--workers", "1")
    try:
        daemon.start()
        httpx.post(daemon.url, content=b"Hello, world!").raise_for_status()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return daemon.store
