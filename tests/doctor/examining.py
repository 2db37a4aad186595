"""Having ``filestored doctor`` examine something, and looking up what it said."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from filestored.cli.doctor import find_situation
from filestored.doctor.checks import CHECKS

# what an address has that is signed
_NEVER_SHOWN = re.compile("X-Amz-|Signature|Credential=")

NOBODY = 65534

ROOT = Path(__file__).parent.parent.parent


class Told:
    """What the doctor said of each thing it looked at."""

    def __init__(self, status: int, findings: list[dict[str, Any]]) -> None:
        self.status = status
        self.findings = findings

    def of(self, check: str, state: str) -> dict[str, Any]:
        """Return what a check said that is in this state."""
        found = [each for each in self.findings if each["check"] == check]
        (one,) = [each for each in found if each["state"] == state] or pytest.fail(f"{check} is not {state}: {found}")
        return one

    def says(self, check: str, state: str, part: str) -> dict[str, Any]:
        """Return what a check said that is in this state, and in whose sentence a part stands."""
        found = [each for each in self.findings if each["check"] == check]
        for each in found:
            if each["state"] == state and part in each["found"]:
                return each
        pytest.fail(f"{check} does not say {part!r} as {state}: {found}")

    def faults(self) -> set[str]:
        """Return the checks that found something to be mended."""
        return {each["check"] for each in self.findings if each["state"] == "fault"}


def doctor(store: Path, *flags: str, env: dict[str, str] | None = None) -> Told:
    """Have a store on disk examined, as for a daemon on a port that is free."""
    return examine("--store", str(store), *(flags or ("--port", "0")), env=env)


def examine(*flags: str, env: dict[str, str] | None = None) -> Told:
    """Have what flags and variables name examined."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "doctor", "--json", *flags],
        capture_output=True, text=True, timeout=100, env={**clean, **(env or {})},
    )  # fmt: skip
    told = json.loads(ended.stdout)
    assert "Traceback" not in ended.stderr
    assert told["well"] is (ended.returncode == 0), ended.stderr
    for each in told["findings"]:
        assert each["found"]
        assert (each["mend"] is None) is (each["state"] in ("good", "skipped"))
    assert not _NEVER_SHOWN.search(ended.stdout + ended.stderr)
    return Told(ended.returncode, told["findings"])


def look(check: str, settings: dict[str, str], env: dict[str, str] | None = None) -> Told:
    """Have one check look at what these settings, flags by their fields, and variables name: without a process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("FILESTORED_")]:
            patch.delenv(name)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        found = list(CHECKS[check](find_situation({"port": "0", **settings})))
    findings = [{"check": check, "state": each.state.value, "found": each.found, "mend": each.mend} for each in found]
    assert not _NEVER_SHOWN.search(json.dumps(findings))
    return Told(0, findings)


def look_at(check: str, store: Path, *flags: str, env: dict[str, str] | None = None) -> Told:
    """Have one check look at a store on disk; flags and their values in turn, as on the command line."""
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    return look(check, {"store": str(store), **dict(zip(names, flags[1::2], strict=True))}, env)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without rights for a while; only root can."""
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
