"""docs/operations.md has the options of the script for systemd, and the times to stop, as they are."""

import re

from tests.documents.pages import ROOT, in_code, read, rows, section

TEXT = read("docs/operations.md")
SCRIPT = (ROOT / "setup_systemd.sh").read_text()


def test_the_options_of_the_script_are_those_it_has() -> None:
    (usage,) = re.findall(r"cat <<'EOF'\n(.*?)\nEOF\n", SCRIPT, re.DOTALL)[:1]
    there_are = set(re.findall(r"--[a-z-]+", " ".join(re.findall(r"^  (-\S.*?)  ", usage, re.MULTILINE))))
    table = rows(section(TEXT, "## As a service of systemd"))
    documented = {word.partition(" ")[0] for row in table for word in in_code(row[0])}
    assert {flag for flag in documented if flag.startswith("--")} == there_are - {"--help"}


def test_the_container_is_given_as_long_to_stop_as_compose_gives_it() -> None:
    (shown,) = re.findall(r"--stop-timeout (\d+)", TEXT)
    (composed,) = re.findall(r"stop_grace_period: (\d+)s", (ROOT / "compose.yaml").read_text())
    (served,) = re.findall(r"^TimeoutStopSec=(\d+)$", SCRIPT, re.MULTILINE)
    assert shown == composed == served
