"""What CHANGELOG.md says of a version, for its release: ``python -m tools.release_notes VERSION``."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def notes_of(version: str, text: str) -> str:
    """Return the section of a version, its heading left out, each item on one line: a release shows each end of a line.

    Raises LookupError where there is none, or it is empty.
    """
    section = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise LookupError(f"CHANGELOG.md says nothing of {version}")
    return re.sub(r"\n +(?=[^\s*-])", " ", section[1]).strip()


def main() -> None:
    """Print the notes of the version that is named, with or without the ``v`` of its tag."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.release_notes VERSION")
    try:
        print(notes_of(sys.argv[1].removeprefix("v"), CHANGELOG.read_text()))
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
