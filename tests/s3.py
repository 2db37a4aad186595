"""Real S3 servers for tests, and a bucket a test: Swift, or Ceph with ``TEST_S3=ceph`` (``make test-ceph``)."""

import contextlib
import hashlib
import hmac
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

ON_CEPH = os.environ.get("TEST_S3") == "ceph"
"""Whether the tests run on Ceph instead of Swift."""

not_on_ceph = pytest.mark.skipif(ON_CEPH, reason="about Swift alone")


class S3Server(ABC):
    """A server of this machine that speaks S3, with one user who may do everything."""

    endpoint = ""
    key = ""
    secret = ""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        """What answers requests; it can be killed and frozen without losing what is stored."""

    @abstractmethod
    def start(self) -> "S3Server":
        """Start it, and wait until it answers; after ``kill`` again at the same address."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and remove what it keeps."""

    def kill(self) -> None:
        """End what answers requests at once, as a crash would."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self.processes.clear()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it answer nothing meanwhile; connections stay, and new ones are taken by the system."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGCONT)

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        answer = self.request("PUT", f"/{name}")
        assert answer.status_code == 200, answer.text

    def put(self, bucket: str, key: str, body: bytes, media_type: str = "application/octet-stream") -> None:
        """Store an object."""
        answer = self.request("PUT", f"/{bucket}/{quote(key)}", body, {"Content-Type": media_type})
        assert answer.status_code == 200, answer

    def get(self, bucket: str, key: str) -> bytes | None:
        """Return an object's bytes; None where there is no such object."""
        answer = self.request("GET", f"/{bucket}/{quote(key)}")
        assert answer.status_code in (200, 404), answer
        return answer.content if answer.status_code == 200 else None

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object, whether it is there or not."""
        answer = self.request("DELETE", f"/{bucket}/{quote(key)}")
        assert answer.status_code in (200, 204, 404), answer

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Ask by the S3 interface, signed (AWS Signature Version 4); the path has no query."""
        host = self.endpoint.removeprefix("http://")
        signed = _signed(method, path, host, hashlib.sha256(body).hexdigest(), self.key, self.secret)
        return httpx.request(method, self.endpoint + path, content=body, headers=signed | (headers or {}), timeout=30)

    def put_in_parts(self, bucket: str, key: str, parts: list[bytes]) -> None:
        """Store an object as S3's multipart upload does: its ETag is no MD5 of its bytes."""
        script = (
            "import os, sys\nfrom obstore.store import S3Store\nimport obstore\n"
            "bucket, key, size = sys.argv[1:4]\n"
            "store = S3Store(bucket, endpoint=sys.argv[4], virtual_hosted_style_request=False,\n"
            "                client_options={'allow_http': True})\n"
            "obstore.put(store, key, sys.stdin.buffer.read(), use_multipart=True, chunk_size=int(size))\n"
            "os._exit(0)\n"
        )
        command = [sys.executable, "-c", script, bucket, key, str(len(parts[0])), self.endpoint]
        done = subprocess.run(command, input=b"".join(parts), env=os.environ | self.variables(), capture_output=True)
        assert done.returncode == 0, done

    def variables(self) -> dict[str, str]:
        """Return the environment of whoever may do everything."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": "us-east-1"}


class Bucket:
    """A bucket of its own, empty at first."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"test-{secrets.token_hex(6)}"
        server.make_bucket(self.name)

    @property
    def url(self) -> str:
        """What ``--store`` is given."""
        return f"s3://{self.name}/files"

    @property
    def env(self) -> dict[str, str]:
        """The environment of a daemon that uses it."""
        return {**self.server.variables(), "AWS_ENDPOINT_URL": self.server.endpoint}

    def get(self, key: str) -> bytes | None:
        """Return an object below the store's prefix, None where there is none."""
        return self.server.get(self.name, f"files/{key}")

    def blob(self, digest: str) -> bytes | None:
        """Return a blob as it lies there, None where there is none."""
        return self.get(f"{digest[:2]}/{digest}")


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """Run the server that the tests are to use."""
    # here: they are made of what stands above
    from tests.ceph import Ceph
    from tests.importing.swift import Swift

    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    server: S3Server = Ceph(folder) if ON_CEPH else Swift(folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running_apart(shared: S3Server) -> Iterator[S3Server]:
    """Run a server that a test may kill and freeze; of Ceph another gateway before the same cluster."""
    from tests.ceph import Ceph, Gateway

    if not isinstance(shared, Ceph):
        with running() as server:
            yield server
        return
    gateway = Gateway(shared.cluster)
    try:
        yield gateway.start()
    finally:
        gateway.stop()


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _signed(method: str, path: str, host: str, body_hash: str, key: str, secret: str) -> dict[str, str]:
    """Return the headers that sign a request without a query."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/us-east-1/s3/aws4_request"
    headers = {"host": host, "x-amz-content-sha256": body_hash, "x-amz-date": moment}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{body_hash}"
    wanted = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signing = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, wanted.encode(), "sha256").hex()
    said = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return headers | {"authorization": said}
