"""The report: what is none is not written into, and what it says is not believed."""

import json
import os
from pathlib import Path

import pytest

from tests.bad_days.consistency import sha256
from tests.care import call
from tests.importing.reports import import_, report_of, rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one file."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"a")
    return tmp_path / "source"


def require_refused(store: Path, source: Path, report: Path, said: str) -> None:
    """Check that an import into a report ends with one line."""
    ended = call(store, "import", str(source), "--report", str(report))
    assert (ended.status, ended.output, ended.errors.count("\n")) == (1, "", 1), ended
    assert said in ended.errors


@pytest.mark.parametrize("text", ["notes", "notes\n", '{"import": "/elsewhere"', "x" * 2_000_000])
def test_another_file_stays_as_it_is(tmp_path: Path, source: Path, text: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(text)
    require_refused(tmp_path / "store", source, notes, "is not a report")
    assert notes.read_text() == text


def test_an_empty_one_and_a_torn_first_line_are_begun_anew(tmp_path: Path, source: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.touch()
    summary, _ = import_(tmp_path / "store", source, "--report", str(report))
    whole = report.read_bytes()
    report.write_bytes(whole[:20])
    summary, _ = import_(tmp_path / "store", source, "--report", str(report))
    assert (summary["known"], list(report_of(summary))) == (1, ["a"])


@pytest.mark.parametrize(
    "line",
    [
        {"state": "new"},
        {"source": 5, "state": "new"},
        {"source": "a", "state": "new", "hash": ["x"]},
        {"source": "a", "state": "new", "size": 1 << 70},
        {"source": "a", "state": "new", "size": "1"},
    ],
)
def test_a_line_that_tells_of_no_item_is_named(tmp_path: Path, source: Path, line: dict[str, object]) -> None:
    report = tmp_path / "report.jsonl"
    import_(tmp_path / "store", source, "--report", str(report))
    with report.open("a") as file:
        file.write(json.dumps(line) + "\n")
    require_refused(tmp_path / "store", source, report, "tells of no item")


@pytest.mark.parametrize("hash_", ["zz", None, "../../etc"])
def test_a_hash_that_is_none_does_not_count_as_imported(tmp_path: Path, source: Path, hash_: str | None) -> None:
    report = tmp_path / "report.jsonl"
    import_(tmp_path / "first", source, "--report", str(report))
    header, line = report.read_text().splitlines()
    report.write_text(header + "\n" + json.dumps(json.loads(line) | {"hash": hash_}) + "\n")
    summary, _ = import_(tmp_path / "second", source, "--report", str(report))
    assert (summary["new"], summary["unchanged"]) == (1, 0)
    assert set(rows(tmp_path / "second")) == {sha256(b"a")}


@pytest.mark.parametrize("kind", ["device", "pipe", "link"])
def test_what_is_no_file_is_refused(tmp_path: Path, source: Path, kind: str) -> None:
    report = tmp_path / "report"
    if kind == "device":
        report = Path("/dev/full")
    elif kind == "pipe":
        os.mkfifo(report)
    else:
        report.symlink_to(tmp_path / "elsewhere")
    require_refused(tmp_path / "store", source, report, f"the report {report} cannot be written")
    assert not (tmp_path / "elsewhere").exists()


def test_one_inside_the_source_is_left_out(tmp_path: Path, source: Path) -> None:
    for _ in range(2):
        summary, _ = import_(tmp_path / "store", source, "--report", str(source / "report.jsonl"))
    assert (summary["unchanged"], summary["skipped"], summary["failed"]) == (1, 1, 0)
    assert report_of(summary)["report.jsonl"]["reason"] == "the report of this import"
    assert set(rows(tmp_path / "store")) == {sha256(b"a")}
