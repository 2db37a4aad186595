"""``python -m tools.paste_help``: docs/help.md, what every command answers to ``--help``, at 80 columns."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from filestored.cli.commands import filestored

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "help.md"
COLUMNS = 80
MOST_LINES = 45
"""What is longer is folded away, and opened by a click."""

_HEAD = (
    "# What `--help` says\n\n"
    "Written by `make docs` from the program itself, and compared with it by a test.\n"
    "[cli.md](cli.md) says what the commands are for, [configuration.md](configuration.md) explains the settings. "
    "What is long is folded; the settings are the same at `start`, `run`, `restart`, `config` and `doctor`.\n"
)


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield the commands of a group and of the groups in it, each with the context it is called in."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        called = click.Context(command, info_name=name, parent=context)
        yield command, called
        if isinstance(command, click.Group):
            yield from commands(command, called)


def all_commands() -> Iterator[tuple[click.Command, click.Context]]:
    """Yield the program itself, and all its commands."""
    context = click.Context(
        filestored, info_name="filestored", terminal_width=COLUMNS - 2, **filestored.context_settings
    )
    yield filestored, context
    assert isinstance(filestored, click.Group)
    yield from commands(filestored, context)


def section(name: str, printed: str) -> str:
    """Return the section of one command."""
    block = f"```text\n{printed.strip()}\n```\n"
    lines = printed.strip().count("\n") + 1
    if lines > MOST_LINES:
        block = f"<details>\n<summary>{lines} lines</summary>\n\n{block}\n</details>\n"
    return f"\n## `{name}`\n\n{block}"


def page() -> str:
    """Return the page as it should be."""
    sections = [section(context.command_path, command.get_help(context)) for command, context in all_commands()]
    script = ROOT / "setup_systemd.sh"
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    return _HEAD + "".join(sections) + section("./setup_systemd.sh", told)


if __name__ == "__main__":
    PAGE.write_text(page())
