"""docs/original.md: the defaults it names are the program's, and every parameter of the original is there."""

import re
from pathlib import Path

import pytest

from filestored.cli.commands import filestored, main
from filestored.settings import describe

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "original.md").read_text()


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
        setting = describe(now.strip("`-").replace("-", "_"))
        assert default == f"`{setting.default}`", now
        # a default that differs has its reason
        assert (before == default) is bool(re.match("the same(;|$)", why)), now


def test_the_commands_that_are_named_are_there() -> None:
    context = filestored.make_context("filestored", ["status"])
    section = TEXT.partition("## Commands")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(start|stop|restart|get_pid|run|status)\b", " ".join(re.findall(r"`([^`]+)`", section))))
    assert named >= {"start", "stop", "restart", "get_pid"}
    for name in named:
        assert filestored.get_command(context, name) is not None


def test_what_the_program_alone_took_it_still_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], ["--version"], ["-V"]):
        assert main(words) == 0
        assert capsys.readouterr().out
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_script_for_systemd_takes_every_option_of_the_originals() -> None:
    section = TEXT.partition("## Service and container")[2].partition("\n## ")[0]
    told = {
        flag for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for flag in re.findall(r"--[a-z_]+", row)
    }
    assert told == {"--host", "--port", "--log", "--listen", "--buffer", "--service_name", "--default"}
    script = (ROOT / "setup_systemd.sh").read_text()
    assert [flag for flag in told if not re.search(rf"^    [^#]*{flag}\b.*\)", script, re.MULTILINE)] == []
