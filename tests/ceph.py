"""A real Ceph for tests: a monitor, one disk and an S3 gateway on this machine, from Debian's packages."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import httpx

from tests.processes import wait_until
from tests.s3 import S3Server, free_ports

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "radosgw-admin")

_START_SECONDS = 90
_KEY, _SECRET = "filestored-tests", "no-secret-at-all"
_OWN_PORTS = 24
_BELOW_EPHEMERAL = (20000, 32000)

_GLOBAL = {
    "mon_initial_members": "a", "public_addr": "127.0.0.1", "cluster_addr": "127.0.0.1",
    # who may connect to the loopback interface may do everything; only S3 asks for a key
    "auth_cluster_required": "none", "auth_service_required": "none", "auth_client_required": "none",
    # a gateway asks for encryption by default, which there is not without keys: it would hang
    "ms_mon_client_mode": "crc secure",
    "err_to_stderr": "true", "log_to_stderr": "false",
    # one disk that keeps one copy, few placement groups: what starts fast
    "osd_pool_default_size": "1", "osd_pool_default_min_size": "1", "osd_pool_default_pg_num": "4",
    "osd_pool_default_pg_autoscale_mode": "off", "osd_crush_chooseleaf_type": "0", "mon_allow_pool_size_one": "true",
    "mon_max_pg_per_osd": "1000", "mon_data_avail_crit": "1", "mon_data_avail_warn": "2",
    "osd_objectstore": "bluestore", "bluestore_block_size": str(8 << 30), "osd_memory_target": "939524096",
    "rgw_thread_pool_size": "64", "rgw_override_bucket_index_max_shards": "1", "rgw_enable_usage_log": "false",
}  # fmt: skip


class Cluster:
    """What gateways store in: a monitor and one disk, a sparse file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def settings(self) -> str:
        """The path of the settings file."""
        return str(self.folder / "ceph.conf")

    def start(self) -> None:
        """Make it and start it."""
        fsid = str(uuid4())
        monitor, legacy = free_ports(2)
        addresses = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{legacy}]"
        for name in ("mon", "osd/0", "run", "log", "rgw"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "keyring").touch()
        self._write_settings(fsid, addresses)
        monmap = str(self.folder / "monmap")
        self.call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
        self.call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._processes.append(self.launch("ceph-mon", "-i", "a"))
        disk = str(uuid4())
        self.call("ceph", "osd", "new", disk)
        self.call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._processes.append(self.launch("ceph-osd", "-i", "0"))
        assert wait_until(self._is_up, seconds=_START_SECONDS), self.logs()
        self.call(
            "radosgw-admin", "user", "create", "--uid", "tests", "--display-name", "tests", "--access-key", _KEY,
            "--secret-key", _SECRET,
        )  # fmt: skip

    def _write_settings(self, fsid: str, addresses: str) -> None:
        first = _free_range()
        folder = self.folder
        own = {
            "fsid": fsid, "mon_host": addresses, "ms_bind_port_min": first, "ms_bind_port_max": first + _OWN_PORTS,
            "keyring": folder / "keyring", "mon_data": folder / "mon", "osd_data": folder / "osd" / "$id",
            "rgw_data": folder / "rgw", "run_dir": folder / "run", "crash_dir": folder / "run",
            "admin_socket": folder / "run" / "$name.$pid.asok", "pid_file": folder / "run" / "$name.pid",
            "log_file": folder / "log" / "$name.log", "mon_cluster_log_file": folder / "log" / "cluster.log",
        }  # fmt: skip
        lines = "".join(f"{name} = {value}\n" for name, value in {**_GLOBAL, **own}.items())
        Path(self.settings).write_text(f"[global]\n{lines}")

    def _is_up(self) -> bool:
        assert all(process.poll() is None for process in self._processes), self.logs()
        told = self.call("ceph", "osd", "stat", "-f", "json")
        return bool(json.loads(told)["num_up_osds"])

    def call(self, program: str, *arguments: str) -> str:
        """Run one of its commands; return what it prints."""
        settings = () if program == "monmaptool" else ("-c", self.settings)
        done = subprocess.run(
            [program, *settings, *arguments], capture_output=True, text=True, timeout=_START_SECONDS, cwd=self.folder
        )
        assert done.returncode == 0, (program, arguments, done.stderr, self.logs())
        return done.stdout

    def launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of its servers, in a process group of its own."""
        with (self.folder / "log" / f"{program}.out").open("ab") as log:
            return subprocess.Popen(
                [program, "-c", self.settings, "-f", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def logs(self) -> str:
        """Return the ends of what its servers have written."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("log/*.out")))

    def stop(self) -> None:
        """End it, the disk first."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._processes.clear()


class Gateway(S3Server):
    """A radosgw before a cluster. Killing it leaves the cluster as it is."""

    key, secret = _KEY, _SECRET

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        (self._port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> "Gateway":
        """See S3Server."""
        # without tcp_nodelay each small answer waits 40 ms
        frontend = f"beast endpoint=127.0.0.1:{self._port} tcp_nodelay=1"
        self.processes.append(
            self.cluster.launch("radosgw", "-n", f"client.rgw.p{self._port}", "--rgw-frontends", frontend)
        )
        assert wait_until(self._answers, seconds=_START_SECONDS), self.cluster.logs()
        return self

    def _answers(self) -> bool:
        assert all(process.poll() is None for process in self.processes), self.cluster.logs()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.endpoint, timeout=30).status_code < 500
        return False

    def stop(self) -> None:
        """See S3Server. What is stored stays in the cluster."""
        self.kill()


class Ceph(Gateway):
    """A cluster with its first gateway."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Cluster(folder))

    def start(self) -> "Ceph":
        """See S3Server. The first bucket is made here: it takes seconds, since all pools are made with it."""
        if not Path(self.cluster.settings).exists():
            self.cluster.start()
        super().start()
        deadline = time.monotonic() + _START_SECONDS
        while self.request("PUT", "/first").status_code not in (200, 409):
            assert time.monotonic() < deadline, self.cluster.logs()
        return self

    def stop(self) -> None:
        """See S3Server."""
        self.kill()
        self.cluster.stop()


def _free_range() -> int:
    """Return the first of a number of ports in a row that nobody listens on."""
    for _ in range(100):
        first = random.randrange(*_BELOW_EPHEMERAL, _OWN_PORTS + 1)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + _OWN_PORTS + 1):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")
