"""nginx before daemons; as a deployment would, it is told of those that ``/readyz`` says are not to be used."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

import httpx

from tests.conftest import require_program
from tests.processes import wait_until
from tests.s3 import free_ports

_LOOKED_AT_EVERY_SECONDS = 0.2
_SETTINGS = """
daemon off; master_process on; worker_processes 1; pid nginx.pid; error_log error.log; {user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream daemons {{ {servers} keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://daemons;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_request_buffering off;
            proxy_next_upstream error timeout;
        }}
    }}
}}
"""

Address = tuple[str, int]


class Nginx:
    """nginx in a folder of its own. Its connections to the daemons are kept open."""

    def __init__(self, folder: Path, addresses: list[Address]) -> None:
        self.ready: set[Address] = set()
        """The daemons that were ready when they were asked last."""
        self._folder = folder
        self._addresses = addresses
        self._port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self._port}"
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._look()
        assert self.ready == set(self._addresses)
        command = [require_program("nginx"), "-p", str(self._folder), "-c", "nginx.conf", "-e", "error.log"]
        self._process = subprocess.Popen(command, start_new_session=True)
        assert wait_until(self._answers), (self._folder / "error.log").read_text()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watcher.join()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def is_ready(self, address: Address) -> bool:
        """Tell whether a daemon gets new requests."""
        return address in self.ready

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOKED_AT_EVERY_SECONDS):
            if self._look():
                self._process.send_signal(signal.SIGHUP)

    def _look(self) -> bool:
        """Ask the daemons; write down which are to be used where that has changed, and tell so."""
        ready = {address for address in self._addresses if _is_ready(address)}
        if ready == self.ready:
            return False
        servers = " ".join(
            f"server {host}:{port} max_fails=0{'' if (host, port) in ready else ' down'};"
            for host, port in self._addresses
        )
        user = "user root;" if os.geteuid() == 0 else ""
        settings = _SETTINGS.format(servers=servers, port=self._port, user=user)
        (self._folder / "nginx.conf").write_text(settings)
        self.ready = ready
        return True


def _is_ready(address: Address) -> bool:
    try:
        return httpx.get("http://{}:{}/readyz".format(*address)).status_code == 200
    except httpx.HTTPError:
        return False
