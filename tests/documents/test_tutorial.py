"""docs/tutorial.md, word for word against a real daemon; only the port is another one. In Russian it is the same."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.documents.checkout import make_checkout
from tests.documents.pages import blocks, in_code, is_left_out, read, section
from tests.s3 import free_ports

ENGLISH = read("docs/tutorial.md")
RUSSIAN = read("docs/tutorial.ru.md")
SHELL = [block for language, block in blocks(ENGLISH) if language == "sh"]


@pytest.mark.timeout(430)
def test_it_works_as_written(tmp_path: Path) -> None:
    for program in ("curl", "make", "openssl"):
        require_program(program)
    checkout = make_checkout(tmp_path / "filestored")
    (port,) = free_ports(1)
    steps = [f"echo '== {number}'\n{block}" for number, block in enumerate(SHELL) if not is_left_out(ENGLISH, block)]
    script = "set -e -o pipefail\n" + "".join(steps).replace("localhost:9000", f"localhost:{port}")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FILESTORED_")}
    try:
        ended = subprocess.run(
            ["bash", "-c", script], cwd=checkout, capture_output=True, text=True, timeout=400,
            env={**clean, "FILESTORED_PORT": str(port), "no_proxy": "*", "XDG_STATE_HOME": str(tmp_path)},
        )  # fmt: skip
    finally:
        with contextlib.suppress(OSError, ValueError):
            held = checkout / "tutorial" / "store" / ".filestored" / "daemon.pid"
            os.kill(int(held.read_text().split()[0]), signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    printed = ended.stdout
    # read from the first daemon, and after the restore and after the upgrade
    assert printed.count("Hello, world!") == 3
    assert [printed.count(f'"status": {status}') for status in (401, 404)] == [1, 1]
    assert '"owner": "me"' in printed
    assert re.search(r"^https?://localhost:\d+/[0-9a-f]{64}/hello\.txt\?expires=\d+&signature=", printed, re.MULTILINE)
    assert re.search(r"^filestored_blobs 1(\.0)?$", printed, re.MULTILINE)
    assert printed.count("verified: 1 blobs, 14 bytes; damaged: 0") == 2
    assert not (checkout / "tutorial").exists()


def test_what_is_not_run_says_why_and_is_at_least_shell() -> None:
    left_out = [block for block in SHELL if is_left_out(ENGLISH, block)]
    assert ENGLISH.count("<!-- not run: ") == len(left_out) < len(SHELL) / 2
    for block in left_out:
        subprocess.run(["bash", "-n", "-c", block], check=True, timeout=60)


def outline(text: str) -> list[str]:
    """Return what both languages have in common: levels of headings, blocks without what they remark, links, code."""
    told = [
        re.sub(r" +#.*", "", part) if part.startswith("```") else part.partition(" ")[0]
        for part in re.findall(r"^(?:#+ |```\w*\n(?:.*\n)*?```$|<!-- not run: |- )", text, re.MULTILINE)
    ]
    links = [link.replace(".ru.md", ".md") for link in re.findall(r"\]\(([^)]+)\)", text)]
    return [*told, *sorted(links), *sorted(in_code(text))]


def test_both_languages_say_the_same() -> None:
    assert outline(RUSSIAN) == outline(ENGLISH)
    assert len(section(ENGLISH, "## 6. Back it up, and get it back").splitlines()) > 20
