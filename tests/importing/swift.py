"""A real S3 server for tests: OpenStack Swift with its S3 interface, four processes on this machine."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.processes import wait_until
from tests.s3 import S3Server, free_ports

_TRIES = 3
# what it asks while the others are starting must not keep it from asking them for a minute
_PROXY = "account_autocreate = true\nallow_account_management = true\nerror_suppression_limit = 1000000\n"

_FILTERS = {
    "catch_errors": "", "gatekeeper": "", "listing_formats": "", "bulk": "", "slo": "",
    "tempauth": "user_test_tester = testing .admin",
    "s3api": "location = us-east-1\ns3_acl = false",
}  # fmt: skip


class Swift(S3Server):
    """One node: a proxy before an account, a container and an object server, which keep one copy of everything."""

    key, secret = "test:tester", "testing"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._ports: dict[str, int] = {}

    def start(self) -> "Swift":
        """Start it and wait until it answers; anew where another program was faster to take a port that was free."""
        logs = ""
        for _ in range(_TRIES):
            if not self._ports:
                self._make()
            for name in self._ports:
                self._start(name)
            wait_until(lambda: self._answers() or self._has_ended(), seconds=60)
            if not self._has_ended() and self._answers():
                return self
            logs = "\n".join(path.read_text() for path in self.folder.glob("*.log"))
            self.stop()
        raise AssertionError(f"Swift does not start:\n{logs}")

    def _make(self) -> None:
        names = ["account", "container", "object", "proxy"]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['proxy']}"
        (self.folder / "devices" / "d0").mkdir(parents=True)
        self._write_rings()

    def _has_ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def stop(self) -> None:
        """End its processes."""
        self.kill()
        self._ports = {}
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
            self.processes.append(
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
            return all(self.request("PUT", path).status_code in (200, 409) for path in ("/ready", "/ready/object"))
        except httpx.HTTPError:
            return False

    def blob_files(self) -> list[Path]:
        """Return the files in which objects lie on the disk."""
        return sorted(self.folder.glob("devices/d0/objects/**/*.data"))
