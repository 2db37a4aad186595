"""JavaScript packages for tests, installed on first use, as pinned in ``tests/clients/package-lock.json``."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require_program

_PINNED = Path(__file__).parent / "clients"
_FILES = (".npmrc", "package.json", "package-lock.json")
_FOLDER = Path(__file__).parent.parent / ".cache" / "npm"


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """Return the folder ``node_modules``; leave the test out where node or npm is missing, except in CI."""
    require_program("node")
    return install(require_program("npm"))


def install(npm: str) -> Path:
    """Install the pinned packages unless they are; return the folder they are in."""
    pinned = hashlib.sha256(b"".join((_PINNED / name).read_bytes() for name in _FILES)).hexdigest()
    folder = _FOLDER / pinned[:16]
    folder.mkdir(parents=True, exist_ok=True)
    # one process installs, the others wait for it
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for name in _FILES:
                shutil.copy(_PINNED / name, folder)
            # no script of a package is run: what they would build or fetch is not needed
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
            subprocess.run(command, cwd=folder, check=True, timeout=100)
            (folder / "complete").touch()
    return folder / "node_modules"
