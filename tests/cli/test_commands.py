"""How every command ends: one line, an exit status, never a traceback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from filestored import __version__
from filestored.cli.commands import Commands, filestored
from filestored.settings import describe_all
from tools.paste_help import all_commands

ROOT = Path(__file__).parent.parent.parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}


def _call(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run the command; return exit status, standard output and standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", *arguments],
        capture_output=True, text=True, timeout=60, env={**CLEAN, **(env or {})}, cwd=cwd,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--prot", "1"], "--port"),
        (["strat"], "'start'"),
        (["run", "--port"], "--port"),
        (["run", "--port", "99999"], "--port 99999: it must be a whole number from 0 to 65535"),
        (["run", "--config", "/no/such/file"], "--config /no/such/file: No such file"),
        (["stop", "extra"], "extra"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_usage_mistake_is_one_line_and_exit_status_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    status, output, errors = _call(*arguments, cwd=tmp_path)
    assert (status, output) == (2, "")
    assert re.fullmatch(r"filestored: [^\n]+\n", errors)
    assert said in errors
    assert list(tmp_path.iterdir()) == []


def test_no_command_shows_the_help_and_is_exit_status_2() -> None:
    status, output, errors = _call()
    assert (status, output) == (2, "")
    assert "get_pid" in errors


def test_a_folder_that_is_not_a_store_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for command in ("run", "start"):
        status, output, errors = _call(command, "--port", "0", "--store", str(tmp_path))
        assert (status, output) == (1, "")
        assert re.fullmatch(r"filestored: [^\n]*neither empty nor a store[^\n]*\n", errors)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_the_version_is_the_packages() -> None:
    assert _call("--version") == (0, f"filestored {__version__}\n", "")


def test_the_help_of_run_shows_every_setting_with_its_default_and_variable() -> None:
    status, output, _ = _call("run", "--help")
    assert status == 0
    words = " ".join(output.split())
    for setting in describe_all():
        assert f"{setting.flag} {setting.kind.metavar}" in words
        assert f"[default: {setting.default}; {setting.variable}]" in words


def test_every_command_is_listed_documented_and_there() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert isinstance(filestored, Commands)
    context = filestored.make_context("filestored", ["config"])
    names = filestored.list_commands(context)
    assert "get_pid" in names
    for name in names:
        command = filestored.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert f"`{name}`" in text


def test_listing_the_commands_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom filestored.cli.commands import main\nmain(['--help'])\n"
        "print(*(name for name in ('pydantic', 'granian', 'loguru', 'sqlalchemy', 'asyncio') if name in sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Commands:" in output
    assert output.splitlines()[-1] == ""


def test_asking_for_the_daemon_imports_no_server() -> None:
    code = (
        "import sys\nfrom filestored.cli.commands import main\nmain(['status', '--store', '/no/such/store'])\n"
        "print(*(name for name in ('granian', 'sqlalchemy', 'alembic') if name in sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.splitlines() == ["not running on /no/such/store", ""]


def test_config_shows_value_and_origin_of_every_setting(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('max-uploads = "none"\n')
    env = {"FILESTORED_LISTEN": "7", "FILESTORED_CONFIG": str(file)}
    status, output, errors = _call("config", "--port", "1", env=env)
    assert (status, errors) == (0, "")
    rows = [re.split(r" {2,}", line) for line in output.splitlines()]
    assert [row[0] for row in rows] == [setting.name.replace("_", "-") for setting in describe_all()]
    assert ["port", "1", "flag"] in rows
    assert ["listen", "7", "variable FILESTORED_LISTEN"] in rows
    assert ["max-uploads", "none", f"file {file}"] in rows
    assert ["host", "0.0.0.0", "default"] in rows


def test_config_as_json_has_numbers_for_programs() -> None:
    status, output, _ = _call("config", "--json", "--buffer", "1MiB", "--send-timeout", "2m")
    values = json.loads(output)
    assert status == 0
    assert values["buffer"] == {"value": 1 << 20, "origin": "flag"}
    assert values["send_timeout"] == {"value": 120.0, "origin": "flag"}
    assert values["max_upload_size"] == {"value": None, "origin": "default"}


def test_an_unknown_variable_is_pointed_out() -> None:
    status, _, errors = _call("config", env={"FILESTORED_PROT": "1"})
    assert status == 0
    assert re.fullmatch(r"filestored: [^\n]*FILESTORED_PROT[^\n]*FILESTORED_PORT\?\n", errors)


def test_nobody_reading_the_output_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "config"], stdout=writer, stderr=subprocess.PIPE, env=CLEAN, timeout=60
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_main_py_is_the_same_program_from_any_folder(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--version"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, f"filestored {__version__}\n")


def test_main_py_without_the_libraries_says_what_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "main.py"
    copy.write_bytes((ROOT / "main.py").read_bytes())
    ended = subprocess.run([sys.executable, "-S", "-E", str(copy)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "filestored: run `make install` first\n")


def test_the_help_shows_a_default_of_every_option_that_takes_a_value() -> None:
    lacking = []
    for command, context in all_commands():
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag or option.required:
                continue
            told = option.get_help_record(context)
            if told is None or not re.search(r"\[default: [^;\]]", told[1]):
                lacking.append(f"{context.command_path} {option.opts[0]}")
    assert lacking == []


def test_a_settings_file_that_names_another_is_told_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('config = "x"\n')
    told = f"filestored: {file}: there is no setting config in a settings file: it cannot name another one\n"
    assert _call("config", "--config", str(file)) == (2, "", told)
    file.write_text('confi = "x"\n')
    assert "did you mean config" not in _call("config", "--config", str(file))[2]


def test_words_that_are_no_text_are_refused_like_other_wrong_ones(tmp_path: Path) -> None:
    word = os.fsdecode(b"\xff")
    store = ("--store", str(tmp_path / "store"))
    assert _call("token", "create", "anna", "--permissions", "read", *store)[0] == 0
    refusals = [_call("token", "create", word, "--permissions", "read", *store), _call("token", "revoke", word, *store)]
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == 2
    assert re.fullmatch(r"filestored: a token cannot be called [^\n]+\n", refusals[0][2])
    status, output, said = _call("link", "0" * 64, "--base", f"http://{word}", *store)
    assert (status, output) == (2, "")
    assert re.fullmatch(r"filestored: --base http://\\udcff: [^\n]+\n", said)
