"""``python -m tools.screenshots``: the pictures of the page in ``docs/images``, of a daemon with invented files."""

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.chromium import NAMES, find_chromium, launch_options
from tests.collection import Made, clip, document, picture, text, tone
from tests.proxy import Proxy, proxy_before

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150 * 1024
"""No picture is larger, so that the documentation stays quick to clone and to read."""

MIB = 1 << 20

_PATIENCE_SECONDS = 20
_SLOW = 3 * MIB


@dataclass(frozen=True)
class Look:
    """How a picture is taken."""

    name: str
    theme: Literal["light", "dark"] = "light"
    language: str = "en-US"
    is_phone: bool = False

    @property
    def size(self) -> ViewportSize:
        """Width and height in CSS pixels."""
        return {"width": 390, "height": 844} if self.is_phone else {"width": 1280, "height": 800}


def invent_files(page: Page) -> list[Made]:
    """Return the files of the collection, the oldest first."""
    return [
        document("tickets-to-lisbon.pdf", "Lisbon, there and back", "Two seats by the window", "Bring: tickets, hats"),
        text("packing-list.txt", "Hats\nSun cream\nThe good camera\nA book each\n"),
        picture("harbour-evening.png", 15, width=960, height=640),
        picture("old-town-roofs.png", 345, width=960, height=640),
        tone("street-organ.wav", hertz=392, seconds=3),
        clip("tram-28.webm", page),
        text("expenses.csv", "day,what,euro\n1,tram,12.40\n1,supper,38.00\n2,museum,16.00\n", "text/csv"),
        Made("maps-offline.zip", "application/zip", b"PK\5\6" + bytes(18 + 2_400_000)),
        picture("garden-gate.png", 110, width=960, height=640),
        picture("sea-at-noon.png", 200, width=960, height=640),
        text("diary.md", "# Day two\n\nWe took the tram to the end of the line and walked back by the river.\n"),
    ]


@contextlib.contextmanager
def run_daemon(store: Path) -> Iterator[str]:
    """Run a daemon from this checkout; yield its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}
    command = [sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", "0", "--store", str(store)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    try:
        yield _wait_until_ready(process, store / ".filestored" / "daemon.pid")
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)


def _wait_until_ready(process: "subprocess.Popen[bytes]", pid_file: Path) -> str:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            _, url = pid_file.read_text().split()
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return url
        time.sleep(0.05)
    raise SystemExit("screenshots: the daemon does not start")


def open_page(browser: Browser, url: str, look: Look) -> Page:
    """Open the page in a fresh profile, and wait until its files are there."""
    context = browser.new_context(
        viewport=look.size, color_scheme=look.theme, locale=look.language, reduced_motion="reduce",
        has_touch=look.is_phone, is_mobile=look.is_phone,
    )  # fmt: skip
    page = context.new_page()
    page.goto(url)
    expect(page.locator("[role=row][data-hash]").first).to_be_visible()
    # the small pictures are drawn after the list is there
    expect(page.locator("[role=row] canvas").first).to_be_visible()
    page.wait_for_timeout(800)
    return page


def save(page: Page, name: str) -> None:
    """Take the picture that is shown; with fewer colours where it would be too large."""
    shot = page.screenshot()
    if len(shot) > MOST_BYTES:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(shot)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
        shot = buffer.getvalue()
    if len(shot) > MOST_BYTES:
        raise SystemExit(f"screenshots: {name} has {len(shot)} bytes, more than {MOST_BYTES}")
    (IMAGES / f"{name}.png").write_bytes(shot)
    print(f"docs/images/{name}.png  {len(shot) // 1024} KiB", flush=True)


def take_lists(browser: Browser, url: str) -> None:
    """Take the list in each look."""
    for look in (
        Look("page"),
        Look("page-dark", theme="dark"),
        Look("page-phone", is_phone=True),
        Look("page-russian", language="ru-RU"),
    ):
        page = open_page(browser, url, look)
        save(page, look.name)
        page.context.close()


def take_dialogs(browser: Browser, url: str) -> None:
    """Take a preview, and a link with its QR code."""
    page = open_page(browser, url, Look("preview"))
    page.get_by_role("button", name="Open harbour-evening.png").click()
    expect(page.get_by_role("dialog").locator("img")).to_have_js_property("naturalWidth", 960)
    page.wait_for_timeout(300)
    save(page, "page-preview")
    page.context.close()
    page = open_page(browser, url, Look("link", theme="dark", is_phone=True))
    page.get_by_role("button", name="More for diary.md").click()
    page.get_by_role("menuitem", name="Make an expiring link…").click()
    page.get_by_role("button", name="Make the link").click()
    expect(page.get_by_role("img", name="QR code of the link")).to_be_visible()
    save(page, "page-link")
    page.context.close()


def take_uploads(browser: Browser, proxy: Proxy, folder: Path) -> None:
    """Take uploads under way, over a slow network."""
    page = open_page(browser, proxy.url, Look("uploads"))
    paths = []
    for name, size in (("film-of-the-trip.mp4", 48 * MIB), ("sound-of-the-sea.flac", 24 * MIB)):
        path = folder / name
        # the same in every run, without being nothing: noise from a counter
        path.write_bytes(b"".join(hashlib.sha256(b"%d" % block).digest() * 32 for block in range(size // 1024)))
        paths.append(path)
    proxy.limit(_SLOW)
    page.locator("#choose-files").set_input_files(paths)
    expect(page.get_by_role("progressbar").first).to_be_visible()
    proxy.wait_for(proxy.uploaded + 6 * _SLOW, seconds=120)
    page.wait_for_timeout(500)
    save(page, "page-uploads")
    page.context.close()


def main() -> int:
    """Take all pictures."""
    argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__).parse_args()
    program = find_chromium()
    if program is None:
        raise SystemExit(f"screenshots: {NAMES[0]} is not installed")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as work,
        run_daemon(Path(work) / "store") as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=launch_options())
        blank = browser.new_page()
        for file in invent_files(blank):
            file.store(url)
        expire(url, "tickets-to-lisbon.pdf")
        take_lists(browser, url)
        take_dialogs(browser, url)
        host, port = url.removeprefix("http://").split(":")
        with proxy_before((host, int(port))) as proxy:
            take_uploads(browser, proxy, Path(work))
        browser.close()
    return 0


def expire(url: str, name: str) -> None:
    """Let one file end in a year, so that the column is not empty."""
    with urllib.request.urlopen(f"{url}/v1/files?name={name}", timeout=5) as answer:
        [file] = json.load(answer)["files"]
    body = json.dumps({"expires_at": f"{int(file['created_at'][:4]) + 1}{file['created_at'][4:]}"}).encode()
    change = urllib.request.Request(
        f"{url}/v1/files/{file['hash']}", body, {"Content-Type": "application/json"}, method="PATCH"
    )
    urllib.request.urlopen(change, timeout=5).close()


if __name__ == "__main__":
    sys.exit(main())
