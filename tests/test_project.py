"""The project's own promises: pinned libraries, no addresses of registries, one list of dependencies."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _lines(name: str) -> set[str]:
    return {line for line in (ROOT / "requirements" / name).read_text().splitlines() if not line.startswith("#")}


def test_the_lock_is_made_from_the_projects_dependencies() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {*PROJECT["project"]["dependencies"], *itertools.chain.from_iterable(extras.values())} - set(extras["all"])
    assert _lines("run.in") == wanted | {"hatchling>=1.27", "editables>=0.5"}
    assert set(PROJECT["dependency-groups"]["dev"]) == _lines("dev.in")


def test_the_lock_has_hashes_and_no_addresses() -> None:
    for name in ("run.txt", "dev.txt"):
        text = (ROOT / "requirements" / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
        assert len(pinned) > 5
        assert text.count("--hash=sha256:") >= len(pinned)


def test_the_lock_of_the_tests_javascript_packages_has_hashes_and_no_addresses() -> None:
    wanted = json.loads((ROOT / "tests" / "clients" / "package.json").read_text())["dependencies"]
    packages = json.loads((ROOT / "tests" / "clients" / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == wanted
    assert all(packages[f"node_modules/{name}"]["version"] == version for name, version in wanted.items())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())


def test_both_readmes_show_the_same_commands_under_as_many_headings() -> None:
    english, russian = ((ROOT / name).read_text() for name in ("README.md", "README.ru.md"))

    def blocks(text: str) -> list[str]:
        return [
            re.sub(r"\s+#.*", "", block) for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        ]

    assert blocks(english) == blocks(russian)
    assert len(re.findall(r"^#+ ", english, re.MULTILINE)) == len(re.findall(r"^#+ ", russian, re.MULTILINE))


def test_nothing_outside_the_catalogue_knows_which_databases_there_are() -> None:
    sources = ROOT / "src" / "filestored"
    # these have files of their own that have nothing to do with the catalogue
    allowed = {"copying/ledger.py", "importing/report.py"}
    knowing = {
        path.relative_to(sources).as_posix()
        for path in sources.rglob("*.py")
        if re.search(r"^\s*(import|from) (sqlite3|psycopg|sqlalchemy|alembic)\b", path.read_text(), re.MULTILINE)
    }
    assert {path for path in knowing if not path.startswith("catalogue/")} == allowed


def test_imports_point_one_way() -> None:
    subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
