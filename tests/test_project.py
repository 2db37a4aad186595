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


def test_both_readmes_have_the_same_headings_commands_links_and_words_of_the_program() -> None:
    english, russian = ((ROOT / name).read_text() for name in ("README.md", "README.ru.md"))

    def blocks(text: str) -> list[tuple[str, str]]:
        found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        return [(language, re.sub(r"\s+#.*", "", block)) for language, block in found]

    def outline(text: str) -> list[str]:
        """Return the levels of headings, and what kind of lines follow: items, rows of tables, pictures."""
        without = re.sub(r"^```.*?^```$", "```", text, flags=re.MULTILINE | re.DOTALL)
        return re.findall(r"^(?:#+ |- |\||!\[|```)", without, re.MULTILINE)

    def links(text: str) -> list[str]:
        found = re.findall(r"\]\(([^)]+)\)|<(http[^>]+)>", text)
        return sorted(re.sub(r"\.ru\.md$", ".md", path or address) for path, address in found)

    def code(text: str) -> list[str]:
        without = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        return sorted(set(re.findall(r"`([^`\n]+)`", without.replace("ИМЯ", "NAME"))))

    assert blocks(english) == blocks(russian)
    assert outline(english) == outline(russian)
    assert links(english) == links(russian)
    assert code(english) == code(russian)


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
