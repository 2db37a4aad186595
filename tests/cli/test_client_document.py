"""The commands of docs/client.md, word for word against a real daemon; and docs/cli.md has every option."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from filestored.cli.commands import Commands, filestored
from tests.cli.calling import Shell, environment

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ("put", "get", "rm", "ls", "info", "link")


def test_the_commands_of_the_document_work_as_written(shell: Shell) -> None:
    section = (ROOT / "docs" / "client.md").read_text().partition("## Commands\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    program = shell.folder / "bin" / "filestored"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m filestored "$@"\n')
    program.chmod(0o755)
    work = shell.folder / "work"
    (work / "photos" / "empty").mkdir(parents=True)
    (work / "photos" / "1.jpg").write_bytes(os.urandom(3_000_000))
    (work / "photos" / "first").symlink_to("1.jpg")
    (work / "report.pdf").write_bytes(b"a report")
    for name in ("a.csv", "b.csv"):
        (work / name).write_text(name)
    env = environment("", shell.folder) | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    printed = ""
    for block in blocks:
        script = f"set -e -o pipefail\n{block}".replace("http://localhost:9000", shell.url)
        ended = subprocess.run(
            ["bash", "-c", script], cwd=work, capture_output=True, text=True, timeout=100,
            env={**env, "FILESTORED_URL": shell.url},
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
        printed += ended.stdout
    assert re.search(r"^[0-9a-f]{64}  a\.csv\n[0-9a-f]{64}  b\.csv$", printed, re.MULTILINE)
    assert '"name": "report.pdf"' in printed
    assert re.search(r"^http://\S+/report\.pdf\?expires=\d+&signature=", printed, re.MULTILINE)
    assert (work / "copy.pdf").read_bytes() == b"a report"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_the_client_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert isinstance(filestored, Commands)
    command = filestored.get_command(filestored.make_context("filestored", [name, "x"]), name)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert len(options) > 7
    for option in options:
        assert any(re.search(rf"`[^`]*{re.escape(flag)}\b[^`]*`", text) for flag in option.opts), option.opts
