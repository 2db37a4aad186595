"""filebrowser's folder: the tree that it serves, and at its top what is its own."""

from pathlib import Path

import pytest

from tests.bad_days.consistency import sha256
from tests.importing.reports import import_, report_of, rows, states


def bolt() -> bytes:
    """Return the first two pages of an empty database of Bolt, which holds its magic in each (bbolt, page and meta)."""
    page = bytearray(4096)
    page[8:10] = (0x04).to_bytes(2, "little")
    page[16:24] = (0xED0CDAED).to_bytes(4, "little") + (2).to_bytes(4, "little")
    page[24:28] = (4096).to_bytes(4, "little")
    second = bytearray(page)
    second[0:8] = (1).to_bytes(8, "little")
    return bytes(page + second)


@pytest.mark.parametrize("database", ["filebrowser.db", "database.db"])
def test_its_database_and_settings_are_no_users_files(tmp_path: Path, database: str) -> None:
    source, store = tmp_path / "srv", tmp_path / "store"
    (source / "anna").mkdir(parents=True)
    (source / database).write_bytes(bolt())
    (source / ".filebrowser.json").write_text('{"port": 8080}')
    (source / "anna" / "photo.png").write_bytes(b"png")
    # a user's own, wherever it lies and whatever it is called
    (source / "anna" / "filebrowser.db").write_bytes(bolt() + b"mine")
    (source / "music.db").write_bytes(b"SQLite format 3\0")
    summary, _ = import_(store, source)
    assert summary["kind"] == "filebrowser"
    assert states(summary) == {
        database: "skipped", ".filebrowser.json": "skipped", "anna/photo.png": "new", "anna/filebrowser.db": "new",
        "music.db": "new",
    }  # fmt: skip
    assert "users, shares" in report_of(summary)[database]["reason"]
    assert rows(store)[sha256(b"png")].name == "photo.png"


def test_a_folder_with_a_file_of_that_name_that_is_no_such_database_is_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "filebrowser.db").write_bytes(b"just a text")
    summary, _ = import_(tmp_path / "store", source)
    assert (summary["kind"], summary["new"]) == ("folder", 1)
    # and whoever says so has it as a filebrowser's, whose files all are
    summary, _ = import_(tmp_path / "store", source, "--from", "filebrowser")
    assert (summary["kind"], summary["known"]) == ("filebrowser", 1)
