"""``python -m bench.client``: the client's commands beside wrk and curl.

Each pair is measured in turn, round after round; what is compared are medians. The commands are run as users run them:
a process each, its start included.
"""

import argparse
import hashlib
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.servers import ROOT, Site, run_daemon
from bench.uploads import empty_blobs, work_folder
from bench.wrk import Wrk

MIB = 1 << 20
FILES = 2000
FILE_BYTES = 16 * 1024
LARGE_BYTES = 1024 * MIB
SMALL_GOAL = 0.5
"""``put -r`` stores at least this part of the files a second that the server takes from wrk."""

LARGE_GOAL = 1.25
"""``put`` and ``get`` of a large file take at most so many times what curl takes."""

_CONNECTIONS = 16
_WRK_SECONDS = 4
_PATIENCE_SECONDS = 300
_ROUNDS = 5


def _run(*command: str | Path) -> float:
    """Run a command to its end; return the seconds."""
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, timeout=_PATIENCE_SECONDS, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _filestored(site: Site, *arguments: str | Path) -> float:
    return _run(sys.executable, "-m", "filestored", *arguments, "--url", f"http://127.0.0.1:{site.port}")


def make_tree(folder: Path) -> None:
    """Make the small files, new ones, a hundred a folder."""
    for number in range(FILES):
        path = folder / f"{number // 100:02}" / f"{number:04}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES))


def compare_tree(work: Path, durability: str, rounds: int) -> bool:
    """Measure ``put -r`` and wrk in turn; print the medians, tell whether the goal is met."""
    wrk = Wrk(shutil.which("wrk") or "wrk", os.sched_getaffinity(0))
    rates: dict[str, list[float]] = {"wrk": [], "put": []}
    with run_daemon(work, work / f"tree-{durability}", durability) as site:
        for number in range(rounds + 1):
            tree = work / f"tree-{durability}-{number}"
            make_tree(tree)
            figure = wrk.upload(site.port, "POST /", FILE_BYTES, _CONNECTIONS, _WRK_SECONDS, secrets.token_hex(8))
            rate = FILES / _filestored(site, "put", "-r", tree)
            # the first round warms up
            rates["wrk"].extend([figure.value] if number else [])
            rates["put"].extend([rate] if number else [])
    by_wrk, by_put = (statistics.median(measured) for measured in rates.values())
    is_met = by_put >= SMALL_GOAL * by_wrk
    print(
        f"put -r of {FILES} files of 16 KiB, {durability:<8} {by_put:6.0f}/s   wrk {by_wrk:6.0f}/s   "
        f"x{by_put / by_wrk:.2f} (goal {SMALL_GOAL})  {_verdict(is_met)}",
        flush=True,
    )
    return is_met


class Large:
    """One large file, made new before each upload by a few other bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("wb") as file:
            for _ in range(LARGE_BYTES // MIB):
                file.write(os.urandom(MIB))

    def renew(self) -> None:
        """Change it."""
        with self.path.open("r+b") as file:
            file.write(os.urandom(16))

    def digest(self) -> str:
        """Return its SHA-256."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def compare_large(work: Path, durability: str, rounds: int) -> bool:
    """Measure ``put``, ``get`` and curl in turn; print the medians, tell whether the goals are met."""
    large = Large(work / "large")
    store = work / f"large-{durability}"
    times: dict[str, list[float]] = {name: [] for name in ("curl put", "put", "curl get", "get")}
    with run_daemon(work, store, durability) as site:
        for number in range(rounds + 1):
            for name, seconds in _transfer(site, large, work / f"copy-{durability}").items():
                # the first round warms up
                times[name].extend([seconds] if number else [])
            empty_blobs(store)
    large.path.unlink()
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    verdicts = [_judged(name, durability, medians) for name in ("put", "get")]
    return all(verdicts)


def _transfer(site: Site, large: Large, target: Path) -> dict[str, float]:
    """Send and fetch the file once in each way; return the seconds."""
    address = f"http://127.0.0.1:{site.port}/"
    large.renew()
    taken = {"curl put": _run("curl", "-sS", "--fail", "-T", large.path, "-X", "POST", f"{address}v1/files")}
    large.renew()
    taken["put"] = _filestored(site, "put", "--no-progress", large.path)
    digest = large.digest()
    taken["curl get"] = _run("curl", "-sS", "--fail", "-o", target, f"{address}{digest}")
    target.unlink()
    taken["get"] = _filestored(site, "get", "--no-progress", digest, "-o", target)
    target.unlink()
    return taken


def _judged(name: str, durability: str, medians: dict[str, float]) -> bool:
    own, curl = medians[name], medians[f"curl {name}"]
    is_met = own <= LARGE_GOAL * curl
    print(
        f"{name} of 1 GiB, {durability:<8} {own:5.2f} s   curl {curl:5.2f} s   x{own / curl:.2f} (goal {LARGE_GOAL})  "
        f"{_verdict(is_met)}",
        flush=True,
    )
    return is_met


def measure_memory(work: Path) -> None:
    """Print the most memory that ``put`` and ``get`` of a large file take, beside that for a small one."""
    with run_daemon(work, work / "memory", "relaxed") as site:
        for size in (MIB, LARGE_BYTES):
            path = work / f"memory-{size}"
            with path.open("wb") as file:
                file.write(os.urandom(16))
                file.truncate(size)
            peaks = [_peak(site, "put", "--no-progress", path), _peak(site, "put", "--no-progress", "-", source=path)]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            peaks.append(_peak(site, "get", digest, "-o", work / f"memory-copy-{size}"))
            shown = "   ".join(f"{name} {peak} MiB" for name, peak in zip(("put", "put -", "get"), peaks, strict=True))
            print(f"memory at most, {size // MIB:5} MiB: {shown}", flush=True)


def _peak(site: Site, *arguments: str | Path, source: Path = Path(os.devnull)) -> int:
    """Run a command; return the most memory it has had, in MiB."""
    code = (
        "import os, resource, sys\nfrom filestored.cli.commands import main\nstatus = main()\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\nsys.exit(status)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments), "--url", f"http://127.0.0.1:{site.port}"]
    with source.open("rb") as stream:
        ended = subprocess.run(
            command, stdin=stream, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, text=True,
            timeout=_PATIENCE_SECONDS,
        )  # fmt: skip
    found = re.search(r"PEAK ([0-9]+)", ended.stderr)
    if found is None:
        raise SystemExit(f"bench.client: {ended.stderr}")
    return int(found[1]) // 1024


def _verdict(is_met: bool) -> str:
    return "reached" if is_met else "MISSED"


def main() -> int:
    """Measure and print; return 0, or 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"how often each is measured ({_ROUNDS})")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "bench", help="where the stores lie meanwhile")
    arguments = parser.parse_args()
    missing = [name for name in ("curl", "wrk") if not shutil.which(name)]
    if missing:
        raise SystemExit(f"bench.client: not found: {' and '.join(missing)}")
    with work_folder(arguments.dir.resolve()) as work:
        met = [compare_tree(work, durability, arguments.rounds) for durability in ("relaxed", "full")]
        met += [compare_large(work, durability, arguments.rounds) for durability in ("relaxed", "full")]
        measure_memory(work)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
