"""The servers that are compared: filestored from this checkout, and nginx over the very same files."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import http1
from bench.processes import Tree

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

_START_SECONDS = 30.0
_SBIN = "/usr/sbin"


class CannotMeasure(Exception):
    """A program is missing or answers what makes measuring pointless; the message is one sentence for people."""


@dataclass(frozen=True, slots=True)
class Site:
    """A server as its clients see it, and the processes behind it.

    ``upload``, ``download`` and ``delete`` are a method and a path, where ``{digest}`` stands for the digest
    and ``{d2}`` for its first two digits. ``store`` is the folder where its uploads come to lie. ``token`` is one
    that may read, where the server knows tokens.
    """

    tree: Tree
    port: int
    store: Path
    upload: str
    download: str
    delete: str
    token: str = ""

    def request(self, template: str, digest: str) -> tuple[str, str]:
        """Return method and path of a request for one blob."""
        method, _, path = template.partition(" ")
        return method, path.replace("{digest}", digest).replace("{d2}", digest[:2])

    def get(self, digest: str, headers: dict[str, str] | None = None) -> http1.Answer:
        """Download one blob, or what ``headers`` ask of it."""
        return http1.call(self.port, *self.request(self.download, digest), headers=headers)


@dataclass(frozen=True, slots=True)
class Nginx:
    """One nginx process with three ports: the daemon's blobs as static files, and WebDAV in a folder of its own.

    ``untuned`` serves the same files with ``sendfile off``, nginx's default; it only informs.
    """

    files: Site
    untuned: Site
    dav: Site


_NGINX = """
daemon off; worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/error.log crit; {user} {modules}
events {{ worker_connections 16384; }}
http {{
  access_log off; default_type application/octet-stream; keepalive_requests 100000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  server {{ listen 127.0.0.1:{files} backlog=4096; root {store}; sendfile on; tcp_nopush on; }}
  server {{ listen 127.0.0.1:{untuned} backlog=4096; root {store}; }}
  server {{ listen 127.0.0.1:{dav} backlog=4096; root {uploads}; sendfile on; tcp_nopush on;
    location / {{ dav_methods PUT DELETE; create_full_put_path on; }} }}
}}
"""


def find_programs() -> tuple[str, str]:
    """Return the paths of nginx and wrk; raises CannotMeasure where one is missing or nginx has no WebDAV."""
    path = os.pathsep.join(filter(None, (os.environ.get("PATH"), _SBIN)))
    nginx, wrk = shutil.which("nginx", path=path), shutil.which("wrk", path=path)
    missing = [name for name, found in (("nginx", nginx), ("wrk", wrk)) if not found]
    if nginx and "http_dav_module" not in _run_for_text(nginx, "-V"):
        missing.append("nginx's dav module")
    if nginx is None or wrk is None or missing:
        raise CannotMeasure(f"not found: {' and '.join(missing)}; install with: apt-get install nginx-light wrk")
    return nginx, wrk


def describe_nginx(nginx: str) -> str:
    """Return nginx's name and version."""
    return _run_for_text(nginx, "-v").partition("version: ")[2].strip() or "nginx"


def _run_for_text(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20).stdout


@contextlib.contextmanager
def run_nginx(program: str, work: Path, store: Path) -> Iterator[Nginx]:
    """Run nginx over the blobs in ``store``; its own uploads and scratch files lie in ``work``."""
    scratch, uploads = work / "nginx-scratch", work / "nginx-uploads"
    for folder in (scratch, uploads):
        folder.mkdir()
    files, untuned, dav = (_free_port() for _ in range(3))
    modules = Path("/etc/nginx/modules-enabled")
    config = work / "nginx.conf"
    config.write_text(
        _NGINX.format(
            scratch=scratch, store=store, uploads=uploads, files=files, untuned=untuned, dav=dav,
            # as root its workers would become www-data, which may not read the store
            user="user root;" if os.geteuid() == 0 else "",
            modules=f"include {modules}/*.conf;" if modules.is_dir() else "",
        )
    )  # fmt: skip
    tree = Tree([program, "-c", str(config)], work / "nginx.out")
    addresses = ("PUT /{d2}/{digest}", "GET /{d2}/{digest}", "DELETE /{d2}/{digest}")
    with contextlib.ExitStack() as stack:
        stack.callback(tree.stop)
        sites = [Site(tree, port, folder, *addresses) for port, folder in
                 ((files, store), (untuned, store), (dav, uploads))]  # fmt: skip
        for site in sites:
            _wait_until(site, "/", {200, 403, 404})
        yield Nginx(*sites)


@contextlib.contextmanager
def run_daemon(work: Path, store: Path, durability: str) -> Iterator[Site]:
    """Run filestored with one worker and defaults otherwise, its log at the default level in a file in ``work``."""
    port = _free_port()
    name = f"{store.name}-{port}"
    command = [
        sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", str(port), "--store", str(store),
        "--workers", "1", "--durability", durability, "--log-file", str(work / f"{name}.log"), "--anonymous", "full",
    ]  # fmt: skip
    token = make_token(store)
    tree = Tree(command, work / f"{name}.out", _daemon_environment())
    with contextlib.ExitStack() as stack:
        stack.callback(tree.stop)
        site = Site(tree, port, store, "POST /", "GET /{digest}", "DELETE /{digest}", token)
        _wait_until(site, "/readyz", {200})
        yield site


def make_token(store: Path) -> str:
    """Make a token that may read; the store need not be there yet."""
    # one of its own each time: a store may be measured again
    command = [
        sys.executable,
        "-m",
        "filestored",
        "token",
        "create",
        f"bench-{secrets.token_hex(4)}",
        "--permissions",
        "read",
    ]
    made = subprocess.run(
        [*command, "--store", str(store)], capture_output=True, text=True, timeout=60, env=_daemon_environment()
    )
    if made.returncode:
        raise CannotMeasure(f"no token could be made: {made.stderr.strip()}")
    return made.stdout.strip()


def _daemon_environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not re.match(r"FILESTORED_", name)}
    # this checkout is what is measured, whatever else is installed
    inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "src"), inherited.get("PYTHONPATH"))))
    return inherited


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(site: Site, path: str, statuses: set[int]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not site.tree.has_ended():
        with contextlib.suppress(OSError):
            if http1.call(site.port, "GET", path).status in statuses:
                return
        time.sleep(0.05)
    raise CannotMeasure(f"a server does not start: {site.tree.printed().strip() or 'it printed nothing'}")
