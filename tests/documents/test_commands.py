"""docs/cli.md and the program have the same commands, options, checks and exit statuses; no page names any others."""

import re
from collections.abc import Iterator

import click
import pytest

from filestored.cli import commands as program
from filestored.client import errors as client_errors
from filestored.doctor.checks import CHECKS
from filestored.settings import describe_all
from tests.documents.pages import PAGES, ROOT, code_lines, in_code, read, rows, section
from tools.paste_help import all_commands

CLI = read("docs/cli.md")
HELP = {"--help", "-h", "--version"}
SETTINGS = {setting.flag for setting in describe_all()}
VARIABLES = {setting.variable for setting in describe_all()}
OF_THE_CLIENT = {"FILESTORED_URL", "FILESTORED_SERVER", "FILESTORED_TOKEN"}
OF_COPIES = {"FILESTORED_FROM_TOKEN", "FILESTORED_TO_TOKEN"}


def options_of(command: click.Command) -> set[str]:
    return {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}


COMMANDS = {context.command_path.partition(" ")[2]: command for command, context in all_commands() if context.parent}
OPTIONS = set().union(*(options_of(command) for command in COMMANDS.values())) | HELP


def test_the_commands_are_those_of_the_program() -> None:
    table = CLI.partition("\n## ")[0]
    named = {name for row in rows(table) for name in in_code(f"{row[0]} {row[1] if 'server add' in row[1] else ''}")}
    named = {re.sub(r" \[.*", "", name) for name in named}
    # a group is told by what is in it
    assert named - {"server"} == COMMANDS.keys() - {"server", "token"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    text = " ".join(code_lines(CLI))
    for flag in options_of(COMMANDS[name]) - SETTINGS:
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), flag


def test_the_tables_of_options_name_those_there_are() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(code_lines(CLI))))
    assert len(named) > 40
    assert named - OPTIONS == set()


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that a page calls, with the options it gives them."""
    for line in code_lines(text):
        for call in re.findall(r"(?:^|[\s(/])filestored ((?:(?![|;&)>#`]).)+)", line):
            # the user and the container are called so, too
            words = f"{call} ".rpartition("filestored ")[2].replace("'", "").replace('"', "").split() or [""]
            name = " ".join(words[:2]) if words[0] in ("token", "server") else words[0]
            if re.fullmatch(r"[a-z][a-z_ -]*", name):
                yield name, [word.partition("=")[0] for word in words if re.match(r"--[a-z]|-[a-z]$", word)]


def test_no_page_calls_what_is_not_there() -> None:
    # that of the bench has tables with filestored at the head of a column; what help.md says is the program's own
    for page in (page for page in PAGES if page.parent.name != "bench" and page.name != "help.md"):
        for name, given in calls(page.read_text()):
            assert name in COMMANDS, f"{page}: {name}"
            assert set(given) <= options_of(COMMANDS[name]) | HELP, f"{page}: {name}"


def test_pages_call_commands_at_all() -> None:
    called = {name for page in PAGES for name, _ in calls(page.read_text())}
    assert len(called & COMMANDS.keys()) > 20


def test_no_page_names_variables_that_mean_nothing() -> None:
    for page in PAGES:
        named = set(re.findall(r"\bFILESTORED_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
        assert named - VARIABLES - OF_THE_CLIENT - OF_COPIES == set(), page


def test_the_checks_of_the_doctor_are_those_of_the_program() -> None:
    (table,) = re.findall(r"(?:^\|.*\n)+", section(CLI, "## `doctor`"), re.MULTILINE)
    assert [row[0].strip("`") for row in rows(table)] == list(CHECKS)


def statuses(error: type[client_errors.ClientError]) -> Iterator[int]:
    yield error.exit_status
    for kind in error.__subclasses__():
        yield from statuses(kind)


def test_the_exit_statuses_are_those_of_the_program() -> None:
    documented = {int(row[0]) for row in rows(section(CLI, "## Exit statuses"))}
    source = (ROOT / "src" / "filestored" / "cli" / "commands.py").read_text()
    (told,) = re.findall(r"return its exit status: (.*)\.", program.main.__doc__ or "")
    ways = {int(number) for number in re.findall(r"\d+", told)}
    assert {int(number) for number in re.findall(r"_fail\(.*, (\d+)\)", source)} <= ways
    of_signals = {129, 143}
    assert documented == ways | set(statuses(client_errors.ClientError)) | of_signals
