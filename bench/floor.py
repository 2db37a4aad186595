"""What one process gets out of the disk when every small file must survive a power cut."""

import os
import time
from pathlib import Path

from bench.figures import Figure
from bench.samples import SMALL

_FOLDERS = 256


class DurableLoop:
    """Create, write, fdatasync, rename, fsync of the folder: one file after the other, as a careful program does.

    The folders are those of a store, ``00`` to ``ff``, and are there before the clock starts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        for number in range(_FOLDERS):
            (folder / f"{number:02x}").mkdir(parents=True)

    def run(self, seconds: float) -> Figure:
        """Store files for some seconds; the figure's value is files a second."""
        body = os.urandom(SMALL)
        before, began = self._count, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            self._store(body)
        stored = self._count - before
        return Figure(value=stored / passed, requests=stored, seconds=passed)

    def _store(self, body: bytes) -> None:
        self._count += 1
        staged = self._folder / f"staged-{self._count}"
        target = self._folder / f"{self._count % _FOLDERS:02x}"
        file = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(file, body)
        os.fdatasync(file)
        os.close(file)
        staged.rename(target / f"{self._count}")
        folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
