"""A daemon with some files of each kind, and finding things on its page as a person would: by role and name."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import zxingcpp
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.collection import Made, clip, document, picture, text, tone
from tests.conftest import Daemon

HOSTILE_NAME = "<img src=x onerror=alert(1)>&quot;.txt"
KINDS = {"picture.png": "img", "tone.wav": "audio", "clip.webm": "video", "notes.txt": "pre", "report.pdf": "iframe"}


@dataclass(frozen=True)
class Library:
    """A daemon's files by their names."""

    daemon: Daemon
    files: dict[str, Made]
    hashes: dict[str, str]

    @property
    def url(self) -> str:
        """Address of the page."""
        return self.daemon.url


def make_files(page: Page) -> list[Made]:
    """Make one file of each kind, and some that must not act as markup."""
    return [
        text("notes.txt", "Milk\nBread\nПривет, мир\n"),
        picture("picture.png", 20),
        tone("tone.wav"),
        clip("clip.webm", page),
        document("report.pdf", "A report of one page"),
        Made("archive.zip", "application/zip", b"PK\5\6" + bytes(18)),
        text("page.html", "<script>parent.document.title = 'taken over'</script><h1>Hello</h1>", "text/html"),
        text("drawing.svg", '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "image/svg+xml"),
        text(HOSTILE_NAME, "The name is markup, and must not act as it."),
    ]


def fill(daemon: Daemon, files: Iterable[Made], headers: dict[str, str] | None = None) -> Library:
    """Store files, the last one last."""
    made = {file.name: file for file in files}
    return Library(daemon, made, {name: file.store(daemon.url, headers) for name, file in made.items()})


def store_many(daemon: Daemon, count: int, headers: dict[str, str] | None = None) -> list[str]:
    """Store numbered files of a few bytes; return their hashes."""
    with httpx.Client(base_url=daemon.url, headers=headers) as client:
        return [
            client.post("/v1/files", params={"name": f"file-{number:03}.txt"}, content=b"number %d" % number).json()[
                "hash"
            ]
            for number in range(count)
        ]


def run_library(folder: Path, page: Page, *flags: str) -> Library:
    """Start a daemon with a file of each kind."""
    return fill(Daemon(folder / "store", *flags).start(), make_files(page))


def rows(page: Page) -> Locator:
    """Return the rows of the files that are shown."""
    return page.locator("[role=row][data-hash]").filter(visible=True)


def row(page: Page, name: str) -> Locator:
    """Return the row of one file."""
    return rows(page).filter(has=page.get_by_role("button", name=f"Open {name}", exact=True))


def shown_names(page: Page) -> list[str]:
    """Return the names in the list, from top to bottom."""
    return rows(page).get_by_role("button", name="Open ").all_inner_texts()


def shown_hashes(page: Page) -> list[str]:
    """Return the hashes of the files in the list, from top to bottom."""
    hashes: list[str] = rows(page).evaluate_all("rows => rows.map((row) => row.dataset.hash)")
    return hashes


def wait_for_files(page: Page, count: int) -> None:
    """Wait until the list shows so many."""
    expect(rows(page)).to_have_count(count)


def open_file(page: Page, name: str) -> Locator:
    """Open the preview; return its dialog."""
    page.get_by_role("button", name=f"Open {name}", exact=True).click()
    dialog = page.get_by_role("dialog", name=name)
    expect(dialog).to_be_visible()
    return dialog


def choose(page: Page, name: str, action: str) -> None:
    """Choose an action from the menu of a file."""
    page.get_by_role("button", name=f"More for {name}", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def message(page: Page, said: str) -> Locator:
    """Return the message that says something."""
    return page.get_by_role("region", name="Messages").get_by_role("status").filter(has_text=said)


def is_stored(daemon: Daemon, digest: str, headers: dict[str, str] | None = None) -> bool:
    """Tell whether the daemon still has a file."""
    return httpx.get(f"{daemon.url}/v1/files/{digest}", headers=headers).status_code == 200


def clipboard(page: Page) -> str:
    """Return what was copied."""
    copied: str = page.evaluate("navigator.clipboard.readText()")
    return copied


def sign_in(page: Page, token: str, *, remember: bool = False) -> None:
    """Sign in from the page's header, and wait until it is done."""
    page.get_by_role("banner").get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("checkbox", name="Remember on this device").set_checked(remember)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()


def read_qr_code(image: Locator) -> str:
    """Read a code from the screen, as the camera of a phone would."""
    expect(image).to_be_visible()
    picture = Image.open(io.BytesIO(image.screenshot()))
    [code] = zxingcpp.read_barcodes(picture)
    return str(code.text)
