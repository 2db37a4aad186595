"""transfer.sh's folder, laid out as ``--provider local`` does: what it would serve still is imported, as it says."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.conftest import StartDaemon
from tests.importing.reports import import_, report_of, rows, states

NEVER = "0001-01-01T00:00:00Z"


def upload(root: Path, token: str, name: str, body: bytes, **said: object) -> Path:
    """Leave what transfer.sh leaves of an upload: the file, and what is said of it as Go's encoder writes it."""
    folder = root / token
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    metadata = {
        "ContentType": "text/plain; charset=utf-8", "ContentLength": len(body), "Downloads": 0, "MaxDownloads": -1,
        "MaxDate": NEVER, "DeletionToken": "ZqLS1FhMpHSF", "Encrypted": False, "DecryptedContentType": "",
    } | said  # fmt: skip
    (folder / f"{name}.metadata").write_text(json.dumps(metadata, separators=(",", ":")) + "\n")
    (folder / name).write_bytes(body)
    (folder / name).chmod(0o600)
    return folder / name


def spelled(moment: datetime) -> str:
    """Return a time as Go writes it: nine digits of a second, and the server's zone."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "789+00:00"


def test_type_name_and_end_are_kept(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    end = datetime.now(UTC).replace(microsecond=123_456) + timedelta(days=3)
    upload(source, "eIVZaY6W8J", "photo", b"jpeg", ContentType="image/jpeg")
    upload(source, "ab12cd", "report.pdf", b"pdf", ContentType="application/pdf", MaxDate=spelled(end))
    summary, _ = import_(store, source)
    assert summary["kind"] == "transfer.sh"
    assert states(summary) == {"eIVZaY6W8J/photo": "new", "ab12cd/report.pdf": "new"}
    photo, report = rows(store)[sha256(b"jpeg")], rows(store)[sha256(b"pdf")]
    assert (photo.name, photo.type, photo.expires_at) == ("photo", "image/jpeg", None)
    assert (report.name, report.type) == ("report.pdf", "application/pdf")
    assert report.expires_at == round(end.timestamp() * 1000)


def test_what_is_over_there_is_left_out_and_named(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    upload(source, "a", "expired", b"1", MaxDate="2020-02-03T04:05:06.123456789+01:00")
    upload(source, "b", "used", b"2", MaxDownloads=3, Downloads=3)
    upload(source, "c", "good", b"3", MaxDownloads=3, Downloads=2)
    upload(source, "d", "forgotten", b"4").with_name("forgotten.metadata").unlink()
    summary, _ = import_(store, source)
    report = report_of(summary)
    assert states(summary) == {"a/expired": "skipped", "b/used": "skipped", "c/good": "new", "d/forgotten": "skipped"}
    assert report["a/expired"]["reason"] == "it expired on 2020-02-03"
    assert report["b/used"]["reason"] == "it has been downloaded 3 times, as often as it was to be"
    assert report["c/good"]["reason"] == "its limit of 3 downloads is not kept"
    assert "does not serve it" in report["d/forgotten"]["reason"]
    assert set(rows(store)) == {sha256(b"3")}


def test_an_encrypted_file_stays_as_it_is_and_is_named(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    armoured = b"-----BEGIN PGP MESSAGE-----\n\nwy4ECQMI\n-----END PGP MESSAGE-----"
    upload(source, "a", "secret.pdf", armoured, ContentLength=4, Encrypted=True, DecryptedContentType="application/pdf")
    summary, _ = import_(store, source)
    assert states(summary) == {"a/secret.pdf": "new"}
    assert "gpg --decrypt" in report_of(summary)["a/secret.pdf"]["reason"]
    assert rows(store)[sha256(armoured)].type == "text/plain; charset=utf-8"


def test_uploads_that_broke_off_and_unreadable_metadata_are_failures(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    upload(source, "a", "good", b"good")
    upload(source, "b", "cut", b"half", ContentLength=8)
    upload(source, "c", "packed", b"zzz", Compressed=True)
    upload(source, "d", "torn", b"torn").with_name("torn.metadata").write_text('{"ContentType":"te')
    summary, _ = import_(store, source, status=1)
    assert states(summary) == {"a/good": "new", "b/cut": "failed", "c/packed": "failed", "d/torn": "failed"}
    assert report_of(summary)["b/cut"]["reason"] == "it has 4 bytes instead of 8: its upload broke off"
    assert set(rows(store)) == {sha256(b"good")}


def test_older_versions_say_less(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    path = upload(source, "a", "old.txt", b"old")
    # written by versions before 2023
    said = {"ContentType": "", "Downloads": 0, "MaxDownloads": -1, "MaxDate": NEVER, "DeletionToken": "x"}
    path.with_name("old.txt.metadata").write_text(json.dumps(said))
    summary, _ = import_(store, source)
    assert (summary["kind"], summary["new"]) == ("transfer.sh", 1)
    assert rows(store)[sha256(b"old")].type == "text/plain"


def test_an_upload_that_is_called_like_metadata_is_a_file(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    upload(source, "a", "x", b"x")
    upload(source, "b", "notes.metadata", b"mine")
    summary, _ = import_(store, source)
    assert states(summary) == {"a/x": "new", "b/notes.metadata": "new"}
    assert rows(store)[sha256(b"mine")].name == "notes.metadata"


@pytest.mark.parametrize("name", ["file at the top", "sub/.metadata"])
def test_another_folder_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / name).write_bytes(b'{"MaxDownloads": 1}')
    summary, _ = import_(tmp_path / "store", source)
    assert summary["kind"] == "folder"


@pytest.mark.parametrize(
    "said",
    [
        '{"DeletionToken":"x","MaxDownloads":-1,"Downloads":[1]}',
        '{"DeletionToken":"x","MaxDownloads":null}',
        '{"DeletionToken":"x","MaxDownloads":Infinity}',
        '{"DeletionToken":"x","MaxDownloads":-1,"MaxDate":"9999-99-99"}',
        "[" * 60_000,
    ],
)
def test_one_that_is_told_of_wrongly_keeps_no_other_from_coming(tmp_path: Path, said: str) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    upload(source, "a", "good", b"good")
    upload(source, "b", "bad", b"bad").with_name("bad.metadata").write_text(said)
    summary, _ = import_(store, source, "--from", "transfer.sh", status=1)
    assert states(summary) == {"a/good": "new", "b/bad": "failed"}


def test_an_end_at_the_end_of_all_written_times_is_kept(tmp_path: Path, start_daemon: StartDaemon) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    upload(source, "a", "last", b"last", MaxDate="9999-12-31T23:59:59.9999999Z")
    upload(source, "b", "later", b"later", MaxDate="9999-12-31T23:59:59-10:00")
    import_(store, source)
    daemon = start_daemon("--anonymous", "full", store=store)
    files = httpx.get(f"{daemon.url}/v1/files").json()["files"]
    assert [file["expires_at"][:4] for file in files] == ["9999", "9999"]


def test_what_is_said_anew_counts_and_a_download_does_not(tmp_path: Path) -> None:
    source, store = tmp_path / "transfer", tmp_path / "store"
    soon, late = (datetime.now(UTC) + timedelta(days=days) for days in (3, 30))
    path = upload(source, "a", "x", b"x", MaxDate=spelled(soon))
    import_(store, source)
    before = path.stat()
    said = json.loads(path.with_name("x.metadata").read_text())
    path.with_name("x.metadata").write_text(json.dumps(said | {"Downloads": 7}))
    assert import_(store, source)[0]["unchanged"] == 1
    path.with_name("x.metadata").write_text(json.dumps(said | {"MaxDate": spelled(late)}))
    assert path.stat().st_ctime_ns == before.st_ctime_ns
    assert import_(store, source)[0]["known"] == 1
    assert rows(store)[sha256(b"x")].expires_at == int(late.timestamp() * 1000)
