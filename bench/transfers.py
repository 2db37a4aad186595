"""Large uploads and downloads over plain sockets, one thread a connection, in a process of their own.

``python -m bench.transfers JSON`` is how :func:`begin` starts that process; JSON holds the fields of
:class:`Plan`. It prints one line of JSON.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

from bench import http1
from bench.figures import Figure
from bench.servers import ROOT
from bench.wrk import LoadFailed

MIB = 1 << 20
_DEADLINE_SECONDS = 120
_BOUNDARY = "bench-d1f6c0a97e5b4f"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to transfer: method and path as in ``Site``; at least one transfer a connection, more for ``seconds``.

    ``size`` is the body's length in bytes; 0 means a download. ``seed`` must differ between any two uploads.
    """

    port: int
    request: str
    size: int = 0
    connections: int = 1
    seconds: float = 0.0
    seed: str = ""
    form: bool = False


@dataclass(slots=True)
class _Tally:
    lock: threading.Lock = field(default_factory=threading.Lock)
    moved: int = 0
    count: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, moved: int) -> None:
        with self.lock:
            self.moved += moved
            self.count += 1

    def blame(self, fault: str) -> None:
        with self.lock:
            self.faults.append(fault)


class Transfers:
    """Transfers under way in another process. A ``with`` block that leaves no process behind."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "bench.transfers", json.dumps(asdict(plan))]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self) -> "Transfers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def are_under_way(self) -> bool:
        """Tell whether there is still something to transfer."""
        return self._process.poll() is None

    def finish(self) -> Figure:
        """Wait for the end; the figure's value is MB (10^6 bytes) a second. Raises LoadFailed."""
        try:
            printed, complaints = self._process.communicate(timeout=_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"transfers took more than {_DEADLINE_SECONDS} seconds") from None
        if self._process.returncode:
            raise LoadFailed(f"transfers: {complaints.decode(errors='replace').strip()[-300:]}")
        seen = json.loads(printed)
        if seen["faults"]:
            raise LoadFailed(f"{len(seen['faults'])} transfers failed: {seen['faults'][0]}")
        return Figure(value=seen["moved"] / seen["seconds"] / 1e6, requests=seen["transfers"], seconds=seen["seconds"])


def transfer(plan: Plan) -> Figure:
    """Carry out a plan and wait for its end."""
    with Transfers(plan) as under_way:
        return under_way.finish()


class _Uploader:
    """One connection that uploads; every body begins with a key of its own, so that no two are equal."""

    def __init__(self, plan: Plan, connection: int, filler: bytes) -> None:
        self._plan, self._connection, self._filler = plan, connection, memoryview(filler)
        self._count = 0
        self._before, self._after = _form_frame() if plan.form else (b"", b"")

    def once(self, link: socket.socket, buffer: bytearray) -> int:
        """Upload one body; return its length without any framing."""
        self._count += 1
        key = hashlib.sha256(f"{self._plan.seed}/{self._connection}/{self._count}".encode()).hexdigest()
        method, _, path = self._plan.request.partition(" ")
        path = path.replace("{digest}", key).replace("{d2}", key[:2])
        media_type = f"multipart/form-data; boundary={_BOUNDARY}" if self._plan.form else http1.RAW
        length = self._plan.size + len(self._before) + len(self._after)
        head = http1.head(method, path, {"Content-Type": media_type}, length)
        link.sendall(head + self._before + key.encode())
        left = self._plan.size - len(key)
        while left:
            piece = min(left, len(self._filler))
            link.sendall(self._filler[:piece])
            left -= piece
        link.sendall(self._after)
        _require_success(link, buffer)
        return self._plan.size


class _Downloader:
    """One connection that downloads the same blob again and again."""

    def __init__(self, plan: Plan) -> None:
        method, _, path = plan.request.partition(" ")
        self._head = http1.head(method, path, {})

    def once(self, link: socket.socket, buffer: bytearray) -> int:
        """Download the blob; return the length of the answer's body."""
        link.sendall(self._head)
        return _require_success(link, buffer)


def _form_frame() -> tuple[bytes, bytes]:
    """Return what stands before and after the one file of a form (RFC 7578)."""
    disposition = 'Content-Disposition: form-data; name="file"; filename="bench.bin"'
    before = f"--{_BOUNDARY}\r\n{disposition}\r\nContent-Type: {http1.RAW}\r\n\r\n"
    return before.encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()


def _require_success(link: socket.socket, buffer: bytearray) -> int:
    status, length = http1.drain_answer(link, buffer)
    if not 200 <= status < 300:
        raise OSError(f"the answer was {status}")
    return length


def _carry_out(plan: Plan) -> dict[str, object]:
    """Run a plan in this process; return what :meth:`Transfers.finish` reads."""
    tally = _Tally()
    filler = os.urandom(MIB)
    start = threading.Barrier(plan.connections + 1)

    def work(number: int) -> None:
        try:
            with http1.connect(plan.port) as link:
                one = _Uploader(plan, number, filler) if plan.size else _Downloader(plan)
                buffer = bytearray(MIB)
                start.wait()
                deadline = time.perf_counter() + plan.seconds
                tally.add(one.once(link, buffer))
                while time.perf_counter() < deadline:
                    tally.add(one.once(link, buffer))
        except (OSError, threading.BrokenBarrierError) as error:
            start.abort()
            tally.blame(str(error) or type(error).__name__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(plan.connections)]
    for thread in threads:
        thread.start()
    try:
        start.wait(_DEADLINE_SECONDS)
    except threading.BrokenBarrierError:
        tally.blame("a connection could not be made")
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return {"moved": tally.moved, "transfers": tally.count, "seconds": seconds, "faults": tally.faults}


if __name__ == "__main__":
    print(json.dumps(_carry_out(Plan(**json.loads(sys.argv[1])))))
