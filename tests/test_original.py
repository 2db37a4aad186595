"""docs/original.md: the defaults it names are the program's, and every parameter of the original is there."""

import re
from pathlib import Path

from filestored.cli.commands import filestored
from filestored.settings import describe

TEXT = (Path(__file__).parent.parent / "docs" / "original.md").read_text()


def rows() -> list[list[str]]:
    """Return the table of parameters."""
    section = TEXT.partition("## Parameters")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_parameter_of_the_original_is_told() -> None:
    assert [row[0] for row in rows() if row[0].startswith("`")] == [
        "`--host`", "`--port`", "`--log`", "`--listen`", "`--buffer`",
    ]  # fmt: skip


def test_the_defaults_are_the_programs() -> None:
    for _, before, now, default, why in rows():
        setting = describe(now.strip("`-"))
        assert default == f"`{setting.default}`", now
        # a default that differs has its reason
        assert (before == default) is bool(re.match("the same(;|$)", why)), now


def test_the_commands_that_are_named_are_there() -> None:
    context = filestored.make_context("filestored", ["status"])
    section = TEXT.partition("## Commands")[2].partition("\n## ")[0]
    for name in re.findall(r"`(?:main\.py )?(start|stop|restart|get_pid|run|status)`", section):
        assert filestored.get_command(context, name) is not None
