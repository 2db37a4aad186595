"""The image: its steps carried out without an engine, and what comes of them run as an engine would run it."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from filestored.quantities import parse_duration
from filestored.server import DRAIN_SECONDS
from filestored.settings import describe, describe_all, load
from tests.dockerfile import Stage, build, instructions
from tests.installing import installed_in, needed_by
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket
from tests.sandbox import is_allowed

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["filestored"]

LAST = dict(instructions(DOCKERFILE)[[word for word, _ in instructions(DOCKERFILE)].index("LABEL") :])

pytestmark = pytest.mark.timeout(600)


def test_hadolint_finds_nothing() -> None:
    checked = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_base_is_pinned_by_its_digest() -> None:
    stages = {rest.partition(" AS ")[2] for word, rest in instructions(DOCKERFILE) if word == "FROM"}
    bases = [rest.partition(" AS ")[0] for word, rest in instructions(DOCKERFILE) if word == "FROM"]
    assert len(bases) > 1
    for base in bases:
        assert base in stages or re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", base), base


def test_compose_takes_every_right_away_that_is_not_needed() -> None:
    assert COMPOSE["read_only"] is True
    assert COMPOSE["cap_drop"] == ["ALL"]
    assert COMPOSE["security_opt"] == ["no-new-privileges:true"]
    assert COMPOSE["volumes"] == [f"data:{LAST['VOLUME']}"]


def test_compose_uses_settings_that_there_are() -> None:
    loaded = load({}, COMPOSE["environment"])
    assert not loaded.warnings
    assert COMPOSE["environment"].keys() <= {setting.variable for setting in describe_all()}


def test_what_compose_has_as_a_comment_holds_once_it_is_none() -> None:
    text = re.sub(
        r"^( *)# (?=- \w+:/|- \./\w+:/|FILESTORED_|backup:)", r"\1", (ROOT / "compose.yaml").read_text(), flags=re.M
    )
    told = yaml.safe_load(text)
    service = told["services"]["filestored"]
    mounted = {source: target for source, target, *_ in (each.split(":") for each in service["volumes"])}
    assert mounted.keys() == {*told["volumes"], "./tls"} == {"data", "backup", "./tls"}
    # which the user of the image owns, so that a new volume does
    owned = re.search(r"install -d -o \d+ -g \d+ -m 0700 (.*?) &&", LAST["RUN"])
    assert owned is not None
    assert {mounted["data"], mounted["backup"]} == set(owned[1].split())
    keys = {name: value for name, value in service["environment"].items() if "TLS" in name}
    assert keys.keys() == {describe("tls_cert").variable, describe("tls_key").variable}
    assert all(value.startswith(f"{mounted['./tls']}/") for value in keys.values())


def test_whoever_ends_it_waits_a_minute() -> None:
    """Twice what running requests are given, wherever a time is written."""
    pages = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    told = [COMPOSE["stop_grace_period"], *re.findall(r"--stop-timeout (\d+)", "\n".join(pages))]
    assert len(told) > 1
    assert {parse_duration(each) for each in told} == {2 * DRAIN_SECONDS}


@dataclass
class Container:
    """The image's last stage, where everybody may reach it, and a folder for its volume."""

    stage: Stage
    volume: Path
    log: Path
    hold: Path

    def command(self, *words: str) -> list[str]:
        """Return what runs words as an engine would: process 1, its user, a root that is read-only but for the volume.

        Where this system does not allow that, as it is: the volume then is where the image has it, below the folder.
        """
        placed = [str(self.stage.folder / "opt/filestored/bin" / words[0]), *words[1:]]
        if not is_allowed():
            return placed
        uid, gid = self.stage.user.split(":")
        volume, hold = shlex.quote(str(self.volume)), shlex.quote(str(self.hold))
        steps = ["mount --make-rprivate /"]
        if (closed := closed_above(Path(sys.base_prefix))) is not None:
            # the interpreter that stands for the image's is not to be had by others: it is shown to them alone
            prefix = shlex.quote(sys.base_prefix)
            steps += [f"mount --bind {prefix} {hold}", f"mount -t tmpfs -o mode=0755 none {closed}"]
            steps += [f"mkdir -p {prefix}", f"mount --bind {hold} {prefix}"]
        steps += [f"mount --bind {volume} {volume}", "mount -o remount,ro,bind /", f"cd {volume}", 'exec "$@"']
        user = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return [*unshare, "sh", "-ec", " && ".join(steps), "sh", *user, *placed]

    def env(self) -> dict[str, str]:
        """Return the image's variables, its paths those below its folder."""
        env = {name: value.replace("/data", str(self.volume)) for name, value in self.stage.env.items()}
        env["PATH"] = f"{self.stage.folder}/opt/filestored/bin:/usr/bin:/bin"
        return env


def closed_above(path: Path) -> Path | None:
    """Return the topmost folder above a path that other users may not enter."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH), None)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    # not below the folder of the tests, which nobody else may enter
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    try:
        folder.chmod(0o755)
        stage = build(ROOT, folder)
        volume = stage.inside(stage.volume)
        volume.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(volume, *map(int, stage.user.split(":")))
        (folder / "hold").mkdir()
        yield Container(stage, volume, folder / "log", folder / "hold")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_the_base_has_of_python_is_compiled_for_its_user(tmp_path: Path) -> None:
    """Nobody could later: the root is read-only, and the health check would compile it all each time."""
    (step,) = [step for step in LAST["RUN"].split(" && ") if "compileall" in step]
    copied = tmp_path / "lib"
    left_out = shutil.ignore_patterns("site-packages", "__pycache__", "test", "tests", "idlelib", "*.so")
    shutil.copytree(Path(os.__file__).parent, copied, ignore=left_out)
    *words, place = shlex.split(step)
    assert place.startswith("$(python -c ")
    subprocess.run([sys.executable, *words[1:], str(copied)], check=True, timeout=300)
    assert (copied / "json" / "__pycache__" / f"decoder.{sys.implementation.cache_tag}.pyc").exists()


def test_its_user_is_nobody_elses_and_owns_the_volume() -> None:
    uid, gid = LAST["USER"].split(":")
    assert int(uid) > 1000
    assert f"--gid {gid} filestored" in LAST["RUN"]
    assert f"--uid {uid} --gid {gid}" in LAST["RUN"]
    # the volume, and where operations.md has copies put
    assert f"install -d -o {uid} -g {gid} -m 0700 {LAST['VOLUME']} /backup " in LAST["RUN"]
    assert "/backup" in (ROOT / "docs" / "operations.md").read_text()
    assert f"FILESTORED_STORE={LAST['VOLUME']}/" in LAST["ENV"]


def test_its_port_is_the_daemons_default() -> None:
    port = describe("port").default
    assert LAST["EXPOSE"] == port
    assert COMPOSE["ports"] == [f"{port}:{port}"]


@dataclass
class Running:
    """The container while it runs, and the address of its daemon."""

    container: Container
    process: subprocess.Popen[bytes]
    env: dict[str, str]
    url: str

    def is_healthy(self) -> bool:
        """Ask what the image says that an engine is to ask."""
        stage = self.container.stage
        program = str(stage.folder / "opt/filestored/bin" / stage.health[0])
        words, place = [program, *stage.health[1:]], self.container.volume
        return not subprocess.run(words, env=self.env, cwd=place, capture_output=True).returncode

    def stop(self) -> int:
        """Tell process 1 to end, as an engine does; return its exit status."""
        # it is the child of what has made its namespace
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[0]) if is_allowed() else self.process.pid, signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running(container: Container, folder: str, env: dict[str, str]) -> Iterator[Running]:
    """Run the image's command with variables besides its own, until it serves and then until the block ends."""
    stage, log = container.stage, container.log
    command = container.command(*stage.entrypoint, *stage.command)
    # the port alone is another than in the image
    env = {**container.env(), "FILESTORED_PORT": "0", "FILESTORED_HOST": "127.0.0.1", "FILESTORED_WORKERS": "1"} | env
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, cwd=container.volume, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: " serves " in log.read_text(), seconds=90), log.read_text()
        url = (container.volume / folder / ".filestored/daemon.pid").read_text().split()[1]
        runs = Running(container, process, env, url)
        assert wait_until(runs.is_healthy, seconds=90)
        yield runs
    finally:
        process.kill()
        process.wait(10)


def require_service(runs: Running, content: bytes) -> None:
    """Store a file and read it again, and see that the page and the description are there."""
    with httpx.Client(base_url=runs.url, timeout=60) as client:
        digest = client.post("/?name=hello.txt", content=content).text
        assert client.get(f"/{digest}").content == content
        assert "text/html" in client.get("/", headers={"Accept": "text/html"}).headers["content-type"]
        assert client.get("/docs").status_code == 200
        assert client.delete(f"/{digest}").status_code == 200


def require_owner(container: Container, folder: str) -> None:
    if is_allowed():
        owners = {path.stat().st_uid for path in (container.volume / folder).rglob("*")}
        assert owners == {int(container.stage.user.split(":")[0])}


def test_it_holds_no_tools_serves_is_healthy_and_stops_when_told_to(
    container: Container, bucket: Bucket, database: Database
) -> None:
    """It is built once for all of this: what it holds comes first, last what deploy/cluster does with it."""
    there = installed_in(container.stage.folder / "opt" / "filestored" / "bin")
    assert there == needed_by("all") | {"filestored"}
    assert not {"pip", "hatchling", "setuptools"} & there
    with running(container, "store", {}) as runs:
        require_service(runs, b"Hello, world!")
        require_owner(container, "store")
        assert runs.stop() == 0
        assert not runs.is_healthy()
    assert container.log.read_text().rstrip().endswith("stopped")
    # the folder that the image names gives way, and the spool is in the volume
    env = {"FILESTORED_STORE": bucket.url, "FILESTORED_CATALOGUE": database.url, "FILESTORED_ANONYMOUS": "full"}
    with running(container, "spool", env | bucket.env) as runs:
        require_service(runs, os.urandom(9 << 20))
        require_owner(container, "spool")
        assert runs.stop() == 0
