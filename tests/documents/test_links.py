"""Every address within the documentation leads somewhere: files, headings, and paths that are only named."""

import re
from pathlib import Path

import pytest

from tests.documents.pages import PAGES, ROOT, anchor, in_code, without_blocks

_OF_THE_PROJECT = ("src", "tests", "docs", "deploy", "bench", "requirements", "tools")

BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """Return what can be led to in a page."""
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks(page.read_text()), re.MULTILINE)}


@BY_NAME
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text())):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link and (not target.exists() or (heading and heading not in anchors(target))):
            wrong.append(link)
    assert wrong == []


@BY_NAME
def test_every_path_of_the_project_that_is_named_is_there(page: Path) -> None:
    paths = [
        word for word in in_code(page.read_text()) if re.fullmatch(rf"(?:{'|'.join(_OF_THE_PROJECT)})/[\w./*-]+", word)
    ]
    wrong = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert wrong == []


def test_no_two_headings_of_a_page_are_called_the_same() -> None:
    for page in PAGES:
        headings = re.findall(r"^#+ (.*)$", without_blocks(page.read_text()), re.MULTILINE)
        assert len(headings) == len({anchor(heading) for heading in headings}), page


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\]\((docs/[\w.-]+\.md)", readme))
    for name in tuple(linked):
        linked |= {f"docs/{target}" for target in re.findall(r"\]\(([\w.-]+\.md)", (ROOT / name).read_text())}
    assert {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")} <= linked
