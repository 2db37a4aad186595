"""``filestored doctor``: each thing that can be wrong is made wrong, found, and told what mends it."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from filestored.doctor import checks
from filestored.doctor.certificate import good_until
from filestored.doctor.disk import filesystem_of, measure_flush
from filestored.doctor.findings import Finding, Situation, State
from filestored.settings import load
from tests.conftest import Daemon, StartDaemon
from tests.postgres import Database
from tests.processes import worker_pids

ROOT = Path(__file__).parent.parent


class Told:
    """What the doctor said of each thing it looked at."""

    def __init__(self, status: int, findings: list[dict[str, Any]]) -> None:
        self.status = status
        self.findings = findings

    def of(self, check: str, state: str) -> dict[str, Any]:
        """Return what a check said that is in this state."""
        found = [each for each in self.findings if each["check"] == check]
        (one,) = [each for each in found if each["state"] == state] or pytest.fail(f"{check} is not {state}: {found}")
        return one

    def faults(self) -> set[str]:
        """Return the checks that found something to be mended."""
        return {each["check"] for each in self.findings if each["state"] == "fault"}


def doctor(store: Path, *flags: str, env: dict[str, str] | None = None) -> Told:
    """Have a store examined, as for a daemon on a port that is free."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "doctor", "--json", "--store", str(store), *(flags or ("--port", "0"))],
        capture_output=True, text=True, timeout=100, env={**clean, **(env or {})},
    )  # fmt: skip
    told = json.loads(ended.stdout)
    assert told["well"] is (ended.returncode == 0), ended.stderr
    for each in told["findings"]:
        assert each["found"]
        assert (each["mend"] is None) is (each["state"] in ("good", "skipped"))
    return Told(ended.returncode, told["findings"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a disk: that of the tests may be in memory."""
    made = ROOT / ".cache" / f"doctor-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def stopped(folder: Path) -> Path:
    """A store with one file, whose daemon has ended."""
    daemon = Daemon(folder / "store", "--workers", "1")
    try:
        daemon.start()
        httpx.post(daemon.url, content=b"Hello, world!").raise_for_status()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return daemon.store


def test_where_all_is_well_it_says_so(start_daemon: StartDaemon, folder: Path) -> None:
    daemon = start_daemon("--workers", "1", store=folder / "store")
    told = doctor(daemon.store)
    assert (told.status, told.faults()) == (0, set())
    assert {each["check"] for each in told.findings} == checks.CHECKS.keys()
    assert told.of("folder", "good")["found"] == f"{daemon.store} is a store, its files named by sha256"
    assert told.of("daemon", "good")["found"] == f"process {daemon.pid} accepts requests at {daemon.url}"
    assert "0 files" in told.of("catalogue", "good")["found"]
    assert daemon.stop() == 0


def test_it_leaves_no_trace(folder: Path) -> None:
    told = doctor(folder / "new" / "store")
    assert (told.status, told.faults()) == (0, set())
    assert "the first start makes it" in told.of("folder", "good")["found"]
    assert list(folder.iterdir()) == []
    (folder / "empty").mkdir()
    assert doctor(folder / "empty").status == 0
    assert list((folder / "empty").iterdir()) == []


def test_people_read_sentences(folder: Path) -> None:
    (folder / "thesis.txt").write_text("mine")
    ended = subprocess.run(
        [sys.executable, "-m", "filestored", "doctor", "--store", str(folder)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert f"FAULT    folder       {folder} is neither empty nor a store" in ended.stdout
    assert "→ name another folder with --store" in ended.stdout


def test_a_folder_that_would_be_refused(folder: Path) -> None:
    (folder / "thesis.txt").write_text("mine")
    assert "neither empty nor a store" in doctor(folder).of("folder", "fault")["found"]
    (folder / "file").write_text("")
    assert "is not a folder" in doctor(folder / "file").of("folder", "fault")["found"]


@pytest.mark.parametrize(
    ("mark", "found"), [("{", "is damaged"), (json.dumps({"layout": 99, "algorithms": ["sha256"]}), "newer version")]
)
def test_a_mark_that_cannot_be_read(stopped: Path, mark: str, found: str) -> None:
    (stopped / ".filestored/format.json").write_text(mark)
    assert found in doctor(stopped).of("folder", "fault")["found"]


def test_a_store_that_others_may_look_into(stopped: Path) -> None:
    (stopped / ".filestored").chmod(0o755)
    told = doctor(stopped)
    assert told.status == 0
    assert told.of("permissions", "warning")["mend"] == f"chmod 700 {stopped}/.filestored"


def test_a_store_that_is_not_ones_own(stopped: Path) -> None:
    if os.geteuid() == 0:
        os.chown(stopped / ".filestored", 12345, 12345)
        found = "belongs to user 12345"
    else:
        (stopped / ".filestored").chmod(0o500)
        found = "cannot be written to"
    try:
        told = doctor(stopped)
    finally:
        (stopped / ".filestored").chmod(0o700)
    assert found in told.of("permissions", "fault")["found"]
    assert told.status == 1
    if os.geteuid() == 0:
        # as root SQLite would make files that the daemon could not write to
        told.of("catalogue", "skipped")


def test_a_store_in_memory() -> None:
    place = Path("/dev/shm")
    if filesystem_of(place) != "tmpfs":
        pytest.skip("this system has no file system in memory there")
    assert "is in memory (tmpfs)" in doctor(place / "none-of-that-name").of("disk", "fault")["found"]


def test_flushes_that_reach_no_disk(folder: Path) -> None:
    told = doctor(folder, env={"LD_PRELOAD": "libeatmydata.so"})
    assert told.of("flushing", "fault")["mend"] == "start without LD_PRELOAD"
    assert (
        "--durability relaxed"
        in doctor(folder, "--durability", "relaxed", "--port", "0").of("flushing", "warning")["found"]
    )
    assert 0 < measure_flush(folder) < 60
    assert list(folder.iterdir()) == []


def test_a_disk_that_has_no_room(folder: Path) -> None:
    told = doctor(folder, "--min-free-space", "1000TiB", "--port", "0")
    assert "they are answered 507" in told.of("space", "fault")["found"]


def test_a_clock_that_has_gone_back(stopped: Path) -> None:
    ahead = time.time() + 86400
    os.utime(stopped / ".filestored/format.json", (ahead, ahead))
    assert "set the clock right" in doctor(stopped).of("clock", "fault")["mend"]


def test_a_catalogue_that_is_lost(stopped: Path) -> None:
    for path in (stopped / ".filestored").glob("catalogue.sqlite3*"):
        path.unlink()
    assert "filestored reindex" in doctor(stopped).of("catalogue", "fault")["mend"]
    assert not (stopped / ".filestored/catalogue.sqlite3").exists()


def test_a_catalogue_that_is_damaged(stopped: Path) -> None:
    catalogue = stopped / ".filestored/catalogue.sqlite3"
    catalogue.write_bytes(b"no database at all" * 500)
    told = doctor(stopped)
    assert "cannot be used" in told.of("catalogue", "fault")["found"]
    assert "backup" in told.of("catalogue", "fault")["mend"]


@pytest.mark.parametrize(
    ("revision", "state", "found"),
    [("9999", "fault", "newer version"), ("0003", "good", "the next start brings it up to date")],
)
def test_a_catalogue_of_another_version(stopped: Path, revision: str, state: str, found: str) -> None:
    with closing(sqlite3.connect(stopped / ".filestored/catalogue.sqlite3")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    assert found in doctor(stopped).of("catalogue", state)["found"]


def test_a_database_that_cannot_be_reached(stopped: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret@127.0.0.1:{closed.getsockname()[1]}/files"
        told = doctor(stopped, "--catalogue", url, "--port", "0")
    assert "cannot be used" in told.of("catalogue", "fault")["found"]
    assert "secret" not in json.dumps(told.findings)


def test_a_database_without_tables_and_one_of_another_store(stopped: Path, database: Database) -> None:
    flags = ("--catalogue", database.url, "--port", "0")
    assert "no tables yet" in doctor(stopped, *flags).of("catalogue", "good")["found"]
    other = Daemon(stopped.parent / "other", "--workers", "1", "--catalogue", database.url)
    try:
        other.start()
        assert other.stop() == 0
    finally:
        other.kill()
    assert "belongs to another store" in doctor(stopped, *flags).of("catalogue", "fault")["found"]
    assert "can be read and written" in doctor(other.store, *flags).of("catalogue", "good")["found"]


def test_a_port_that_another_program_has(stopped: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = doctor(stopped, "--host", "127.0.0.1", "--port", str(port))
    assert told.of("port", "fault")["found"] == f"port {port} on 127.0.0.1 is in use by another program"


@pytest.mark.parametrize(
    ("networks", "state"),
    [
        ("0.0.0.0/0", "fault"), ("::/0", "fault"), ("10.0.0.0/7", "fault"), ("8.8.8.8", "warning"),
        ("127.0.0.1", "good"), ("10.1.0.0/16,fd00::/48", "good"),
    ],
)  # fmt: skip
def test_proxies_that_are_believed(folder: Path, networks: str, state: str) -> None:
    doctor(folder, "--trusted-proxy", networks, "--port", "0").of("proxies", state)


def test_who_reaches_what(stopped: Path) -> None:
    """The daemon of this store listened on this machine alone, which is what counts where nothing else is said."""
    outside = ("--host", "0.0.0.0", "--port", "0")
    doctor(stopped, *outside).of("access", "good")
    assert "--anonymous full" in doctor(stopped, "--anonymous", "full", *outside).of("access", "warning")["found"]
    doctor(stopped, "--anonymous", "full", "--port", "0").of("access", "good")
    made = [sys.executable, "-m", "filestored", "token", "create", "me", "--permissions", "read"]
    subprocess.run([*made, "--store", str(stopped)], check=True, capture_output=True, timeout=60)
    assert "in the clear" in doctor(stopped, *outside).of("access", "warning")["found"]
    doctor(stopped, "--trusted-proxy", "10.0.0.1", *outside).of("access", "good")
    doctor(stopped).of("access", "good")


def certificate(folder: Path, begins: timedelta, ends: timedelta) -> tuple[str, ...]:
    """Make a certificate that is good from and until then, counted from now; return the flags that name it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "files.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now + begins).not_valid_after(now + ends)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(encoded)
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"), "--port", "0")


@pytest.mark.parametrize(
    ("begins", "ends", "state", "found"),
    [
        (-1, 90, "good", "is good for 90 more days"), (-80, 10, "warning", "expires in 10.0 days"),
        (-90, -1, "fault", "has expired"), (1, 90, "fault", "is not good yet"),
    ],
)  # fmt: skip
def test_a_certificate_and_its_time(folder: Path, begins: int, ends: int, state: str, found: str) -> None:
    flags = certificate(folder, timedelta(days=begins), timedelta(days=ends, minutes=5))
    assert found in doctor(folder / "store", *flags).of("certificate", state)["found"]


def test_a_certificate_that_cannot_be_used(folder: Path) -> None:
    flags = certificate(folder, timedelta(days=-1), timedelta(days=90))
    assert good_until(folder / "cert.pem", folder / "key.pem") > time.time()
    (folder / "key.pem").chmod(0o644)
    assert "chmod o-r" in doctor(folder / "store", *flags).of("certificate", "warning")["mend"]
    (folder / "cert.pem").write_text("nothing of the kind")
    assert "cannot be used" in doctor(folder / "store", *flags).of("certificate", "fault")["found"]
    with pytest.raises(ssl.SSLError):
        good_until(folder / "cert.pem", folder / "key.pem")


def test_a_daemon_that_answers_nobody(start_daemon: StartDaemon, folder: Path) -> None:
    daemon = start_daemon("--workers", "1", store=folder / "store")
    (worker,) = worker_pids(daemon.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        told = doctor(daemon.store)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert f"process {daemon.pid} does not answer" in told.of("daemon", "fault")["found"]
    assert told.status == 1


def test_variables_that_are_no_settings(folder: Path) -> None:
    told = doctor(folder, env={"FILESTORED_PROT": "1"})
    assert "did you mean FILESTORED_PORT?" in told.of("settings", "warning")["found"]
    assert told.status == 0


def test_the_settings_of_the_last_start_are_what_is_examined(start_daemon: StartDaemon, folder: Path) -> None:
    store = folder / "store"
    daemon = start_daemon("--workers", "1", "--trusted-proxy", "0.0.0.0/0", store=store)
    assert daemon.stop() == 0
    assert doctor(store).faults() == {"proxies"}
    assert doctor(store, "--trusted-proxy", "127.0.0.1", "--port", "0").faults() == set()


def test_a_check_that_breaks_down_is_told_and_keeps_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(situation: Situation) -> Iterator[Finding]:
        raise RuntimeError("out of order")

    monkeypatch.setitem(checks.CHECKS, "clock", broken)
    told = list(checks.examine(Situation(load({"store": str(folder), "port": "0"}, {}), None)))
    (clock,) = (each.finding for each in told if each.name == "clock")
    assert clock.state == State.FAULT
    assert "out of order" in clock.found
    assert {each.name for each in told} == checks.CHECKS.keys()


def test_the_documentation_names_every_check() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    section = text.partition("## `doctor`")[2].partition("\n## ")[0]
    for name in checks.CHECKS:
        assert f"| `{name}` |" in section
