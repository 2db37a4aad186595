"""docs/examples.md, word for word against a real daemon; only the port and what differs each time are others."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "examples.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDED = {"curl": ["curl"], "wget": ["wget"], "aria2": ["curl", "aria2c"], "JavaScript, with fetch": ["node"]}


@dataclass(frozen=True)
class Example:
    """A section: what is run, by what, and what it prints."""

    title: str
    language: str
    script: str
    printed: str


def read_examples() -> list[Example]:
    """Return the document's sections. Each has blocks of one language, and last what they print together."""
    examples = []
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        *blocks, (last, printed) = _BLOCK.findall(section)
        (language,) = {language for language, _ in blocks}
        assert last == "text"
        examples.append(Example(section.partition("\n")[0], language, "\n".join(text for _, text in blocks), printed))
    return examples


EXAMPLES = read_examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_does_what_the_document_says(example: Example, start_daemon: StartDaemon, tmp_path: Path) -> None:
    for program in _NEEDED.get(example.title, []):
        require_program(program)
    daemon = start_daemon(store=tmp_path / "store")
    printed = run_example(example, daemon, tmp_path)
    pattern = re.escape(example.printed).replace("…", ".*")
    assert re.fullmatch(pattern, printed), f"printed:\n{printed}\nand not:\n{example.printed}"
    if example.title == "aria2":
        assert wait_until(lambda: daemon.read_log().count(" status=206 ") > 1), "aria2 took it in one piece"


def run_example(example: Example, daemon: Daemon, folder: Path) -> str:
    """Run a section in an empty folder; return what it prints, with the daemon's address as the document has it."""
    host = f"localhost:{daemon.address[1]}"
    script = example.script.replace("localhost:9000", host)
    work = folder / "work"
    work.mkdir()
    ended = subprocess.run(
        _command_for(example.language, script, work), cwd=work, capture_output=True, text=True, timeout=100,
        env=_environment(daemon, folder),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout.replace(host, "localhost:9000")


def _command_for(language: str, script: str, work: Path) -> list[str]:
    if language == "sh":
        return ["bash", "-euo", "pipefail", "-c", script]
    if language == "python":
        return [sys.executable, "-W", "error", "-c", script]
    # node takes a script with import and await at its top only from a file
    module = work / "example.mjs"
    module.write_text(script)
    return ["node", str(module)]


def _environment(daemon: Daemon, folder: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FILESTORED_")}
    return {
        **clean,
        "FILESTORED_URL": f"http://localhost:{daemon.address[1]}",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]]),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "no_proxy": "*",
    }


def test_every_language_and_program_that_is_promised_is_there() -> None:
    titles = " ".join(example.title for example in EXAMPLES)
    for promised in ("filestored", "curl", "wget", "aria2", "httpx", "this library", "JavaScript", "pandas"):
        assert promised in titles
