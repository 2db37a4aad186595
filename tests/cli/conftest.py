"""Users of the client's commands."""

from pathlib import Path

import pytest

from tests.cli.calling import Shell
from tests.conftest import StartDaemon


@pytest.fixture
def shell(start_daemon: StartDaemon, tmp_path: Path) -> Shell:
    """A user in an empty folder, with a server of their own that has one worker."""
    folder = tmp_path / "home"
    folder.mkdir()
    return Shell(start_daemon("--workers", "1").url, folder)
