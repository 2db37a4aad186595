"""The image: its steps carried out without an engine, and what comes of them run as an engine would run it."""

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

from filestored.settings import describe
from tests.dockerfile import Stage, build, instructions
from tests.installing import installed_in, needed_by
from tests.processes import wait_until

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
    assert COMPOSE["volumes"] == ["data:/data"]
    # longer than the daemon takes for running requests
    assert int(COMPOSE["stop_grace_period"].removesuffix("s")) > 30


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


def is_allowed() -> bool:
    """Tell whether this system lets one have mounts and processes of one's own."""
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", "mount -o remount,ro,bind /"]
    return (
        bool(shutil.which("unshare") and shutil.which("setpriv"))
        and not subprocess.run(words, capture_output=True, timeout=30).returncode
    )


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


def test_its_user_is_nobody_elses_and_owns_the_volume() -> None:
    uid, gid = LAST["USER"].split(":")
    assert int(uid) > 1000
    assert f"--gid {gid} filestored" in LAST["RUN"]
    assert f"--uid {uid} --gid {gid}" in LAST["RUN"]
    assert f"install -d -o {uid} -g {gid} -m 0700 {LAST['VOLUME']}" in LAST["RUN"]
    assert f"FILESTORED_STORE={LAST['VOLUME']}/" in LAST["ENV"]


def test_its_port_is_the_daemons_default() -> None:
    port = describe("port").default
    assert LAST["EXPOSE"] == port
    assert COMPOSE["ports"] == [f"{port}:{port}"]


def test_it_holds_no_tools_serves_is_healthy_and_stops_when_told_to(container: Container) -> None:
    """It is built once for this: what it holds comes first."""
    stage = container.stage
    there = installed_in(stage.folder / "opt" / "filestored" / "bin")
    assert there == needed_by("all") | {"filestored"}
    assert not {"pip", "hatchling", "setuptools"} & there
    command = container.command(*stage.entrypoint, *stage.command)
    # the port alone is another than in the image
    env = {**container.env(), "FILESTORED_PORT": "0", "FILESTORED_HOST": "127.0.0.1", "FILESTORED_WORKERS": "1"}
    with container.log.open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=container.volume, stdout=log, stderr=log)
    store = container.volume / "store"
    try:
        assert wait_until(lambda: " serves " in container.log.read_text(), seconds=90), container.log.read_text()
        url = (store / ".filestored/daemon.pid").read_text().split()[1]

        def is_healthy() -> bool:
            program = str(stage.folder / "opt/filestored/bin" / stage.health[0])
            return not subprocess.run([program, *stage.health[1:]], env=env, capture_output=True).returncode

        assert wait_until(is_healthy, seconds=90)
        with httpx.Client(base_url=url) as client:
            digest = client.post("/?name=hello.txt", content=b"Hello, world!").text
            assert client.get(f"/{digest}").text == "Hello, world!"
            assert "text/html" in client.get("/", headers={"Accept": "text/html"}).headers["content-type"]
            assert client.get("/docs").status_code == 200
        if is_allowed():
            assert {path.stat().st_uid for path in store.rglob("*")} == {int(stage.user.split(":")[0])}
        # process 1 is the child of what has made its namespace
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]) if is_allowed() else process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        assert not is_healthy()
        assert container.log.read_text().rstrip().endswith("stopped")
    finally:
        process.kill()
        process.wait(10)
