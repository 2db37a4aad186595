"""Uploads from the page: what comes in, what is shown, and what survives; in a real browser, with a real daemon."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Dialog, Locator, Page, Response, Route, expect

from filestored.blobs.layout import StoreFolder
from filestored.digest import Algorithm
from filestored.shared import renew_tokens
from tests.browser.library import row
from tests.browsing import NewPage, Watch
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.tokens import bearer, make_token, revoke_token

MIB = 1 << 20
TUS = {"tus-resumable": "1.0.0"}
LARGE = 40 * MIB
"""Large enough to be sent in pieces, and that what waits in sockets, some MiB, is little of it."""

SLOW = 10 * MIB
"""Bytes a second that leave time to look on."""

PIECE = 16 * MIB
"""What the page sends in one request: at most so much is lost with a daemon that is killed."""

IN_SOCKETS = 10 * MIB
"""As much as may be lost with a connection, or go on arriving after a page has stopped."""

CUT = "ERR_|status of (404|409|423)"
"""What Chromium writes into its console of cut connections, of uploads that are gone or still held by the last one."""

TRACES = """
  const database = await new Promise((done) => {
    const request = indexedDB.open("filestored-uploads", 1);
    request.onsuccess = () => done(request.result);
  });
  const store = database.transaction("filestored-uploads", "readwrite").objectStore("filestored-uploads");
  const traces = await new Promise((done) => {
    const request = store.getAll();
    request.onsuccess = () => done(request.result);
  });
  database.close();
"""
"""Reads what the page remembers of unfinished uploads."""

COUNT_TRACES = f"async () => {{ {TRACES} return traces.length; }}"
AGE_TRACES = (
    f"async (age) => {{ {TRACES} traces.forEach((trace) => store.put({{ ...trace, created: trace.created - age }})); }}"
)


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    """A network before the session's daemon, to be made slow and cut."""
    with Proxy(daemon.address) as proxy:
        yield proxy


def make_file(folder: Path, name: str, size: int) -> Path:
    """Make a file whose content no other has."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visit(page: Page, url: str) -> None:
    """Open the page and wait until it listens."""
    page.goto(url)
    expect(page.locator("#list:not([hidden]), #state:not([hidden])").first).to_be_visible()


def choose(page: Page, *paths: Path) -> None:
    """Choose files as by the button."""
    page.locator("#choose-files").set_input_files([str(path) for path in paths])


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders of this machine, as a person would with the mouse."""
    session = page.context.new_cdp_session(page)
    dragged = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 400, "data": dragged})


def drop_made(page: Page, count: int) -> None:
    """Drop files that the page itself has made, of a few bytes each."""
    page.evaluate(
        """(count) => {
          const dataTransfer = new DataTransfer();
          for (let number = 0; number < count; number++) {
            dataTransfer.items.add(new File([`made ${number} ${Math.random()}`], `made-${number}.txt`));
          }
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        count,
    )


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Uploads")


def upload(page: Page, name: str) -> Locator:
    """Return the line of one upload."""
    return panel(page).get_by_role("listitem").filter(has_text=name)


def press(page: Page, name: str) -> None:
    panel(page).get_by_role("button", name=name, exact=True).click()


def expect_stored(page: Page, daemon: Daemon, *paths: Path, seconds: float = 30) -> None:
    """Wait until the page says that files are stored, and see that the daemon has their very bytes."""
    for path in paths:
        expect(upload(page, path.name)).to_contain_text("Stored", timeout=seconds * 1000)
        assert httpx.get(f"{daemon.url}/{digest_of(path)}").content == path.read_bytes()


class Addresses:
    """The addresses of the resumable uploads that a page begins."""

    def __init__(self, page: Page) -> None:
        self.all: list[str] = []
        page.on("response", self._note)

    def _note(self, response: Response) -> None:
        if response.request.method == "POST" and response.url.endswith("/v1/uploads"):
            self.all.append(response.headers["location"])


def offset_of(daemon: Daemon, address: str) -> int:
    answer = httpx.head(f"{daemon.url}{address}", headers=TUS)
    answer.raise_for_status()
    return int(answer.headers["upload-offset"])


def is_gone(daemon: Daemon, address: str) -> bool:
    return httpx.head(f"{daemon.url}{address}", headers=TUS).status_code == 404


class TestComingIn:
    def test_files_that_are_chosen_are_stored_under_their_names(
        self, page: Page, daemon: Daemon, tmp_path: Path
    ) -> None:
        sizes = {
            "один.txt": 10,
            'it\'s "100%" (new)*.pdf': 1000,
            "empty.bin": 0,
            "middle.bin": MIB,
            "large.bin": 6 * MIB,
        }
        paths = [make_file(tmp_path, name, size) for name, size in sizes.items()]
        # other tests have stored nothing, too
        httpx.delete(f"{daemon.url}/{digest_of(paths[2])}")
        visit(page, daemon.url)
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload files").click()
        chooser.value.set_files([str(path) for path in paths])
        expect_stored(page, daemon, *paths)
        for path in paths:
            file = httpx.get(f"{daemon.url}/v1/files/{digest_of(path)}").json()
            assert (file["name"], file["size"]) == (path.name, path.stat().st_size)
            expect(row(page, path.name).first).to_be_visible()

    def test_a_dropped_folder_comes_with_all_that_is_in_it(self, page: Page, daemon: Daemon, tmp_path: Path) -> None:
        paths = [make_file(tmp_path, f"album/summer/{number:03}.jpg", 2000) for number in range(130)]
        paths.append(make_file(tmp_path, "album/cover.jpg", 2000))
        paths.append(make_file(tmp_path, "beside.txt", 2000))
        visit(page, daemon.url)
        drop(page, tmp_path / "album", tmp_path / "beside.txt")
        expect(panel(page)).to_contain_text("132 files stored")
        hashes = [digest_of(path) for path in paths]
        assert httpx.post(f"{daemon.url}/v1/files/missing", json={"hashes": hashes}).json() == {"missing": []}

    def test_a_chosen_folder_shows_where_each_file_lay(self, page: Page, daemon: Daemon, tmp_path: Path) -> None:
        path = make_file(tmp_path, "album/winter/one.jpg", 2000)
        visit(page, daemon.url)
        page.locator("#choose-folder").set_input_files(str(tmp_path / "album"))
        expect(upload(page, "album/winter/one.jpg")).to_contain_text("Stored")
        assert httpx.get(f"{daemon.url}/v1/files/{digest_of(path)}").json()["name"] == "one.jpg"

    def test_a_pasted_picture_is_named_by_the_time(self, page: Page, daemon: Daemon) -> None:
        visit(page, daemon.url)
        page.evaluate(
            """() => {
              const clipboardData = new DataTransfer();
              clipboardData.items.add(new File([`picture ${Math.random()}`], "image.png", { type: "image/png" }));
              document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
            }"""
        )
        expect(upload(page, "Pasted image")).to_contain_text(
            re.compile(r"Pasted image \d{4}-\d\d-\d\d \d\d-\d\d-\d\d\.png.*Stored")
        )

    def test_content_that_is_stored_already_is_not_sent(
        self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path
    ) -> None:
        paths = [make_file(tmp_path, f"{size}.bin", size) for size in (100_000, 2 * MIB, 12 * MIB)]
        for path in paths:
            httpx.post(f"{daemon.url}/v1/files?name=old-name&expires_in=1h", content=path.read_bytes())
        visit(page, proxy.url)
        before = proxy.uploaded
        choose(page, *paths)
        for path in paths:
            expect(upload(page, path.name)).to_contain_text("Was there already")
            file = httpx.get(f"{daemon.url}/v1/files/{digest_of(path)}").json()
            assert (file["name"], file["expires_at"]) == (path.name, None)
        assert proxy.uploaded - before < 50_000

    def test_what_only_others_keep_is_sent(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of 401")
        daemon = start_daemon()
        tokens = {name: make_token(daemon.store, name, "read,write") for name in ("ann", "bob")}
        path = make_file(tmp_path, "shared.bin", 6 * MIB)
        httpx.post(f"{daemon.url}/v1/files", content=path.read_bytes(), headers=bearer(tokens["ann"]))
        page = new_page()
        sign_in(page, daemon.url, tokens["bob"])
        choose(page, path)
        expect(upload(page, path.name)).to_contain_text("Stored")
        answer = httpx.get(f"{daemon.url}/v1/files/{digest_of(path)}", headers=bearer(tokens["bob"]))
        assert answer.json()["owner"] == "bob"

    def test_too_many_files_are_refused_in_words(self, page: Page, daemon: Daemon, tmp_path: Path) -> None:
        (tmp_path / "many").mkdir()
        for number in range(20_001):
            (tmp_path / "many" / str(number)).touch()
        visit(page, daemon.url)
        drop(page, tmp_path / "many")
        expect(page.get_by_role("alert").filter(has_text="more than 20,000 files")).to_be_visible()
        expect(panel(page)).to_be_hidden()

    def test_a_long_queue_shows_what_is_under_way(self, page: Page, proxy: Proxy) -> None:
        visit(page, proxy.url)
        proxy.limit(200_000)
        drop_made(page, 1500)
        expect(panel(page)).to_contain_text(re.compile(r"[\d,]+ more are waiting"))
        assert panel(page).get_by_role("listitem").count() < 60
        press(page, "Pause all")
        press(page, "Resume all")
        proxy.limit(None)
        expect(panel(page)).to_contain_text(re.compile(r"[\d,]+ files stored"), timeout=60_000)
        counts = re.findall(r"([\d,]+) (?:files? stored|(?:was|were) there already)", panel(page).inner_text())
        # some were stored as they were paused
        assert sum(int(count.replace(",", "")) for count in counts[: len(counts) // 2]) == 1500


def sign_in(page: Page, url: str, token: str) -> None:
    visit(page, url)
    page.get_by_role("button", name="Sign in").first.click()
    enter(page, token)


def enter(page: Page, token: str) -> None:
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()


class TestOneUpload:
    def test_shows_how_far_and_how_fast_it_is(self, page: Page, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        bar = panel(page).get_by_role("progressbar", name="film.bin")
        expect(bar).to_have_attribute("aria-valuetext", re.compile(r"\d+% · .+ of 42 MB · [\d.]+ MB/s · .+ left"))
        expect(bar).to_have_attribute("value", re.compile(r"[3-9]\d"))
        proxy.limit(None)
        expect(upload(page, "film.bin")).to_contain_text("Stored")
        expect(panel(page).get_by_role("status")).to_have_text("1 file stored")
        press(page, "Clear finished")
        expect(panel(page)).to_be_hidden()

    def test_goes_on_after_a_pause(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(proxy.uploaded + 8 * MIB)
        press(page, "Pause film.bin")
        expect(upload(page, "film.bin")).to_contain_text(re.compile(r"Paused · \d\d?% · .* of 42 MB"))
        proxy.limit(None)
        page.wait_for_timeout(1000)
        assert proxy.uploaded < 8 * MIB + 2 * IN_SOCKETS
        press(page, "Resume film.bin")
        expect_stored(page, daemon, path)
        assert proxy.uploaded < LARGE + IN_SOCKETS

    def test_keeps_the_keyboard_where_it_is(
        self, page: Page, daemon: Daemon, proxy: Proxy, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow(CUT)
        paths = [make_file(tmp_path, name, LARGE) for name in ("film.bin", "other.bin")]
        visit(page, proxy.url)
        proxy.limit(MIB)
        choose(page, *paths)
        panel(page).get_by_role("button", name="Pause film.bin").focus()
        page.keyboard.press("Enter")
        expect(panel(page).get_by_role("button", name="Resume film.bin")).to_be_focused()
        page.keyboard.press("Space")
        expect(panel(page).get_by_role("button", name="Pause film.bin")).to_be_focused()
        page.keyboard.press("Tab")
        expect(panel(page).get_by_role("button", name="Cancel film.bin")).to_be_focused()
        page.keyboard.press("Enter")
        expect(upload(page, "film.bin")).to_have_count(0)
        expect(panel(page).locator("button:focus")).to_be_visible()
        press(page, "Cancel other.bin")
        expect(panel(page)).to_be_hidden()

    def test_that_is_small_is_sent_again_after_a_pause(
        self, page: Page, daemon: Daemon, proxy: Proxy, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("ERR_")
        path = make_file(tmp_path, "letter.bin", 3 * MIB)
        visit(page, proxy.url)
        proxy.limit(250_000)
        choose(page, path)
        proxy.wait_for(proxy.uploaded + 250_000)
        press(page, "Pause letter.bin")
        # a browser that does not know of the pause yet sends all of it again where its connection is cut
        expect(upload(page, "letter.bin")).to_contain_text("Paused · 3.1 MB")
        # what waits in the sockets is not to make it whole
        proxy.cut()
        proxy.limit(None)
        assert httpx.get(f"{daemon.url}/{digest_of(path)}").status_code == 404
        press(page, "Resume letter.bin")
        expect_stored(page, daemon, path)

    def test_is_forgotten_by_the_server_when_cancelled(
        self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path
    ) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        addresses = Addresses(page)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(4 * MIB)
        press(page, "Cancel film.bin")
        expect(panel(page)).to_be_hidden()
        proxy.limit(None)
        [address] = addresses.all
        wait_until(lambda: httpx.head(f"{daemon.url}{address}", headers=TUS).status_code == 404)
        page.reload()
        expect(page.get_by_text("Unfinished uploads")).to_be_hidden()

    def test_of_several_sent_together_one_can_be_cancelled(
        self, page: Page, daemon: Daemon, proxy: Proxy, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("ERR_")
        paths = [make_file(tmp_path, f"{number}.bin", 400_000) for number in range(4)]
        visit(page, proxy.url)
        proxy.limit(200_000)
        choose(page, *paths)
        press(page, "Cancel 2.bin")
        expect(upload(page, "2.bin")).to_have_count(0)
        proxy.cut()
        proxy.limit(None)
        expect_stored(page, daemon, *(paths[:2] + paths[3:]))
        assert httpx.get(f"{daemon.url}/{digest_of(paths[2])}").status_code == 404

    def test_that_is_small_is_asked_about_before_the_page_closes(
        self, page: Page, proxy: Proxy, tmp_path: Path
    ) -> None:
        path = make_file(tmp_path, "letter.bin", 3 * MIB)
        visit(page, proxy.url)
        page.locator("h1").click()
        proxy.limit(500_000)
        choose(page, path)
        expect(panel(page)).to_contain_text("left")
        asked: list[str] = []

        def stay(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.dismiss()

        page.on("dialog", stay)
        page.close(run_before_unload=True)
        # the page is still there
        expect(panel(page)).to_contain_text("left")
        assert asked == ["beforeunload"]
        proxy.limit(None)
        expect(upload(page, "letter.bin")).to_contain_text("Stored")


class TestABadNetwork:
    @pytest.fixture(autouse=True)
    def _allow(self, watch: Watch) -> None:
        watch.allow(CUT)

    def test_cut_connections_are_made_again(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        for reached in (12 * MIB, 28 * MIB):
            proxy.wait_for(reached)
            # it may be between two connections
            assert wait_until(lambda: proxy.cut() > 0)
        proxy.limit(None)
        expect_stored(page, daemon, path)
        # what had come was kept
        assert proxy.uploaded < LARGE + 2 * IN_SOCKETS

    def test_small_files_are_sent_again(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        paths = [make_file(tmp_path, f"{number}.bin", 300_000) for number in range(4)]
        visit(page, proxy.url)
        proxy.limit(400_000)
        choose(page, *paths)
        proxy.wait_for(200_000)
        proxy.vanish()
        expect(panel(page)).to_contain_text("The server does not answer: trying again")
        proxy.limit(None)
        proxy.come_back()
        expect_stored(page, daemon, *paths)

    def test_a_browser_that_is_offline_waits(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(4 * MIB)
        page.context.set_offline(True)
        proxy.cut()
        expect(upload(page, "film.bin")).to_contain_text("No connection")
        proxy.limit(None)
        page.context.set_offline(False)
        expect_stored(page, daemon, path)

    def test_a_killed_daemon_goes_on_where_it_was(self, page: Page, start_daemon: StartDaemon, tmp_path: Path) -> None:
        daemon = start_daemon()
        path = make_file(tmp_path, "film.bin", LARGE)
        addresses = Addresses(page)
        with Proxy(daemon.address) as proxy:
            visit(page, proxy.url)
            proxy.limit(SLOW)
            choose(page, path)
            proxy.wait_for(PIECE + IN_SOCKETS)
            daemon.kill()
            expect(upload(page, "film.bin")).to_contain_text("The server does not answer: trying again")
            daemon.start()
            assert offset_of(daemon, addresses.all[0]) >= PIECE
            proxy.limit(None)
            proxy.aim(daemon.address)
            expect_stored(page, daemon, path)
            assert len(addresses.all) == 1

    def test_what_the_server_forgot_is_begun_anew(
        self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path
    ) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        addresses = Addresses(page)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(4 * MIB)
        press(page, "Pause film.bin")
        # once what is still on its way has come
        wait_until(lambda: httpx.delete(f"{daemon.url}{addresses.all[0]}", headers=TUS).status_code == 204)
        proxy.limit(None)
        press(page, "Resume film.bin")
        expect_stored(page, daemon, path)
        assert len(addresses.all) == 2


class TestAClosedPage:
    @pytest.fixture(autouse=True)
    def _allow(self, watch: Watch) -> None:
        watch.allow(CUT)

    def begin(self, page: Page, proxy: Proxy, path: Path) -> str:
        """Upload some of a file, then leave; return its address."""
        addresses = Addresses(page)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(proxy.uploaded + 8 * MIB)
        page.goto("about:blank")
        proxy.limit(None)
        [address] = addresses.all
        return address

    def test_the_same_file_goes_on_where_it_was(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        address = self.begin(page, proxy, path)
        visit(page, proxy.url)
        expect(page.get_by_text("Unfinished uploads")).to_be_visible()
        expect(upload(page, "film.bin")).to_contain_text(re.compile(r"\d\d% · .* · Choose or drop the same file"))
        begun, at = proxy.uploaded, offset_of(daemon, address)
        assert at > MIB
        choose(page, path)
        expect_stored(page, daemon, path)
        assert proxy.uploaded - begun < LARGE - at + MIB
        page.reload()
        expect(row(page, "film.bin").first).to_be_visible()
        expect(page.get_by_text("Unfinished uploads")).to_be_hidden()

    def test_survives_a_killed_daemon_too(self, page: Page, start_daemon: StartDaemon, tmp_path: Path) -> None:
        daemon = start_daemon()
        path = make_file(tmp_path, "film.bin", LARGE)
        with Proxy(daemon.address) as proxy:
            address = self.begin(page, proxy, path)
            wait_until(lambda: offset_of(daemon, address) > 0)
            daemon.kill()
            daemon.start()
            proxy.aim(daemon.address)
            assert offset_of(daemon, address) > 0
            visit(page, proxy.url)
            press(page, "Choose the file again: film.bin")
            # the button opens a chooser of its own
            panel(page).locator("input[type=file]").set_input_files(str(path))
            expect_stored(page, daemon, path)

    def test_another_file_of_that_name_is_refused(self, page: Page, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        self.begin(page, proxy, path)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        visit(page, proxy.url)
        expect(upload(page, "film.bin")).to_be_visible()
        panel(page).locator("input[type=file]").set_input_files(str(path))
        expect(upload(page, "film.bin")).to_contain_text("That is not the same file")

    def test_a_dropped_file_goes_on_without_being_chosen_again(
        self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path
    ) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        drop(page, path)
        proxy.wait_for(proxy.uploaded + 8 * MIB)
        # while a page of the site is open Chromium does not ask anew whether the file may be read
        visit(page.context.new_page(), proxy.url)
        page.goto("about:blank")
        proxy.limit(None)
        visit(page, proxy.url)
        begun = proxy.uploaded
        press(page, "Continue: film.bin")
        expect_stored(page, daemon, path)
        assert proxy.uploaded - begun < LARGE - MIB

    def test_can_be_discarded(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        address = self.begin(page, proxy, path)
        visit(page, proxy.url)
        press(page, "Discard film.bin")
        expect(panel(page)).to_be_hidden()
        wait_until(lambda: httpx.head(f"{daemon.url}{address}", headers=TUS).status_code == 404)

    def test_another_tab_does_not_interfere(self, page: Page, daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
        path = make_file(tmp_path, "film.bin", LARGE)
        addresses = Addresses(page)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(proxy.uploaded + 4 * MIB)
        other = page.context.new_page()
        others = Addresses(other)
        visit(other, proxy.url)
        expect(upload(other, "film.bin")).to_contain_text("Continued in another tab")
        choose(other, path)
        expect(upload(other, "film.bin")).to_contain_text("Continued in another tab")
        page.close()
        proxy.limit(None)
        expect_stored(other, daemon, path)
        assert (len(addresses.all), others.all) == (1, [])


class TestRefusals:
    def test_a_full_quota_is_said_in_words(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of (401|413)")
        daemon = start_daemon()
        token = make_token(daemon.store, "ann", "read,write,delete", quota=MIB)
        small = [make_file(tmp_path, f"{number}.bin", 300_000) for number in range(4)]
        large = make_file(tmp_path, "large.bin", 6 * MIB)
        page = new_page()
        sign_in(page, daemon.url, token)
        choose(page, *small, large)
        # three of the small ones have room, whichever they are
        expect(panel(page)).to_contain_text("3 files stored · 2 failed")
        expect(panel(page)).to_contain_text(re.compile("Too large: .*do not fit"))
        # where a small one was refused first it is not even sent
        expect(upload(page, "large.bin")).to_contain_text(re.compile("Too large: .*do not fit|Not sent: "))
        make_room = httpx.get(f"{daemon.url}/v1/files", headers=bearer(token)).json()["files"][0]["hash"]
        httpx.delete(f"{daemon.url}/{make_room}", headers=bearer(token))
        failed = panel(page).get_by_role("button", name=re.compile(r"Retry \d\.bin"))
        failed.click()
        expect(panel(page)).to_contain_text("4 files stored · 1 failed")

    def test_goes_on_after_signing_in(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of 401")
        daemon = start_daemon("--anonymous", "none")
        token = make_token(daemon.store, "ann", "read,write")
        paths = [make_file(tmp_path, f"{size}.bin", size) for size in (1000, 6 * MIB)]
        page = new_page()
        visit(page, daemon.url)
        choose(page, *paths)
        for path in paths:
            expect(upload(page, path.name)).to_contain_text("Sign in, then it goes on.")
        enter(page, token)
        for path in paths:
            expect(upload(page, path.name)).to_contain_text("Stored")
            answer = httpx.get(f"{daemon.url}/v1/files/{digest_of(path)}", headers=bearer(token))
            assert answer.json()["name"] == path.name

    def test_a_token_that_may_not_upload_is_told_so(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of (401|403)")
        daemon = start_daemon()
        token = make_token(daemon.store, "reader", "read")
        page = new_page()
        sign_in(page, daemon.url, token)
        drop(page, make_file(tmp_path, "one.bin", 1000), make_file(tmp_path, "two.bin", 6 * MIB))
        for name in ("one.bin", "two.bin"):
            expect(upload(page, name)).to_contain_text("You may not upload here")

    def test_a_token_that_may_not_read_uploads(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of (401|403)")
        daemon = start_daemon()
        token = make_token(daemon.store, "box", "write")
        reader = make_token(daemon.store, "reader", "read")
        paths = [make_file(tmp_path, f"{size}.bin", size) for size in (1000, 6 * MIB)]
        page = new_page()
        sign_in(page, daemon.url, token)
        choose(page, *paths)
        for path in paths:
            expect(upload(page, path.name)).to_contain_text("Stored")
            assert httpx.get(f"{daemon.url}/{digest_of(path)}", headers=bearer(reader)).content == path.read_bytes()

    def test_a_file_that_changed_meanwhile_is_not_sent_as_it_was(
        self, page: Page, proxy: Proxy, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("ERR_")
        path = make_file(tmp_path, "film.bin", LARGE)
        visit(page, proxy.url)
        proxy.limit(SLOW)
        choose(page, path)
        proxy.wait_for(4 * MIB)
        press(page, "Pause film.bin")
        path.write_bytes(os.urandom(LARGE))
        proxy.limit(None)
        press(page, "Resume film.bin")
        expect(upload(page, "film.bin")).to_contain_text("The file has changed or cannot be read")

    def test_is_told_in_russian(self, new_page: NewPage, daemon: Daemon, tmp_path: Path) -> None:
        page = new_page(language="ru-RU")
        visit(page, daemon.url)
        choose(page, *(make_file(tmp_path, f"{number}.bin", 1000) for number in range(3)))
        region = page.get_by_role("region", name="Загрузки")
        expect(region).to_contain_text("3 файла сохранены")
        expect(region.get_by_role("button", name="Убрать готовые")).to_be_visible()


class TestWhoIsSignedIn:
    """What one has begun to upload is neither sent nor shown for another."""

    @pytest.fixture(autouse=True)
    def _allow(self, watch: Watch) -> None:
        watch.allow(f"{CUT}|status of 401")

    @pytest.fixture
    def private(self, start_daemon: StartDaemon) -> Daemon:
        """A daemon that takes nothing without a token."""
        return start_daemon("--anonymous", "none")

    def test_a_token_that_is_revoked_meanwhile(self, new_page: NewPage, private: Daemon, tmp_path: Path) -> None:
        token = make_token(private.store, "ann", "read,write")
        path = make_file(tmp_path, "film.bin", LARGE)
        page = new_page()
        challenges: list[str | None] = []
        page.on("response", lambda answer: challenges.append(_challenge(answer)) if answer.status == 401 else None)
        with Proxy(private.address) as proxy:
            sign_in(page, proxy.url, token)
            proxy.limit(SLOW)
            choose(page, path)
            proxy.wait_for(PIECE + 4 * MIB)
            revoke(private.store, "ann")
            proxy.limit(None)
            expect(page.get_by_role("dialog", name="Sign in")).to_be_visible(timeout=30_000)
            expect(upload(page, "film.bin")).to_contain_text("Sign in, then it goes on.")
            # to a script the server does not say that a name and a password would do: the browser would ask for them
            assert challenges
            assert not [text for text in challenges if text and "Basic" in text]
            renewed = make_token(private.store, "ann", "read,write")
            begun = proxy.uploaded
            enter(page, renewed)
            expect(upload(page, "film.bin")).to_contain_text("Stored", timeout=30_000)
            answer = httpx.get(f"{private.url}/v1/files/{digest_of(path)}", headers=bearer(renewed))
            assert (answer.json()["name"], answer.json()["owner"]) == ("film.bin", "ann")
            # the same owner's upload went on where it was
            assert proxy.uploaded - begun < LARGE - PIECE + MIB

    def test_another_user_does_not_get_what_a_refused_token_left(
        self, new_page: NewPage, private: Daemon, tmp_path: Path
    ) -> None:
        tokens = {name: make_token(private.store, name, "read,write") for name in ("ann", "bob")}
        path = make_file(tmp_path, "film.bin", LARGE)
        page = new_page()
        with Proxy(private.address) as proxy:
            sign_in(page, proxy.url, tokens["ann"])
            proxy.limit(SLOW)
            choose(page, path)
            proxy.wait_for(8 * MIB)
            revoke(private.store, "ann")
            proxy.limit(None)
            expect(upload(page, "film.bin")).to_contain_text("Sign in, then it goes on.", timeout=30_000)
            enter(page, tokens["bob"])
            expect(panel(page)).to_be_hidden()
            page.wait_for_timeout(1000)
        assert httpx.get(f"{private.url}/v1/files", headers=bearer(tokens["bob"])).json()["files"] == []

    def test_signing_out_is_asked_about_and_takes_the_queue_away(
        self, new_page: NewPage, private: Daemon, tmp_path: Path
    ) -> None:
        tokens = {name: make_token(private.store, name, "read,write") for name in ("ann", "bob")}
        large, small, done = (
            make_file(tmp_path, name, size)
            for name, size in (("film.bin", LARGE), ("letter.bin", 3 * MIB), ("done.txt", 10))
        )
        page = new_page()
        with Proxy(private.address) as proxy:
            sign_in(page, proxy.url, tokens["ann"])
            choose(page, done)
            expect(upload(page, done.name)).to_contain_text("Stored")
            proxy.limit(MIB)
            choose(page, large, small)
            expect(upload(page, large.name)).to_contain_text("MB/s")
            page.get_by_role("button", name="Sign out").click()
            question = page.get_by_role("dialog", name="Sign out and stop the uploads?")
            expect(question).to_contain_text("2 files are not uploaded yet.")
            question.get_by_role("button", name="Cancel").click()
            expect(upload(page, large.name)).to_be_visible()
            page.get_by_role("button", name="Sign out").click()
            question.get_by_role("button", name="Sign out").click()
            expect(panel(page)).to_be_hidden()
            proxy.cut()
            proxy.limit(None)
            page.get_by_role("button", name="Sign in").first.click()
            enter(page, tokens["bob"])
            expect(page.get_by_role("button", name="Sign out")).to_be_visible()
            page.wait_for_timeout(1000)
            expect(panel(page)).to_be_hidden()
            assert httpx.get(f"{private.url}/v1/files", headers=bearer(tokens["bob"])).json()["files"] == []
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("button", name="Sign in").first.click()
            enter(page, tokens["ann"])
            # what was hers can be gone on with by her
            expect(upload(page, large.name)).to_contain_text("Choose or drop the same file")


def _challenge(answer: Response) -> str | None:
    return answer.headers.get("www-authenticate")


def revoke(store: Path, name: str) -> None:
    """Revoke a token as the command does."""
    revoke_token(store, name)
    renew_tokens(StoreFolder.adopt(store, Algorithm.SHA256).shared_file)


class TestTheQueue:
    def test_many_failures_are_counted_apart_and_cleared_at_once(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of (401|413)")
        daemon = start_daemon()
        token = make_token(daemon.store, "ann", "read,write,delete", quota=MIB)
        page = new_page()
        sign_in(page, daemon.url, token)
        tries: list[str] = []
        page.on("request", lambda request: tries.append(request.url) if "/v1/uploads" in request.url else None)
        choose(page, *(make_file(tmp_path, f"film-{number:02}.bin", 5 * MIB) for number in range(60)))
        expect(panel(page)).to_contain_text("60 failed")
        expect(panel(page)).to_contain_text("20 more failed")
        expect(panel(page)).not_to_contain_text("waiting")
        expect(upload(page, "film-30.bin")).to_contain_text("Not sent: a file no larger than this one did not fit.")
        # two were on their way
        assert len(tries) <= 2
        press(page, "Clear failed")
        expect(panel(page)).to_be_hidden()

    def test_all_can_be_cancelled(self, page: Page, daemon: Daemon, proxy: Proxy, watch: Watch, tmp_path: Path) -> None:
        watch.allow("ERR_")
        paths = [make_file(tmp_path, f"{number}.bin", 6 * MIB) for number in range(5)]
        addresses = Addresses(page)
        visit(page, proxy.url)
        proxy.limit(MIB)
        choose(page, *paths)
        expect(panel(page)).to_contain_text("MB/s")
        press(page, "Cancel all")
        question = page.get_by_role("dialog", name="Cancel all uploads?")
        expect(question).to_contain_text("5 files are not uploaded yet.")
        question.get_by_role("button", name="Cancel uploads").click()
        expect(panel(page)).to_be_hidden()
        proxy.cut()
        proxy.limit(None)
        assert addresses.all
        for address in addresses.all:
            wait_until(partial(is_gone, daemon, address))
        hashes = [digest_of(path) for path in paths]
        assert len(httpx.post(f"{daemon.url}/v1/files/missing", json={"hashes": hashes}).json()["missing"]) == 5

    def test_the_rest_fails_at_once_where_nothing_may_be_uploaded(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of (401|403)")
        daemon = start_daemon()
        page = new_page()
        sign_in(page, daemon.url, make_token(daemon.store, "reader", "read"))
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
        drop(page, *(make_file(tmp_path, f"film-{number}.bin", 5 * MIB) for number in range(30)))
        expect(panel(page)).to_contain_text("30 failed")
        assert len([url for url in sent if url.endswith("/v1/uploads")]) <= 2

    def test_what_is_paused_while_it_waits_is_sent_once(self, page: Page, proxy: Proxy, tmp_path: Path) -> None:
        paths = [make_file(tmp_path, f"{number}.bin", 2 * MIB) for number in range(8)]
        visit(page, proxy.url)
        proxy.limit(MIB)
        choose(page, *paths)
        expect(panel(page)).to_contain_text("MB/s")
        # the last one is ready to be sent, and waits
        expect(upload(page, "7.bin")).to_contain_text("Waiting")
        page.wait_for_timeout(500)
        for _ in range(3):
            press(page, "Pause 7.bin")
            press(page, "Resume 7.bin")
            page.wait_for_timeout(300)
        proxy.limit(None)
        expect(panel(page)).to_contain_text("8 files stored")
        assert proxy.uploaded < 8 * 2 * MIB + MIB

    def test_the_same_content_under_two_names_is_told(self, page: Page, daemon: Daemon, tmp_path: Path) -> None:
        path = make_file(tmp_path, "one.bin", 50_000)
        twin = tmp_path / "two.bin"
        twin.write_bytes(path.read_bytes())
        visit(page, daemon.url)
        choose(page, path, twin)
        expect(upload(page, "two.bin").filter(has_text=re.compile("Same content as one.bin|Stored"))).to_be_visible()
        expect(panel(page)).to_contain_text("Same content as")
        expect(panel(page)).to_contain_text(re.compile("1 file stored · 1 has the content of another"))

    def test_a_server_that_fails_is_given_up_after_some_minutes(
        self, page: Page, daemon: Daemon, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow("status of 500")
        page.clock.install()
        visit(page, daemon.url)
        # as a server before the daemon may answer whose own disk is broken
        page.route("**/v1/files?name=*", lambda route: route.fulfill(status=500, body="broken"))
        page.route(re.compile("/[0-9a-f]{64}"), lambda route: route.fulfill(status=500, body="broken"))
        choose(page, make_file(tmp_path, "one.bin", 1000))
        for _ in range(3):
            page.clock.run_for(2_000)
        expect(upload(page, "one.bin")).to_contain_text("The server has a fault: trying again")
        page.clock.fast_forward(200_000)
        page.clock.run_for(15_000)
        expect(upload(page, "one.bin")).to_contain_text("The server has a fault. Try again later.")
        page.unroute_all()
        press(page, "Retry one.bin")
        page.clock.run_for(2_000)
        expect(upload(page, "one.bin")).to_contain_text("Stored")

    def test_waits_as_long_as_the_server_asks(self, page: Page, daemon: Daemon, watch: Watch, tmp_path: Path) -> None:
        watch.allow("status of 503")
        visit(page, daemon.url)
        answered: list[float] = []

        def answer(route: Route) -> None:
            answered.append(time.monotonic())
            if len(answered) > 1:
                route.continue_()
            else:
                route.fulfill(status=503, headers={"Retry-After": "3"}, body="")

        page.route("**/v1/uploads", answer)
        path = make_file(tmp_path, "film.bin", 5 * MIB)
        choose(page, path)
        expect(upload(page, "film.bin")).to_contain_text("The server is busy: trying again")
        expect_stored(page, daemon, path)
        assert 3 <= answered[1] - answered[0] < 10

    def test_what_nobody_has_gone_on_with_is_forgotten(
        self, page: Page, proxy: Proxy, watch: Watch, tmp_path: Path
    ) -> None:
        watch.allow(CUT)
        TestAClosedPage().begin(page, proxy, make_file(tmp_path, "film.bin", LARGE))
        visit(page, proxy.url)
        expect(page.get_by_text("Unfinished uploads")).to_be_visible()
        page.evaluate(AGE_TRACES, 31 * 86_400_000)
        page.reload()
        expect(page.locator("#list:not([hidden]), #state:not([hidden])").first).to_be_visible()
        wait_until(lambda: page.evaluate(COUNT_TRACES) == 0)
        expect(panel(page)).to_be_hidden()
