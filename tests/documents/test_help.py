"""docs/help.md is what the program says of itself."""

import os
import subprocess
import sys

import pytest

from tests.documents.pages import read
from tools.paste_help import COLUMNS, all_commands, page


def test_the_page_is_what_the_program_says() -> None:
    assert read("docs/help.md") == page(), "write it anew: make docs"


def test_every_command_is_on_it() -> None:
    text = read("docs/help.md")
    names = [context.command_path for _, context in all_commands()]
    assert {"filestored", "filestored run", "filestored token create", "filestored server default"} <= set(names)
    assert [name for name in names if f"\n## `{name}`\n" not in text] == []


@pytest.mark.parametrize("words", [[], ["run"], ["token", "create"], ["put"]], ids=" ".join)
def test_it_is_what_a_terminal_of_the_usual_width_shows(words: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "filestored", *words, "--help"], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": str(COLUMNS)},
    ).stdout  # fmt: skip
    shown = shown.replace("Usage: python -m filestored", "Usage: filestored")
    assert f"```text\n{shown.strip()}\n```" in read("docs/help.md")
