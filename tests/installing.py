"""Clean virtual environments with this project's wheel, an extra or none, and the locked libraries."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def needed_by(*extras: str) -> set[str]:
    """Return the names of all distributions that the project needs with these extras, itself left out."""
    found: set[str] = set()
    waiting = list(_needs("filestored", extras))
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            waiting += _needs(name, requirement.extras)
    return found


def _needs(name: str, extras: tuple[str, ...] | set[str]) -> Iterator[Requirement]:
    for line in requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel as a user's pip would, in a folder."""
    _pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("filestored-*.whl")
    return wheel


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """Install the wheel with extras into an environment of its own; return the folder of its commands.

    pip takes nothing but what is listed with its hash, so it fails where the lock and what the wheel asks for differ.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    listed = folder / "requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wanted = f"filestored[{','.join(extras)}] @ {wheel.as_uri()} --hash=sha256:{digest}"
    listed.write_text("\n".join([wanted, *locked(needed_by(*extras))]) + "\n")
    _pip("--python", str(folder / "bin" / "python"), "install", "--quiet", "--require-hashes", "-r", str(listed))
    return folder / "bin"


def locked(names: set[str]) -> list[str]:
    """Return what the lock says of these distributions, with their hashes."""
    text = (ROOT / "requirements" / "run.txt").read_text()
    entries = {
        str(canonicalize_name(entry.partition("==")[0])): entry
        for entry in re.split(r"\n(?=[\w.-]+==)", text.strip())
        if "==" in entry
    }
    return [entries[name] for name in sorted(names)]


def _pip(*words: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr[-2000:]


def installed_in(commands: Path) -> set[str]:
    """Return the names of the distributions in an environment."""
    code = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    printed = subprocess.run([commands / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    return {canonicalize_name(name) for name in printed.stdout.split()}
