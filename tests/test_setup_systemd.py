"""``setup_systemd.sh``: what it asks, what it writes, and that systemd has nothing to say against it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from filestored.quantities import parse_duration
from filestored.server import DRAIN_SECONDS
from tests.conftest import Daemon, StartDaemon, require_program
from tests.postgres import Database
from tests.processes import wait_until, worker_pids
from tests.s3 import Bucket
from tests.sandbox import allowed_calls, is_allowed, lines_of, placed, require_seccomp

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "setup_systemd.sh"
PROGRAM = Path(sys.executable).parent / "filestored"

# each of these leads to another unit
KINDS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "settings": ("--host", "127.0.0.1", "--port=9100", "--log", "debug", "--listen", "512", "--buffer", "64KiB"),
    "low port": ("--port", "443"),
    "a folder": ("--store", "/srv/files"),
    "a home": ("--store", "/home/somebody/files"),
    "a bucket": ("--store", "s3://bucket/prefix"),
    "a bucket and a folder": ("--store", "s3://bucket/prefix", "--spool", "/srv/spool"),
    "encrypted": ("--port", "443", "--tls-cert", "/etc/passwd", "--tls-key", "/etc/passwd"),
}


class Ended:
    """How the script ended, and what it said and wrote."""

    def __init__(self, folder: Path, answers: str, *words: str, path: str | None = None) -> None:
        ended = subprocess.run(
            [require_program("bash"), str(SCRIPT), "--program", str(PROGRAM), *words],
            cwd=folder, input=answers, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": path or os.environ["PATH"]},
        )  # fmt: skip
        self.status, self.output, self.said = ended.returncode, ended.stdout, ended.stderr
        self.folder = folder

    def unit(self, name: str = "filestored.service") -> dict[str, list[str]]:
        """Return the lines of the unit that was written, by their keys."""
        return lines_of(self.folder / name)


def test_it_is_clean_to_shellcheck() -> None:
    subprocess.run([PROGRAM.parent / "shellcheck", SCRIPT], check=True, timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path, kind: str) -> None:
    analyze = require_program("systemd-analyze")
    assert Ended(tmp_path, "", "--yes", *KINDS[kind]).status == 0
    unit = tmp_path / "filestored.service"
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    # in tenths: 24 is 2.4, and anything above ends with another status
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold=24", str(unit)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert score is not None
    assert float(score[1]) < 2.5


def test_the_unit_runs_what_was_asked_for(tmp_path: Path) -> None:
    unit = Ended(tmp_path, "", "--yes", *KINDS["settings"]).unit()
    settings = "--host 127.0.0.1 --port 9100 --log debug --listen 512 --buffer 64KiB"
    assert unit["ExecStart"] == [f"{PROGRAM} run --store /var/lib/filestored {settings}"]
    assert unit["Type"] == ["notify"]
    assert unit["User"] == ["filestored"]
    assert unit["StateDirectory"] == ["filestored"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "ReadWritePaths" not in unit


def test_a_store_elsewhere_is_what_the_daemon_may_write_to(tmp_path: Path) -> None:
    unit = Ended(tmp_path, "", "--yes", "--store", "/srv/../srv/files").unit()
    assert unit["ReadWritePaths"] == ["/srv/files"]
    assert "StateDirectory" not in unit
    unit = Ended(tmp_path, "", "--yes", "--store", "/home/somebody/files").unit()
    assert "/home/somebody/files" in unit["BindPaths"]
    assert unit["ProtectHome"] == ["tmpfs"]


def test_a_low_port_needs_one_right_and_gets_no_other(tmp_path: Path) -> None:
    unit = Ended(tmp_path, "", "--yes", "--port", "443").unit()
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert "PrivateUsers" not in unit
    assert Ended(tmp_path, "", "--yes").unit()["CapabilityBoundingSet"] == [""]


def test_with_a_bucket_the_spool_is_what_the_daemon_may_write_to(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "", "--yes", "--store", "s3://bucket/prefix")
    unit = ended.unit()
    assert unit["ExecStart"] == [f"{PROGRAM} run --store s3://bucket/prefix --spool /var/lib/filestored/spool"]
    assert unit["StateDirectory"] == ["filestored"]
    # the engine and PostgreSQL, over the network or on this machine
    assert unit["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert not {"PrivateNetwork", "IPAddressDeny"} & unit.keys()
    # which no unit says, since everybody may read it
    assert "credentials" not in unit["ExecStart"][0]
    assert unit["EnvironmentFile"] == ["-/etc/filestored/environment"]
    assert "/etc/filestored/environment" in ended.output
    unit = Ended(tmp_path, "", "--yes", "--store", "s3://bucket/prefix", "--spool", "/srv/spool").unit()
    assert unit["ReadWritePaths"] == ["/srv/spool"]
    assert "StateDirectory" not in unit


def test_certificates_that_the_service_would_not_see_are_refused(tmp_path: Path) -> None:
    # below /tmp, of which it has one of its own; also by way of a link
    with tempfile.NamedTemporaryFile(dir="/tmp") as hidden:
        (tmp_path / "link.pem").symlink_to(hidden.name)
        for given in (hidden.name, str(tmp_path / "link.pem")):
            ended = Ended(tmp_path, "", "--yes", "--tls-key", given)
            assert ended.status == 2
            assert ended.said.startswith(f"setup_systemd.sh: --tls-key {given}: the service does not see /")
            assert ended.said.endswith("; put it into /etc/filestored\n")
    # what is to be read there is only looked for; the daemon judges what it is
    unit = Ended(tmp_path, "", "--yes", *KINDS["encrypted"]).unit()
    assert unit["ExecStart"][0].endswith(" --port 443 --tls-cert /etc/passwd --tls-key /etc/passwd")


def test_the_unit_waits_for_a_minute_and_the_daemon_asks_for_more_where_it_takes_longer(tmp_path: Path) -> None:
    assert parse_duration(Ended(tmp_path, "", "--yes").unit()["TimeoutStopSec"][0]) == 2 * DRAIN_SECONDS


def test_what_the_daemon_reads_of_the_system_is_there(tmp_path: Path) -> None:
    """Without /proc/meminfo it would flush small files one by one, without the boot's id wait for its own past."""
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert set(re.findall(r"\"/proc/([a-z]\S*)\"", sources)) - {"self/mountinfo", "self/fd"}
    assert "ProcSubset" not in Ended(tmp_path, "", "--yes").unit()


def test_it_asks_what_the_original_asked(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "y\ny\nuploads\ny\n")
    assert (ended.status, ended.said) == (0, "")
    assert re.findall(r"[^?\n]*\? \(y/n\)", ended.output)[0].startswith("A systemd unit for filestored")
    assert "Choose another name? (y/n)" in ended.output
    assert "Only write the file, and install nothing? (y/n)" in ended.output
    assert f"written: {tmp_path}/uploads.service" in ended.output
    assert ended.unit("uploads.service")["StateDirectory"] == ["uploads"]
    assert "systemctl enable --now uploads.service" in ended.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["uploads.service"]


@pytest.mark.parametrize("answers", ["", "n\n"])
def test_without_consent_nothing_is_written(tmp_path: Path, answers: str) -> None:
    ended = Ended(tmp_path, answers)
    assert ended.status == 1
    assert "Nothing was written." in ended.output
    assert not list(tmp_path.iterdir())


def recording(folder: Path, *names: str) -> str:
    """Make programs that note what they are called with, and succeed; return a PATH that finds them first."""
    commands = folder / "commands"
    commands.mkdir()
    for name in names:
        answer = 'case "$*" in is-system-running) echo running ;; esac\n' if name == "systemctl" else ""
        (commands / name).write_text(f'#!/bin/sh\necho {name} "$*" >>"{folder}/called"\n{answer}')
        (commands / name).chmod(0o755)
    return f"{commands}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("answers", "words"), [("", ("--yes",)), ("y\nn\ny\n", ()), ("y\nn\nn\nn\n", ()), ("y\nn\n", ()), ("y\nn\nn\n", ())]
)
def test_without_consent_nothing_is_installed(tmp_path: Path, answers: str, words: tuple[str, ...]) -> None:
    path = recording(tmp_path, "systemctl", "useradd", "sudo", "install")
    ended = Ended(tmp_path, answers, "--unit-dir", str(tmp_path / "units"), *words, path=path)
    assert ended.status == 0
    assert "To install it, as root:" in ended.output
    assert (tmp_path / "filestored.service").exists()
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(("answers", "words"), [("", ("--yes", "--install")), ("y\nn\nn\ny\n", ())])
def test_with_consent_it_is_installed_and_started(tmp_path: Path, answers: str, words: tuple[str, ...]) -> None:
    path = recording(tmp_path, "systemctl", "useradd")
    # whoever is not root does it by sudo
    (tmp_path / "commands" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "commands" / "sudo").chmod(0o755)
    units = tmp_path / "units"
    units.mkdir()
    chosen = ("--user", "nobody-has-this-name", "--unit-dir", str(units))
    ended = Ended(tmp_path, answers, *chosen, *words, path=path)
    assert (ended.status, ended.said) == (0, "")
    assert (units / "filestored.service").read_bytes() == (tmp_path / "filestored.service").read_bytes()
    assert (tmp_path / "called").read_text().splitlines() == [
        "systemctl is-system-running",
        "useradd --system --user-group --no-create-home --home-dir /var/lib/filestored"
        " --shell /usr/sbin/nologin nobody-has-this-name",
        "systemctl daemon-reload",
        "systemctl enable filestored.service",
        "systemctl restart filestored.service",
    ]


def test_it_says_where_systemd_does_not_run(tmp_path: Path) -> None:
    path = recording(tmp_path, "systemctl")
    (tmp_path / "commands" / "systemctl").write_text("#!/bin/sh\necho offline\nexit 1\n")
    ended = Ended(tmp_path, "", "--yes", "--install", "--unit-dir", str(tmp_path / "units"), path=path)
    assert (ended.status, ended.said) == (1, "setup_systemd.sh: systemd does not run here: nothing was installed\n")
    assert not (tmp_path / "units").exists()


def test_it_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    unit = tmp_path / "filestored.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    ended = Ended(tmp_path, "", "--yes")
    assert ended.status == 1
    assert "was not written by this program" in ended.said
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    unit.unlink()
    for port in ("9001", "9002"):
        assert Ended(tmp_path, "", "--yes", "--port", port).status == 0
        assert f"--port {port}" in unit.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "99999"), "filestored: --port 99999: it must be a whole number from 0 to 65535"),
        (("--log", "loud"), "filestored: --log loud: it must be one of "),
        (("--host", "a b"), "setup_systemd.sh: the value 'a b': "),
        (("--host", "%h"), "setup_systemd.sh: the value '%h': "),
        (("--store", "/srv/$x"), "setup_systemd.sh: --store '/srv/$x': "),
        (("--port",), "setup_systemd.sh: --port needs a value"),
        (("--prot", "1"), "setup_systemd.sh: there is no option --prot"),
        (("--service-name", "../x"), "setup_systemd.sh: ../x.service: that is no name of a unit"),
        (("--user", "a b"), "setup_systemd.sh: --user a b: that is no name of a user"),
        (("--store", "/"), "setup_systemd.sh: --store /: it must be a folder of its own"),
        (("--store", "s3://b/p", "--spool", "/"), "setup_systemd.sh: --spool /: it must be a folder of its own"),
        (("--spool", "/srv/spool"), "setup_systemd.sh: --spool /srv/spool: it is for a store in a bucket"),
        (("--store", "s3://"), "filestored: --store s3://: "),
        (("--tls-cert", "/nowhere"), "filestored: --tls-cert /nowhere: it must be a file that can be read"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = Ended(tmp_path, "", "--yes", *words)
    assert ended.status == 2
    assert ended.said.startswith(said)
    assert ended.said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_names_every_option(tmp_path: Path) -> None:
    shown = Ended(tmp_path, "", "--help")
    assert (shown.status, shown.said) == (0, "")
    known = set(re.findall(r"^ +(?:-\w \| )?(--[a-z-]+)(?: \| --[a-z_-]+)*\)", SCRIPT.read_text(), re.MULTILINE))
    assert known >= {"--host", "--store", "--user", "--default", "--install"}
    assert not [option for option in known if option not in shown.output]


def test_the_daemon_does_nothing_that_the_unit_forbids(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """What it asks the system for is recorded while it does all it does, and compared with the unit's filter."""
    unit = Ended(tmp_path, "", "--yes").unit()
    trace = tmp_path / "trace"
    wrapper = (require_program("strace"), "-f", "-qq", "-o", str(trace), "-y")
    daemon = start_daemon("--workers", "2", store=tmp_path / "store", wrapper=wrapper)
    supervisor = int((daemon.store / ".filestored" / "daemon.pid").read_text().split()[0])
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        small, large = (client.post("/", content=os.urandom(size)).text for size in (100, 3 << 20))
        assert client.get(f"/{large}", headers={"Range": "bytes=5-9"}).status_code == 206
        assert client.get("/v1/files").status_code == 200
        assert client.get("/metrics").status_code == 200
        for digest in (small, large):
            assert client.delete(f"/{digest}").status_code == 200
    before = set(worker_pids(supervisor))
    os.kill(supervisor, signal.SIGHUP)
    assert wait_until(lambda: len(after := set(worker_pids(supervisor))) == 2 and not after & before, seconds=90)
    os.kill(supervisor, signal.SIGTERM)
    assert wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), seconds=60)
    # the last lines are written when the tracer ends
    time.sleep(0.5)
    lines = trace.read_text(errors="replace").splitlines()
    called = {match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))}
    assert {"openat", "pwrite64", "sendto", "execve"} & called
    # which SQLite only calls for root, whose files are to belong to the owner of the database
    forbidden = called - allowed_calls(unit) - {"fchown"}
    assert not {name for name in forbidden if re.search(rf"^\d+ +{name}\(.* = (?!-)", "\n".join(lines), re.MULTILINE)}
    # MemoryDenyWriteExecute
    risky = [line for line in lines if "PROT_EXEC" in line and ("PROT_WRITE" in line or "mprotect(" in line)]
    assert risky == []


@dataclass
class Confined:
    """A daemon that has no more rights than the unit leaves it, as far as that can be had without systemd."""

    unit: Path

    def wrapper(self, folder: Path) -> tuple[str, ...]:
        """Return what comes before a command that may write to the folder."""
        folder.mkdir(exist_ok=True)
        place = placed(folder) if is_allowed() else []
        return (*place, sys.executable, "-m", "tests.sandbox", str(self.unit))


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    require_program("systemd-analyze")
    require_seccomp()
    folder = tmp_path / "unit"
    folder.mkdir()
    assert Ended(folder, "", "--yes").status == 0
    return Confined(folder / "filestored.service")


_FORBIDDEN = """
import ctypes, errno, mmap, os, pathlib, socket
libc = ctypes.CDLL(None, use_errno=True)
def fails(code, call):
    try:
        call()
    except OSError as error:
        assert error.errno in code, (code, error)
    else:
        raise AssertionError(code)
def asked(*words):
    if libc.syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), "")
fails([errno.EPERM], lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
fails([errno.EAFNOSUPPORT], lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
fails([errno.EPERM], lambda: os.chmod("own", 0o4755))
fails([errno.EPERM], lambda: os.chown("own", 1, 1))
fails([errno.EPERM], lambda: asked(272, 0x10000000))  # unshare: a user namespace
fails([errno.EPERM], lambda: asked(165, None, None, None, 0, None))  # mount
assert "CapEff:\t0000000000000000" in pathlib.Path("/proc/self/status").read_text()
socket.socket(socket.AF_UNIX).close()
assert pathlib.Path("own").read_text() == "may be written"
"""


def test_what_the_unit_forbids_is_refused(confined: Confined, tmp_path: Path) -> None:
    """Or nothing would be seen by what a daemon under the same rules does."""
    words = [*confined.wrapper(tmp_path / "store"), sys.executable, "-c", _FORBIDDEN]
    own = tmp_path / "store" / "own"
    own.write_text("may be written")
    # commands are found from the checkout, files from the store
    placed_there = ["import os", f"os.chdir({str(own.parent)!r})", _FORBIDDEN]
    ended = subprocess.run([*words[:-1], "\n".join(placed_there)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def require_work(daemon: Daemon) -> None:
    """Store, read, list and delete, have the workers replaced, and stop."""
    supervisor = int((daemon.store / ".filestored" / "daemon.pid").read_text().split()[0])
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        for size in (100, 9 << 20):
            content = os.urandom(size)
            digest = client.post("/?name=x", content=content).text
            assert client.get(f"/{digest}").content == content
            assert client.get("/v1/files").json()["files"][0]["hash"] == digest
            assert client.delete(f"/{digest}").status_code == 200
        assert client.get("/metrics").status_code == 200
    before = set(worker_pids(supervisor))
    os.kill(supervisor, signal.SIGHUP)
    assert wait_until(lambda: bool(after := set(worker_pids(supervisor))) and not after & before, seconds=90)
    assert wait_until(lambda: "the workers are replaced" in daemon.read_log(), seconds=90)


def test_a_daemon_with_no_more_rights_than_the_unit_gives_does_all_its_work(
    confined: Confined, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    daemon = start_daemon("--workers", "1", store=store, wrapper=confined.wrapper(store))
    require_work(daemon)
    assert daemon.stop() == 0


def test_so_does_one_with_a_bucket_and_postgresql(
    confined: Confined, start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    # what /etc/filestored/environment says
    env = {"FILESTORED_CATALOGUE": database.url, "FILESTORED_ANONYMOUS": "full", **bucket.env}
    flags = ("--workers", "1", "--store", bucket.url, "--spool", str(spool))
    daemon = start_daemon(*flags, store=spool, wrapper=confined.wrapper(spool), env=env)
    require_work(daemon)
    # as the script says at its end: but for the credentials all is known from the last start
    words = ["token", "create", "ann", "--permissions", "read", "--spool", str(spool)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}
    made = subprocess.run([PROGRAM, *words], env=clean | bucket.env, capture_output=True, text=True, timeout=60)
    assert (made.returncode, made.stderr) == (0, "")
    answer = httpx.get(f"{daemon.url}/v1/files", headers={"Authorization": f"Bearer {made.stdout.strip()}"})
    assert answer.status_code == 200
    assert daemon.stop() == 0


def test_a_copy_of_the_script_finds_the_installed_command(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path / "setup_systemd.sh")
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "setup_systemd.sh", "--yes"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"ExecStart={PROGRAM} run" in (tmp_path / "filestored.service").read_text()
