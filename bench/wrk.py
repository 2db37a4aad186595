"""Many small requests: the load generator wrk, one thread, with the script ``load.lua``."""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import http1
from bench.figures import Figure
from bench.processes import running_on

_SCRIPT = Path(__file__).with_name("load.lua")
_GRACE_SECONDS = 60


class LoadFailed(Exception):
    """A load generator could not do its work, or got answers it must not get."""


@dataclass(frozen=True, slots=True)
class Wrk:
    """Where wrk is, and the CPUs it runs on."""

    program: str
    cpus: set[int]

    def run(
        self,
        port: int,
        mode: tuple[str, ...],
        *,
        connections: int,
        seconds: int,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        tolerated: int = 0,
    ) -> Figure:
        """Send requests for some seconds; the figure's value is requests a second.

        ``mode`` is one of those of ``load.lua``. Raises LoadFailed where more than ``tolerated`` answers were
        errors, or a connection broke.
        """
        command = [
            self.program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(_SCRIPT),
            *(part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")),
            f"http://127.0.0.1:{port}{path}", "--", *mode,
        ]  # fmt: skip
        with running_on(self.cpus):
            finished = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + _GRACE_SECONDS
            )
        return _read_figure(finished.stdout, tolerated)

    def get(self, port: int, path: str, connections: int, seconds: int, headers: Mapping[str, str]) -> Figure:
        """Get one address again and again."""
        return self.run(port, ("same", "GET"), connections=connections, seconds=seconds, path=path, headers=headers)

    def upload(self, port: int, template: str, size: int, connections: int, seconds: int, seed: str) -> Figure:
        """Upload bodies of ``size`` bytes, each different; ``seed`` is 16 hex digits that no other run uses."""
        method, _, path = template.partition(" ")
        mode = ("upload", method, path, str(size), seed)
        return self.run(port, mode, connections=connections, seconds=seconds, headers={"Content-Type": http1.RAW})


def _read_figure(printed: str, tolerated: int) -> Figure:
    line = re.search(r"^BENCH (.*)$", printed, re.MULTILINE)
    if line is None:
        raise LoadFailed(f"wrk: {printed.strip()[-300:]}")
    seen = json.loads(line[1])
    if seen["refused"] > tolerated or seen["broken"]:
        raise LoadFailed(
            f"{seen['refused']} refused, {seen['broken']} broken or timed out, of {seen['requests']} requests"
        )
    if not seen["requests"] or not seen["seconds"]:
        raise LoadFailed("no request was answered")
    return Figure(
        value=seen["requests"] / seen["seconds"],
        requests=seen["requests"],
        seconds=seen["seconds"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
    )
