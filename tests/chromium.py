"""Where Chromium is and how it is started: for tests, measurements and screenshots alike."""

import os
import shutil

from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What the program may be called, the first choice first."""


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def launch_options() -> list[str]:
    """Return Chromium's flags: its sandbox does not work for root."""
    flags = ["--disable-dev-shm-usage", "--disable-gpu"]
    return ["--no-sandbox", *flags] if os.geteuid() == 0 else flags


def drop_files(page: Page, paths: list[str]) -> None:
    """Drop files and folders of this machine in the middle of the page, as a person would with the mouse."""
    session = page.context.new_cdp_session(page)
    size = page.viewport_size or {"width": 800, "height": 600}
    dragged = {"items": [], "files": paths, "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        where = {"x": size["width"] // 2, "y": size["height"] // 2}
        session.send("Input.dispatchDragEvent", {"type": kind, **where, "data": dragged})
    session.detach()
