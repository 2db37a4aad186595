"""A folder that is to a user what a checkout is: ``make``, its files, and an environment that is installed already."""

import sys
from pathlib import Path

from tests.documents.pages import ROOT


def make_checkout(folder: Path) -> Path:
    """Make it, with the environment of the tests as its own; ``make install`` then has nothing left to do."""
    folder.mkdir()
    for name in ("Makefile", "main.py", "pyproject.toml", "requirements", "setup_systemd.sh", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    for mark in (".installed", ".dev"):
        (environment / mark).touch()
    return folder
