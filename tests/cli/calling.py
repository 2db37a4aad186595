"""Calling the client's commands, as a user would."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# who runs the tests in parallel says how wide the terminal is, and it is not that one
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("FILESTORED_", "XDG_")) and name not in ("COLUMNS", "LINES")
}


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    status: int
    output: str
    said: str


def environment(url: str, home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a user whose home is ``home`` and who asks the server at ``url``, if any."""
    named = {"FILESTORED_URL": url} if url else {}
    return {**CLEAN, "HOME": str(home), "no_proxy": "*", **named, **(more or {})}


def command(*arguments: str | Path) -> list[str]:
    """Return the words that run a command."""
    return [sys.executable, "-m", "filestored", *map(str, arguments)]


class Shell:
    """A user in a folder, which is home, too."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"", url: str | None = None
    ) -> Ended:
        """Run a command to its end."""
        ended = subprocess.run(
            command(*arguments), capture_output=True, timeout=100, cwd=self.folder, input=stdin,
            env=environment(self.url if url is None else url, self.folder, env),
        )  # fmt: skip
        return Ended(
            ended.returncode, ended.stdout.decode("utf-8", "surrogateescape"),
            ended.stderr.decode("utf-8", "surrogateescape"),
        )  # fmt: skip

    def done(self, *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> str:
        """Run a command that must do without a word; return what it prints."""
        ended = self.run(*arguments, env=env, stdin=stdin)
        assert (ended.status, ended.said) == (0, "")
        return ended.output

    def begin(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, url: str | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a command and return it while it runs."""
        return subprocess.Popen(
            command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.folder, env=environment(self.url if url is None else url, self.folder, env),
        )  # fmt: skip
