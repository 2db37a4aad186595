"""Version, CHANGELOG.md and the notes of a release agree."""

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from filestored import __version__
from tools.release_notes import notes_of

ROOT = Path(__file__).parent.parent
CHANGES = (ROOT / "CHANGELOG.md").read_text()
HEADINGS = re.findall(r"^## (.*)$", CHANGES, re.MULTILINE)


def notes(version: str) -> subprocess.CompletedProcess[str]:
    """Ask for them as the workflow does."""
    words = [sys.executable, "-m", "tools.release_notes", version]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_what_is_not_released_comes_first_and_then_versions_from_the_newest_on() -> None:
    assert HEADINGS[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in HEADINGS[1:]]
    assert all(released), HEADINGS
    versions = [tuple(map(int, each.groups()[:3])) for each in released if each]
    dates = [date.fromisoformat(each[4]) for each in released if each]
    assert versions == sorted(set(versions), reverse=True)
    assert dates == sorted(dates, reverse=True)


def test_the_program_is_of_the_newest_version() -> None:
    """Before the first one is released it is of one that nothing is promised of."""
    if len(HEADINGS) > 1:
        assert HEADINGS[1].startswith(f"[{__version__}] - ")
        assert notes(f"v{__version__}").stdout.strip() == notes_of(__version__, CHANGES)
    else:
        assert __version__.startswith("0.")


def test_the_notes_are_all_that_is_said_of_a_version_and_no_more() -> None:
    body = CHANGES.partition("## [Unreleased]\n")[2].partition("\n## ")[0]
    released = CHANGES.replace("## [Unreleased]\n", "## [Unreleased]\n\n## [7.8.9] - 2030-01-02\n", 1)
    if body.strip():
        said = notes_of("7.8.9", released)
        assert said.split() == body.split()
        assert said.count("\n- ") == body.count("\n- ")
    newer = "## [1.1.0] - 2030-01-02\n\n### Added\n\n- One,\n  and more.\n- Two.\n"
    old = "## [1.0.0] - 2029-01-02\n\n- Old.\n"
    older = f"## [Unreleased]\n\n{newer}\n{old}"
    assert notes_of("1.1.0", older) == "### Added\n\n- One, and more.\n- Two."
    assert notes_of("1.0.0", older) == "- Old."
    for version in ("Unreleased", "1.0", "1.1.1", "1.1.0]"):
        with pytest.raises(LookupError):
            notes_of(version, older)


def test_a_version_is_a_word_and_never_a_command() -> None:
    words = ["make", "--dry-run", "--silent", "notes", "VERSION=v1;id"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0
    assert "tools.release_notes" in told.stdout
    assert ";id" not in told.stdout


def test_a_version_that_nothing_is_said_of_is_one_line() -> None:
    ended = notes("v99.0.0")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "CHANGELOG.md says nothing of 99.0.0\n")
