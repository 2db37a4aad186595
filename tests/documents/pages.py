"""How the tests read the documentation: sections, tables, blocks, and the words that stand in code."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "deploy/**/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
"""All that is written for those who use the program, or change it. The list of changes tells what was, too."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    """Return the text of a page, named from the project's folder."""
    return (ROOT / name).read_text()


def section(text: str, heading: str) -> str:
    """Return what stands between a heading and the next one of its level."""
    level = heading.partition(" ")[0]
    _, found, after = f"\n{text}".partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    return after.partition(f"\n{level} ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the only table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(set(line) <= set("|- ") for line in lines) == 1
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines[2:]]


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the blocks of code, each with its language."""
    return _BLOCK.findall(text)


def without_blocks(text: str) -> str:
    """Return a text without its blocks of code."""
    return _BLOCK.sub("", text)


def in_code(text: str) -> list[str]:
    """Return what stands in code within the lines, outside blocks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of all blocks, long ones joined, and what stands in code elsewhere."""
    for _, block in blocks(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from in_code(text)


def anchor(heading: str) -> str:
    """Return what a heading is called in an address: lower case, hyphens for blanks, no other signs."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def is_left_out(text: str, block: str) -> bool:
    """Tell whether a page says, in a comment before a block, why it is not run."""
    before = text.partition(f"```sh\n{block}```")[0].rstrip().rpartition("\n")[2]
    return re.fullmatch(r"<!-- not run: \w.{10,} -->", before) is not None
