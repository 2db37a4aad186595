"""A real S3 server for tests: OpenStack Swift with its S3 interface, four processes on this machine."""

import hashlib
import hmac
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.processes import wait_until

KEY, SECRET = "test:tester", "testing"

_TRIES = 3
# what it asks while the others are starting must not keep it from asking them for a minute
_PROXY = "account_autocreate = true\nallow_account_management = true\nerror_suppression_limit = 1000000\n"

_FILTERS = {
    "catch_errors": "", "gatekeeper": "", "listing_formats": "", "bulk": "", "slo": "",
    "tempauth": "user_test_tester = testing .admin",
    "s3api": "location = us-east-1\ns3_acl = false",
}  # fmt: skip


class Swift:
    """One node: a proxy before an account, a container and an object server, which keep one copy of everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.endpoint = ""

    def start(self) -> "Swift":
        """Start it and wait until it answers; anew where another program was faster to take a port that was free."""
        for _ in range(_TRIES):
            names = ["account", "container", "object", "proxy"]
            self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
            self.endpoint = f"http://127.0.0.1:{self._ports['proxy']}"
            (self.folder / "devices" / "d0").mkdir(parents=True)
            self._write_rings()
            for name in self._ports:
                self._start(name)
            wait_until(lambda: self._answers() or self._has_ended(), seconds=60)
            if not self._has_ended() and self._answers():
                return self
            logs = "\n".join(path.read_text() for path in self.folder.glob("*.log"))
            self.stop()
        raise AssertionError(f"Swift does not start:\n{logs}")

    def _has_ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def stop(self) -> None:
        """End its processes."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_rings(self) -> None:
        secrets = "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = default\ndefault = yes\n"
        (self.folder / "swift.conf").write_text(secrets)
        # in a process of its own: it brings half of Swift with it
        for name in ("account", "container", "object"):
            ring = self.folder / f"{name}.builder"
            device = f"r1z1-127.0.0.1:{self._ports[name]}/d0"
            for words in (["create", "4", "1", "0"], ["add", device, "1"], ["rebalance", "1"]):
                builder = [str(Path(sys.executable).parent / "swift-ring-builder"), str(ring), *words]
                done = subprocess.run(builder, capture_output=True, text=True)
                # 1 is a warning: one device is no cluster
                assert done.returncode in (0, 1), done

    def _start(self, name: str) -> None:
        settings = self.folder / f"{name}-server.conf"
        settings.write_text(self._settings(name))
        program = Path(sys.executable).parent / f"swift-{name}-server"
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, str(program), str(settings)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
                    env={**os.environ, "HOME": str(self.folder)},
                )
            )  # fmt: skip

    def _settings(self, name: str) -> str:
        filters = list(_FILTERS) if name == "proxy" else []
        order = ["catch_errors", "gatekeeper", "listing_formats", "bulk", "s3api", "tempauth", "slo"] if filters else []
        sections = "".join(f"[filter:{each}]\nuse = egg:swift#{each}\n{_FILTERS[each]}\n" for each in filters)
        return (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {self._ports[name]}\nworkers = 0\n"
            f"user = {pwd.getpwuid(os.geteuid()).pw_name}\nswift_dir = {self.folder}\n"
            f"devices = {self.folder}/devices\nmount_check = false\ndisable_fallocate = true\n"
            # anything but the system's log, which it would wait for
            "log_udp_host = 127.0.0.1\nlog_udp_port = 9\nlog_level = ERROR\n"
            f"recon_cache_path = {self.folder}/recon\n"
            f"[pipeline:main]\npipeline = {' '.join([*order, f'{name}-server'])}\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n" + (_PROXY if name == "proxy" else "") + sections
        )

    def _answers(self) -> bool:
        try:
            # through all four: the proxy answers some things by itself
            # 409: the bucket is there since it was asked last
            return all(self._request("PUT", path).status_code in (200, 409) for path in ("/ready", "/ready/object"))
        except httpx.HTTPError:
            return False

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        answer = self._request("PUT", f"/{name}")
        assert answer.status_code == 200, answer.text

    def put(self, bucket: str, key: str, body: bytes, media_type: str = "application/octet-stream") -> None:
        """Store an object."""
        answer = self._request("PUT", f"/{bucket}/{quote(key)}", body, {"Content-Type": media_type})
        assert answer.status_code == 200, answer

    def _request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Ask by the S3 interface, signed (AWS Signature Version 4)."""
        signed = _signed(method, path, self.endpoint.removeprefix("http://"), hashlib.sha256(body).hexdigest())
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

    def blob_files(self) -> list[Path]:
        """Return the files in which objects lie on the disk."""
        return sorted(self.folder.glob("devices/d0/objects/**/*.data"))

    def variables(self) -> dict[str, str]:
        """Return the environment of whoever may do everything."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _signed(method: str, path: str, host: str, body_hash: str) -> dict[str, str]:
    """Return the headers that sign a request without a query."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/us-east-1/s3/aws4_request"
    headers = {"host": host, "x-amz-content-sha256": body_hash, "x-amz-date": moment}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{body_hash}"
    wanted = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, wanted.encode(), "sha256").hex()
    said = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return headers | {"authorization": said}
