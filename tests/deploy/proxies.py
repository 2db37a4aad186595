"""The reverse proxies of deploy/, started as they are written there but for addresses and paths."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.conftest import require_program
from tests.processes import wait_until
from tests.s3 import free_ports

DEPLOY = Path(__file__).parent.parent.parent / "deploy"

# where Debian's nginx would write, which only root may
_TEMPORARY = "".join(f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def addressed(text: str, places: tuple[str, ...], *daemons: str) -> str:
    """Put the addresses of daemons in the places of those that are written."""
    for place, url in zip(places, daemons, strict=True):
        assert text.count(place) == 1, place
        text = text.replace(place, url.removeprefix("http://"))
    return text


@contextlib.contextmanager
def nginx(folder: Path, settings: str) -> Iterator[str]:
    """Run nginx with the text of a whole nginx.conf that listens on 8080; give its address."""
    program = require_program("nginx")
    (port,) = free_ports(1)
    folder.mkdir(exist_ok=True)
    path = folder / "nginx.conf"
    assert "listen 8080;" in settings
    settings = settings.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    path.write_text(settings.replace("http {", f"http {{ {_TEMPORARY}", 1))
    # its workers are to read what a test has made, whoever runs that
    user = "user root; " if os.geteuid() == 0 else ""
    command = [
        program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(path),
        "-g", f"{user}pid {folder}/nginx.pid;",
    ]  # fmt: skip
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr
    command[-1] += " daemon off;"
    with _running(command, folder, f"http://127.0.0.1:{port}") as url:
        yield url


@contextlib.contextmanager
def caddy(folder: Path, settings: str) -> Iterator[str]:
    """Run Caddy with the text of a Caddyfile that listens on 8080; give its address."""
    program = require_program("caddy")
    (port,) = free_ports(1)
    folder.mkdir(exist_ok=True)
    path = folder / "Caddyfile"
    assert "\n:8080 {" in settings
    path.write_text(settings.replace("\n:8080 {", f"\nhttp://127.0.0.1:{port} {{"))
    given = ["--config", str(path), "--adapter", "caddyfile"]
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    checked = subprocess.run([program, "validate", *given], capture_output=True, text=True, env=env)
    assert checked.returncode == 0, checked.stderr
    with _running([program, "run", *given], folder, f"http://127.0.0.1:{port}", env) as url:
        yield url


@contextlib.contextmanager
def _running(command: list[str], folder: Path, url: str, env: dict[str, str] | None = None) -> Iterator[str]:
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    try:
        assert wait_until(lambda: _answers(url)), log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    return False
