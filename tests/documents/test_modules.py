"""docs/architecture.md names every module, and none that is not there; so does CONTRIBUTING.md with what it names."""

import re

import pytest

from tests.documents.pages import ROOT, blocks, read

SOURCES = ROOT / "src" / "filestored"
_, TREE = blocks(read("docs/architecture.md"))[0]


def parts() -> dict[str, str]:
    """Return what is said of each package, and of the modules beside them under an empty name."""
    told: dict[str, list[str]] = {"": []}
    package = ""
    for line in TREE.splitlines()[1:]:
        opening = re.match(r" {4}(\w+)/ ", line)
        if opening or re.match(r" {4}\S", line):
            package = opening[1] if opening else ""
        told.setdefault(package, []).append(line)
    return {name: "\n".join(lines) for name, lines in told.items()}


PACKAGES = sorted(path.name for path in SOURCES.iterdir() if path.is_dir() and not path.name.startswith("_"))


def test_the_packages_are_those_there_are() -> None:
    assert sorted(name for name in parts() if name) == PACKAGES


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_every_module_is_named_in_its_place(package: str) -> None:
    folder = SOURCES / package
    modules = folder.rglob("*.py") if package else folder.glob("*.py")
    stems = {path.stem for path in modules if "migrations" not in path.parts} - {"__init__", "__main__"}
    words = set(re.findall(r"\w+", parts()[package]))
    assert stems - words == set()


def test_every_module_that_is_named_is_there() -> None:
    named = set(re.findall(r"\b(\w+\.py)\b", TREE))
    assert len(named) > 25
    assert named - {path.name for path in SOURCES.glob("*.py")} == set()
