"""``python -m bench.uploads``: resumable uploads beside plain ones, the page beside curl, and how soon it can be used.

Each pair is measured in turn, round after round; what is compared are medians.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from bench import http1
from bench.servers import ROOT, Site, run_daemon
from tests.chromium import NAMES, drop_files, find_chromium, launch_options

MIB = 1 << 20
LARGE_BYTES = 256 * MIB
CHUNK_BYTES = 8 * MIB
FILES = 200
FILE_BYTES = 100 * 1024
CONNECTIONS = 6
TUS_GOAL = 0.7
"""A resumable upload reaches at least this part of the plain upload's rate."""

PAGE_GOAL = 1.5
"""Files dropped on the page take at most so many times what curl takes for them."""

INTERACTIVE_GOAL_MS = 300
"""The page can be used so many milliseconds after it was asked for."""

_PATIENCE_SECONDS = 120
_ROUNDS = 5
_VISITS = 10
_CURL_EACH = 'xargs -P {n} -I @ curl -sS --fail -o /dev/null -T @ "{url}"'
_NOTE_FIRST_SHOWN = """
new MutationObserver(() => {
  if (window.firstShown === undefined && document.querySelector("#list:not([hidden]) [data-hash]")) {
    window.firstShown = performance.now();
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


class Bodies:
    """Large bodies that no store has seen yet: the same noise, with another number before each MiB."""

    def __init__(self) -> None:
        self._filler = os.urandom(MIB - 8)
        self._number = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes (a multiple of a MiB) in pieces of a MiB."""
        for _ in range(size // MIB):
            self._number += 1
            yield self._number.to_bytes(8, "big") + self._filler


def upload_plainly(site: Site, bodies: Bodies, buffer: bytearray) -> float:
    """Upload one large file in one request; return the seconds."""
    began = time.perf_counter()
    with http1.connect(site.port) as link:
        link.sendall(http1.head("POST", "/", {"Content-Type": http1.RAW}, LARGE_BYTES))
        for piece in bodies.pieces(LARGE_BYTES):
            link.sendall(piece)
        _require(http1.drain_answer(link, buffer)[0], 200)
    return time.perf_counter() - began


def upload_by_tus(site: Site, bodies: Bodies, buffer: bytearray) -> float:
    """Upload one large file by tus in chunks, over one connection; return the seconds."""
    began = time.perf_counter()
    created = http1.call(
        site.port, "POST", "/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(LARGE_BYTES)}
    )
    _require(created.status, 201)
    fields = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    with http1.connect(site.port) as link:
        for offset in range(0, LARGE_BYTES, CHUNK_BYTES):
            fields["Upload-Offset"] = str(offset)
            link.sendall(http1.head("PATCH", created.headers["location"], fields, CHUNK_BYTES))
            for piece in bodies.pieces(CHUNK_BYTES):
                link.sendall(piece)
            _require(http1.drain_answer(link, buffer)[0], 204)
    return time.perf_counter() - began


def _require(status: int, wanted: int) -> None:
    if status != wanted:
        raise SystemExit(f"bench.uploads: the answer was {status}, not {wanted}")


def compare_tus(work: Path, durability: str, rounds: int) -> bool:
    """Measure plain and resumable uploads in turn; print the medians, tell whether the goal is met."""
    bodies, buffer = Bodies(), bytearray(MIB)
    times: dict[Callable[[Site, Bodies, bytearray], float], list[float]] = {upload_plainly: [], upload_by_tus: []}
    store = work / f"tus-{durability}"
    with run_daemon(work, store, durability) as site:
        for number in range(rounds + 1):
            for upload, taken in times.items():
                seconds = upload(site, bodies, buffer)
                # the first round warms up
                taken.extend([seconds] if number else [])
                empty_blobs(store)
    plain, resumable = (LARGE_BYTES / 1e6 / statistics.median(taken) for taken in times.values())
    verdict = "reached" if resumable >= TUS_GOAL * plain else "MISSED"
    print(
        f"256 MiB, {durability:<8} plain {plain:6.0f} MB/s   tus in 8 MiB chunks {resumable:6.0f} MB/s   "
        f"x{resumable / plain:.2f} (goal {TUS_GOAL})  {verdict}",
        flush=True,
    )
    return verdict == "reached"


def empty_blobs(store: Path) -> None:
    """Give back what the blobs of a store take, not removing them: a file system is slow for minutes after that."""
    for blob in store.glob("[0-9a-f][0-9a-f]/*"):
        if blob.stat().st_size:
            os.chmod(blob, 0o600)
            os.truncate(blob, 0)


def make_files(folder: Path) -> list[Path]:
    """Make new files, each named by its SHA-256: by that name curl can PUT it."""
    folder.mkdir()
    paths = []
    for _ in range(FILES):
        body = os.urandom(FILE_BYTES)
        path = folder / hashlib.sha256(body).hexdigest()
        path.write_bytes(body)
        paths.append(path)
    return paths


def upload_by_curl(site: Site, paths: list[Path]) -> float:
    """Upload by one curl over 6 connections; return the seconds."""
    names = ",".join(str(path) for path in paths)
    target = f"http://127.0.0.1:{site.port}/"
    command = [
        "curl", "-sS", "--fail", "--no-progress-meter", "--parallel", "--parallel-max", str(CONNECTIONS),
        "-o", os.devnull, "-T", f"{{{names}}}", target,
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(command, check=True, timeout=_PATIENCE_SECONDS, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def upload_by_curls(site: Site, paths: list[Path]) -> float:
    """Upload by one curl a file, 6 at a time; return the seconds."""
    command = _CURL_EACH.format(n=CONNECTIONS, url=f"http://127.0.0.1:{site.port}/")
    began = time.perf_counter()
    subprocess.run(
        ["/bin/sh", "-c", command], input="\n".join(map(str, paths)), text=True, check=True, timeout=_PATIENCE_SECONDS
    )
    return time.perf_counter() - began


def upload_by_page(site: Site, paths: list[Path], browser: Browser) -> float:
    """Drop the files on the page; return the seconds until the server has them all."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{site.port}/", wait_until="networkidle")
    wanted = _count(site) + len(paths)
    began = time.perf_counter()
    drop_files(page, [str(path) for path in paths])
    while _count(site) < wanted:
        if time.perf_counter() - began > _PATIENCE_SECONDS:
            raise SystemExit("bench.uploads: the page does not come to an end")
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    page.close()
    return seconds


def _count(site: Site) -> int:
    return int(json.loads(http1.call(site.port, "GET", "/v1/stats").body)["files"])


def compare_page(work: Path, browser: Browser, rounds: int) -> bool:
    """Measure the page and curl in turn; print the medians, tell whether the goal is met."""
    times: dict[str, list[float]] = {"curl": [], "curls": [], "page": []}
    with run_daemon(work, work / "page", "full") as site:
        for number in range(rounds + 1):
            round_times = {
                "curl": upload_by_curl(site, make_files(work / f"curl-{number}")),
                "curls": upload_by_curls(site, make_files(work / f"curls-{number}")),
                "page": upload_by_page(site, make_files(work / f"page-{number}"), browser),
            }
            for name, seconds in round_times.items():
                # the first round warms up
                times[name].extend([seconds] if number else [])
        interactive = statistics.median(_time_to_interactive(site, browser) for _ in range(_VISITS))
    curl, curls, page = (statistics.median(taken) for taken in times.values())
    verdict = "reached" if page <= PAGE_GOAL * curl else "MISSED"
    print(
        f"{FILES} files of {FILE_BYTES // 1024} KiB: one curl {curl * 1000:.0f} ms   a curl each {curls * 1000:.0f} ms"
        f"   the page {page * 1000:.0f} ms   x{page / curl:.2f} of one curl (goal {PAGE_GOAL})  {verdict},"
        f" x{page / curls:.2f} of a curl each"
    )
    is_soon = interactive <= INTERACTIVE_GOAL_MS
    print(
        f"the page shows its files after {interactive:.0f} ms (goal {INTERACTIVE_GOAL_MS})  "
        f"{'reached' if is_soon else 'MISSED'}",
        flush=True,
    )
    return verdict == "reached" and is_soon


def _time_to_interactive(site: Site, browser: Browser) -> float:
    """Visit the page with an empty cache; return the milliseconds until its list is there and answers."""
    page = browser.new_page()
    page.add_init_script(_NOTE_FIRST_SHOWN)
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.locator("#list [data-hash]").first.wait_for()
    shown: float = page.evaluate("window.firstShown")
    page.close()
    return shown


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for the time of a block."""
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="uploads-", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Measure and print; return 0, or 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.uploads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"how often each is measured ({_ROUNDS})")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "bench", help="where the stores lie meanwhile")
    arguments = parser.parse_args()
    chromium = find_chromium()
    missing = [name for name, found in ((NAMES[0], chromium), ("curl", shutil.which("curl"))) if not found]
    if missing:
        raise SystemExit(f"bench.uploads: not found: {' and '.join(missing)}")
    with work_folder(arguments.dir.resolve()) as work:
        met = [compare_tus(work, durability, arguments.rounds) for durability in ("relaxed", "full")]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=launch_options())
            met.append(compare_page(work, browser, arguments.rounds))
            browser.close()
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
