"""The list on the page, its previews, and all that can be done with a file; in a real browser, with a real daemon."""

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser.library import (
    HOSTILE_NAME,
    KINDS,
    Library,
    choose,
    clipboard,
    fill,
    is_stored,
    message,
    open_file,
    read_qr_code,
    row,
    rows,
    run_library,
    shown_hashes,
    shown_names,
    sign_in,
    store_many,
    wait_for_files,
)
from tests.browsing import NewPage, Watch
from tests.collection import Made, picture, text
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.proxy import proxy_before
from tests.s3 import Bucket
from tests.tokens import bearer, make_token

CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture(scope="module")
def library(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A daemon with a file of each kind, which the tests leave as they are."""
    page = chromium.new_page()
    library = run_library(tmp_path_factory.mktemp("library"), page)
    page.close()
    yield library
    library.daemon.kill()


@pytest.fixture
def notes(start_daemon: StartDaemon) -> Library:
    """A daemon with three texts, for tests that change them."""
    return fill(start_daemon(), [text(f"{name}.txt", f"About {name}") for name in ("apples", "bread", "cheese")])


def file_of(library: Library, name: str) -> dict[str, str]:
    """Return what the daemon says of a file."""
    answer = httpx.get(f"{library.url}/v1/files/{library.hashes[name]}")
    answer.raise_for_status()
    file: dict[str, str] = answer.json()
    return file


def seconds_until(time: str) -> float:
    return (datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()


class TestTheList:
    def test_shows_every_file_newest_first(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        assert shown_names(page) == list(library.files)[::-1]
        assert rows(page).first.get_attribute("data-hash") == library.hashes[HOSTILE_NAME]

    def test_treats_names_as_text(self, page: Page, library: Library, watch: Watch) -> None:
        page.goto(library.url)
        expect(row(page, HOSTILE_NAME)).to_be_visible()
        open_file(page, HOSTILE_NAME)
        expect(page.locator("[onerror]")).to_have_count(0)
        assert watch.faults == []

    def test_draws_pictures_small_and_an_icon_for_all_else(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        expect(row(page, "picture.png").locator("canvas")).to_be_visible()
        for name in ("notes.txt", "tone.wav", "report.pdf", "archive.zip"):
            expect(row(page, name).locator("canvas")).to_have_count(0)
            assert row(page, name).locator("svg").count() > 0

    def test_says_how_much_is_used_and_free(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        storage = page.get_by_role("group", name="Storage")
        expect(storage).to_contain_text(re.compile(rf"{len(library.files)} files .* used .* free"))
        expect(storage.get_by_role("meter", name="Storage used")).to_be_visible()

    def test_says_nothing_of_free_space_in_a_bucket(
        self, page: Page, start_daemon: StartDaemon, bucket: Bucket, tmp_path: Path
    ) -> None:
        spool = tmp_path / "spool"
        daemon = start_daemon(
            "--store", bucket.url, "--spool", str(spool), "--workers", "1", store=spool, env=bucket.env
        )
        assert httpx.post(daemon.url, content=b"x" * 2048, timeout=60).status_code == 200
        page.goto(daemon.url)
        storage = page.get_by_role("group", name="Storage")
        expect(storage).to_contain_text(re.compile("1 file .* used"))
        expect(storage).not_to_contain_text("free")
        expect(storage.get_by_role("meter")).to_be_hidden()

    def test_finds_by_a_part_of_the_name(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        search = page.get_by_role("searchbox", name="Search by name")
        search.fill("port")
        wait_for_files(page, 1)
        assert shown_names(page) == ["report.pdf"]
        search.fill("no such name")
        expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
        search.fill("")
        wait_for_files(page, len(library.files))

    def test_finds_a_name_with_signs_that_mean_something_in_a_query(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        page.get_by_role("searchbox", name="Search by name").fill("onerror=alert(1)>&quot;")
        wait_for_files(page, 1)
        assert shown_names(page) == [HOSTILE_NAME]

    @pytest.mark.parametrize(
        ("kind", "names"),
        [
            ("Images", {"picture.png", "drawing.svg"}),
            ("Videos", {"clip.webm"}),
            ("Audio", {"tone.wav"}),
            ("Text", {"notes.txt", "page.html", HOSTILE_NAME}),
            ("PDF", {"report.pdf"}),
        ],
    )
    def test_shows_one_kind(self, kind: str, names: set[str], page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        page.get_by_role("combobox", name="Kind").select_option(kind)
        wait_for_files(page, len(names))
        assert set(shown_names(page)) == names

    @pytest.mark.parametrize(
        ("column", "key"), [("Name", str), ("Size", len), ("Created", None)], ids=["name", "size", "time"]
    )
    def test_sorts_both_ways(self, column: str, key: type[str] | None, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        names = list(library.files)
        if column == "Name":
            names.sort()
        elif column == "Size":
            names.sort(key=lambda name: len(library.files[name].body))
        header = page.get_by_role("columnheader", name=column)
        seen = set()
        for _ in range(2):
            header.get_by_role("button", name=column).click()
            expect(header).to_have_attribute("aria-sort", re.compile("ascending|descending"))
            direction = header.get_attribute("aria-sort") or ""
            expected = names if direction == "ascending" else names[::-1]
            expect(rows(page).get_by_role("button", name="Open ")).to_have_text(expected)
            seen.add(direction)
        assert seen == {"ascending", "descending"}

    def test_goes_on_while_one_scrolls(self, page: Page, start_daemon: StartDaemon) -> None:
        daemon = start_daemon("--durability", "relaxed")
        hashes = store_many(daemon, 250)
        page.goto(daemon.url)
        expect(rows(page).first).to_be_visible()
        assert len(shown_hashes(page)) < 250
        page.mouse.move(600, 500)

        def scroll() -> bool:
            page.mouse.wheel(0, 20_000)
            page.wait_for_timeout(100)
            return len(shown_hashes(page)) >= 250

        assert wait_until(scroll)
        assert shown_hashes(page) == hashes[::-1]
        expect(page.get_by_role("button", name="Show more")).to_be_hidden()

    def test_says_that_there_is_nothing_yet(self, page: Page, start_daemon: StartDaemon) -> None:
        page.goto(start_daemon().url)
        expect(page.get_by_role("heading", name="No files yet")).to_be_visible()

    def test_says_that_the_server_is_away_and_tries_again(
        self, page: Page, start_daemon: StartDaemon, watch: Watch
    ) -> None:
        watch.allow("ERR_")
        library = fill(start_daemon(), [text("here.txt", "still here")])
        with proxy_before(library.daemon.address) as proxy:
            page.goto(proxy.url)
            wait_for_files(page, 1)
            proxy.vanish()
            page.get_by_role("searchbox", name="Search by name").fill("here")
            expect(page.get_by_text("The server cannot be reached").first).to_be_visible()
            proxy.come_back()
            page.get_by_role("button", name="Try again").first.click()
            wait_for_files(page, 1)
            expect(page.get_by_role("button", name="Try again")).to_have_count(0)

    def test_says_that_the_device_is_offline_and_goes_on_by_itself(
        self, page: Page, start_daemon: StartDaemon, watch: Watch
    ) -> None:
        watch.allow("ERR_")
        library = fill(start_daemon(), [text("here.txt", "still here")])
        page.goto(library.url)
        wait_for_files(page, 1)
        page.context.set_offline(True)
        expect(page.get_by_text("You are offline.")).to_be_visible()
        page.context.set_offline(False)
        expect(page.get_by_text("You are offline.")).to_be_hidden()
        wait_for_files(page, 1)


class TestTheListGoesOn:
    def test_after_all_that_was_shown_is_deleted(self, page: Page, start_daemon: StartDaemon) -> None:
        daemon = start_daemon("--durability", "relaxed")
        hashes = store_many(daemon, 130)
        page.goto(daemon.url)
        wait_for_files(page, 100)
        page.get_by_role("checkbox", name="Select all files shown").check()
        page.get_by_role("region", name="Selected files").get_by_role("button", name="Delete").click()
        question = page.get_by_role("dialog", name="Delete 100 files?")
        expect(question).to_contain_text("files of all owners")
        question.get_by_role("button", name="Delete").click()
        wait_for_files(page, 30)
        assert shown_hashes(page) == hashes[29::-1]

    def test_says_that_it_could_not_and_tries_again(self, page: Page, start_daemon: StartDaemon, watch: Watch) -> None:
        watch.allow("ERR_")
        daemon = start_daemon("--durability", "relaxed")
        store_many(daemon, 130)
        with proxy_before(daemon.address) as proxy:
            page.goto(proxy.url)
            wait_for_files(page, 100)
            proxy.vanish()
            more = page.locator("#show-more")
            more.scroll_into_view_if_needed()
            expect(page.get_by_role("region", name="Messages")).to_contain_text("The server cannot be reached")
            expect(more).to_have_text("Try again")
            proxy.come_back()
            more.click()
            wait_for_files(page, 130)
            expect(more).to_be_hidden()

    def test_without_what_has_expired(self, page: Page, notes: Library) -> None:
        text("brief.txt", "Not for long").store(notes.url, expires_in="90s")
        page.clock.install()
        page.goto(notes.url)
        wait_for_files(page, 4)
        page.clock.fast_forward("03:00")
        wait_for_files(page, 3)
        expect(row(page, "brief.txt")).to_have_count(0)

    def test_with_words_for_a_name_that_cannot_be_seen(self, page: Page, notes: Library) -> None:
        digest = text("\u200b\u2060 ", "Named by nothing").store(notes.url)
        page.goto(notes.url)
        expect(row(page, f"unnamed, {digest[:8]}")).to_be_visible()

    def test_where_a_picture_of_a_few_bytes_has_too_many_pixels(self, page: Page, start_daemon: StartDaemon) -> None:
        buffer = io.BytesIO()
        Image.new("1", (16_000, 16_000)).save(buffer, "PNG")
        assert len(buffer.getvalue()) < 100_000
        page.goto(fill(start_daemon(), [picture("sun.png", 20), Made("bomb.png", "image/png", buffer.getvalue())]).url)
        expect(row(page, "sun.png").locator("canvas")).to_be_visible()
        page.wait_for_timeout(500)
        expect(row(page, "bomb.png").locator("canvas")).to_have_count(0)


class TestDialogs:
    def test_leave_a_message_where_it_can_be_reached(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        open_file(page, "bread.txt").get_by_role("button", name="Rename…").click()
        form = page.get_by_role("dialog", name="Rename")
        form.get_by_role("textbox", name="Name").fill("loaf.txt")
        form.get_by_role("button", name="Rename").click()
        preview = page.get_by_role("dialog", name="loaf.txt")
        said = preview.get_by_role("status").filter(has_text="Renamed to loaf.txt")
        expect(said).to_be_visible()
        said.get_by_role("button", name="Dismiss").click()
        expect(said).to_be_hidden()
        expect(preview).to_be_visible()
        page.keyboard.press("Escape")
        expect(preview).to_be_hidden()
        expect(page.get_by_role("main").get_by_role("region", name="Messages")).to_be_attached()

    def test_close_by_a_press_beside_them_and_not_on_their_scrollbar(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        dialog = open_file(page, "bread.txt")
        box = dialog.bounding_box()
        assert box is not None
        # a scrollbar is the dialog itself, at its right edge
        at = {"clientX": box["x"] + box["width"] - 4, "clientY": box["y"] + box["height"] / 2}
        dialog.dispatch_event("pointerdown", at)
        page.wait_for_timeout(200)
        expect(dialog).to_be_visible()
        page.mouse.click(4, 4)
        expect(dialog).to_be_hidden()


PASTE = """
([selector, kinds]) => {
  const clipboardData = new DataTransfer();
  if (kinds.includes("text")) clipboardData.setData("text/plain", "words");
  clipboardData.items.add(new File(["picture"], "pasted.bin", { type: "application/octet-stream" }));
  const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
  return document.querySelector(selector).dispatchEvent(event);
}
"""


def test_a_text_with_its_picture_is_pasted_into_a_field_and_not_uploaded(page: Page, notes: Library) -> None:
    page.goto(notes.url)
    wait_for_files(page, 3)
    assert page.evaluate(PASTE, ["#search", ["text", "file"]]), "the field was kept from it"
    page.wait_for_timeout(500)
    wait_for_files(page, 3)
    assert not page.evaluate(PASTE, ["main", ["text", "file"]])
    wait_for_files(page, 4)


class TestAPreview:
    @pytest.mark.parametrize(("name", "element"), KINDS.items())
    def test_shows_each_kind(self, name: str, element: str, page: Page, library: Library) -> None:
        page.goto(library.url)
        content = open_file(page, name).locator(element)
        expect(content).to_be_visible()
        if element == "img":
            expect(content).to_have_js_property("naturalWidth", 480)
        elif element == "video":
            expect(content).to_have_js_property("videoWidth", 320)
        elif element == "audio":
            assert wait_until(lambda: bool(page.evaluate("document.querySelector('dialog audio').readyState >= 1")))
        elif element == "pre":
            expect(content).to_have_text(library.files[name].body.decode())
        else:
            assert (content.get_attribute("src") or "").startswith("blob:")

    def test_says_that_a_type_has_none(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        dialog = open_file(page, "archive.zip")
        expect(dialog).to_contain_text("No preview for this type")
        expect(dialog.get_by_role("button", name="Download")).to_be_visible()

    @pytest.mark.parametrize("name", ["page.html", "drawing.svg"])
    def test_runs_no_script_of_a_file(self, name: str, page: Page, library: Library, watch: Watch) -> None:
        page.goto(library.url)
        page.on("dialog", lambda dialog: watch.faults.append(f"a script ran: {dialog.message}"))
        expect(open_file(page, name)).to_be_visible()
        page.wait_for_timeout(500)
        expect(page).to_have_title(re.compile("filestored"))

    def test_of_a_long_text_is_its_beginning(self, page: Page, start_daemon: StartDaemon) -> None:
        body = "".join(f"line {number}\n" for number in range(20_000))
        library = fill(start_daemon(), [text("long.log", body)])
        page.goto(library.url)
        shown = open_file(page, "long.log").locator("pre").inner_text()
        assert body.startswith(shown.rstrip())
        assert 60_000 < len(shown) <= 64 * 1024

    def test_goes_to_the_next_file_by_arrow_keys(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        names = list(library.files)[::-1]
        dialog = open_file(page, names[2])
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog", name=names[3])).to_be_visible()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("dialog", name=names[1])).to_be_visible()
        page.get_by_role("dialog").get_by_role("button", name="Next file").click()
        expect(dialog).to_be_visible()

    def test_downloads_under_the_right_name(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        dialog = open_file(page, "report.pdf")
        with page.expect_download() as coming:
            dialog.get_by_role("button", name="Download").click()
        assert coming.value.suggested_filename == "report.pdf"
        assert coming.value.path().read_bytes() == library.files["report.pdf"].body


class TestLinks:
    def test_the_hash_is_copied(self, new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, permissions=CLIPBOARD)
        choose(page, "notes.txt", "Copy hash")
        assert wait_until(lambda: clipboard(page) == library.hashes["notes.txt"])

    def test_a_copied_link_leads_to_the_file(self, new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, permissions=CLIPBOARD)
        page.get_by_role("button", name="Copy link to picture.png").click()
        assert wait_until(lambda: clipboard(page).startswith(library.url))
        assert httpx.get(clipboard(page)).content == library.files["picture.png"].body

    def test_an_expiring_link_works_without_a_token_and_so_does_its_qr_code(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        watch.allow("status of 401")
        store = tmp_path_factory.mktemp("linked") / "store"
        token = make_token(store, "anna", "read,write")
        library = fill(start_daemon(store=store), [text("secret.txt", "Only by link")], bearer(token))
        page = new_page(library.url, permissions=CLIPBOARD)
        sign_in(page, token)
        choose(page, "secret.txt", "Make an expiring link…")
        dialog = page.get_by_role("dialog", name="Make an expiring link")
        dialog.get_by_role("combobox", name="Works for").select_option("1 day")
        dialog.get_by_role("button", name="Make the link").click()
        link = dialog.get_by_role("textbox", name="Link").input_value()
        assert httpx.get(f"{library.url}/{library.hashes['secret.txt']}").status_code == 401
        answer = httpx.get(link)
        assert (answer.status_code, answer.text) == (200, "Only by link")
        assert read_qr_code(dialog.get_by_role("img", name="QR code of the link")) == link
        dialog.get_by_role("button", name="Copy link").click()
        assert wait_until(lambda: clipboard(page) == link)

    def test_an_expiring_link_is_said_to_end_with_the_file(self, page: Page, start_daemon: StartDaemon) -> None:
        daemon = start_daemon()
        text("brief.txt", "Not for long").store(daemon.url, expires_in="1h")
        page.goto(daemon.url)
        choose(page, "brief.txt", "Make an expiring link…")
        dialog = page.get_by_role("dialog", name="Make an expiring link")
        dialog.get_by_role("combobox", name="Works for").select_option("30 days")
        dialog.get_by_role("button", name="Make the link").click()
        [day, later] = page.evaluate(
            "async () => { const { formatTime } = await import('/web/words.js');"
            " return [1, 720].map((hours) => formatTime(new Date(Date.now() + hours * 3600e3)).split(',')[0]); }"
        )
        expect(dialog.get_by_text("Works until")).to_contain_text(day)
        expect(dialog.get_by_text("Works until")).not_to_contain_text(later)

    def test_an_expiring_link_leads_where_the_page_is(self, page: Page, start_daemon: StartDaemon) -> None:
        daemon = start_daemon("--trusted-proxy", "127.0.0.1", "--anonymous", "full")
        library = fill(daemon, [text("far.txt", "By another name")])
        page.set_extra_http_headers({"X-Forwarded-Proto": "https"})
        page.goto(library.url)
        choose(page, "far.txt", "Make an expiring link…")
        dialog = page.get_by_role("dialog", name="Make an expiring link")
        dialog.get_by_role("button", name="Make the link").click()
        link = dialog.get_by_role("textbox", name="Link").input_value()
        assert link.startswith(library.url)
        assert httpx.get(link).text == "By another name"
        expect(dialog.get_by_role("img", name="QR code of the link")).to_have_count(0)


class TestChanges:
    def test_a_file_is_renamed(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        choose(page, "bread.txt", "Rename…")
        dialog = page.get_by_role("dialog", name="Rename")
        expect(dialog.get_by_role("textbox", name="Name")).to_have_value("bread.txt")
        dialog.get_by_role("textbox", name="Name").fill("Хлеб & масло.txt")
        dialog.get_by_role("button", name="Rename").click()
        expect(row(page, "Хлеб & масло.txt")).to_be_visible()
        assert file_of(notes, "bread.txt")["name"] == "Хлеб & масло.txt"

    def test_a_file_is_not_renamed_to_nothing_that_can_be_seen(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        choose(page, "bread.txt", "Rename…")
        dialog = page.get_by_role("dialog", name="Rename")
        for nothing in ("   ", "\u200b\u200d"):
            dialog.get_by_role("textbox", name="Name").fill(nothing)
            dialog.get_by_role("button", name="Rename").click()
            expect(dialog.get_by_role("alert")).to_contain_text("can be seen")
        assert file_of(notes, "bread.txt")["name"] == "bread.txt"

    def test_an_expiry_is_set_and_taken_away(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        self.set_expiry(page, "In 7 days")
        assert wait_until(lambda: file_of(notes, "apples.txt")["expires_at"] is not None)
        week = timedelta(days=7).total_seconds()
        assert week - 60 < seconds_until(file_of(notes, "apples.txt")["expires_at"]) <= week + 60
        self.set_expiry(page, "Never")
        assert wait_until(lambda: file_of(notes, "apples.txt")["expires_at"] is None)

    def test_an_expiry_is_set_to_a_time_of_ones_choice(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        tomorrow = datetime.now().replace(second=0, microsecond=0) + timedelta(days=1)
        self.set_expiry(page, "At a time of your choice", tomorrow)
        assert wait_until(lambda: file_of(notes, "apples.txt")["expires_at"] is not None)
        assert datetime.fromisoformat(file_of(notes, "apples.txt")["expires_at"]) == tomorrow.astimezone(UTC)

    @staticmethod
    def set_expiry(page: Page, life: str, time: datetime | None = None) -> None:
        choose(page, "apples.txt", "Set expiry…")
        dialog = page.get_by_role("dialog", name="Set expiry")
        dialog.get_by_role("combobox", name="Delete by itself").select_option(life)
        if time is not None:
            dialog.get_by_label("Time", exact=True).fill(time.isoformat(timespec="minutes"))
        dialog.get_by_role("button", name="Set expiry").click()
        expect(dialog).to_be_hidden()


class TestDeletion:
    def test_is_undone(self, page: Page, notes: Library) -> None:
        page.clock.install()
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        message(page, "bread.txt deleted").get_by_role("button", name="Undo").click()
        wait_for_files(page, 3)
        page.clock.fast_forward("01:00")
        page.reload()
        wait_for_files(page, 3)
        assert is_stored(notes.daemon, notes.hashes["bread.txt"])

    def test_is_carried_out_a_little_later(self, page: Page, notes: Library) -> None:
        page.clock.install()
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        assert is_stored(notes.daemon, notes.hashes["bread.txt"])
        page.mouse.move(0, 0)
        page.clock.fast_forward("01:00")
        assert wait_until(lambda: not is_stored(notes.daemon, notes.hashes["bread.txt"]))
        expect(page.get_by_role("button", name="Undo")).to_be_hidden()
        page.reload()
        wait_for_files(page, 2)

    def test_is_carried_out_when_the_page_is_left(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        page.goto("about:blank")
        assert wait_until(lambda: not is_stored(notes.daemon, notes.hashes["bread.txt"]), seconds=4)

    def test_from_the_preview_shows_the_list_again(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        dialog = open_file(page, "bread.txt")
        dialog.get_by_role("button", name="Delete").click()
        expect(message(page, "bread.txt deleted")).to_be_visible()
        expect(row(page, "bread.txt")).to_be_hidden()

    def test_is_carried_out_when_the_page_is_no_longer_seen(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: true });"
            " document.dispatchEvent(new Event('visibilitychange'))"
        )
        assert wait_until(lambda: not is_stored(notes.daemon, notes.hashes["bread.txt"]), seconds=4)
        expect(page.get_by_role("button", name="Undo")).to_be_hidden()

    def test_is_undone_by_the_keyboard_and_the_focus_goes_on(self, page: Page, notes: Library) -> None:
        page.clock.install()
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        expect(page.get_by_role("button", name="Open apples.txt")).to_be_focused()
        choose(page, "apples.txt", "Delete")
        wait_for_files(page, 1)
        expect(page.get_by_role("button", name="Open cheese.txt")).to_be_focused()
        page.get_by_role("searchbox", name="Search by name").focus()
        page.keyboard.press("Control+z")
        wait_for_files(page, 1)
        page.get_by_role("button", name="Open cheese.txt").focus()
        page.keyboard.press("Control+z")
        expect(page.get_by_role("button", name="Open apples.txt")).to_be_focused()
        wait_for_files(page, 2)
        page.keyboard.press("Control+z")
        wait_for_files(page, 3)
        page.clock.fast_forward("01:00")
        page.wait_for_timeout(300)
        assert all(is_stored(notes.daemon, digest) for digest in notes.hashes.values())

    def test_can_be_undone_however_much_else_is_said(self, new_page: NewPage, notes: Library) -> None:
        page = new_page(permissions=CLIPBOARD)
        page.clock.install()
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        for _ in range(6):
            page.get_by_role("button", name="Copy link to apples.txt").click()
        expect(message(page, "Link copied")).to_have_count(4)
        message(page, "bread.txt deleted").get_by_role("button", name="Undo").click()
        wait_for_files(page, 3)

    def test_ends_where_the_same_is_uploaded_again(self, page: Page, notes: Library) -> None:
        page.clock.install()
        page.goto(notes.url)
        choose(page, "bread.txt", "Delete")
        wait_for_files(page, 2)
        again = FilePayload(name="bread.txt", mimeType="text/plain", buffer=notes.files["bread.txt"].body)
        page.locator("#choose-files").set_input_files(again)
        expect(page.get_by_role("button", name="Undo")).to_have_count(0)
        page.clock.fast_forward("01:00")
        page.wait_for_timeout(300)
        wait_for_files(page, 3)
        assert is_stored(notes.daemon, notes.hashes["bread.txt"])

    def test_of_what_belongs_to_others_is_asked_about(
        self, page: Page, start_daemon: StartDaemon, watch: Watch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        watch.allow("status of 401")
        store = tmp_path_factory.mktemp("owned") / "store"
        anna, admin = make_token(store, "anna", "read,write"), make_token(store, "root", "admin")
        library = fill(start_daemon(store=store), [text("hers.txt", "Anna's own")], bearer(anna))
        page.goto(library.url)
        sign_in(page, admin)
        choose(page, "hers.txt", "Delete")
        question = page.get_by_role("dialog", name="Delete this file?")
        expect(question).to_contain_text("anna")
        question.get_by_role("button", name="Cancel").click()
        expect(question).to_be_hidden()
        wait_for_files(page, 1)
        assert is_stored(library.daemon, library.hashes["hers.txt"], bearer(anna))
        choose(page, "hers.txt", "Delete")
        question.get_by_role("button", name="Delete").click()
        wait_for_files(page, 0)
        page.goto("about:blank")
        assert wait_until(lambda: not is_stored(library.daemon, library.hashes["hers.txt"], bearer(anna)))


class TestSeveral:
    def test_are_selected_as_a_range_and_deleted_and_back(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        names = ["cheese.txt", "bread.txt", "apples.txt"]
        page.get_by_role("checkbox", name=f"Select {names[0]}").check()
        page.get_by_role("checkbox", name=f"Select {names[2]}").click(modifiers=["Shift"])
        selected = page.get_by_role("region", name="Selected files")
        expect(selected).to_contain_text("3 files selected")
        selected.get_by_role("button", name="Delete").click()
        wait_for_files(page, 0)
        message(page, "3 files deleted").get_by_role("button", name="Undo").click()
        wait_for_files(page, 3)
        expect(selected).to_be_hidden()

    def test_selection_is_cleared_by_escape(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        page.get_by_role("checkbox", name="Select bread.txt").check()
        expect(page.get_by_role("region", name="Selected files")).to_contain_text("1 file selected")
        page.keyboard.press("Escape")
        expect(page.get_by_role("region", name="Selected files")).to_be_hidden()
        expect(page.get_by_role("checkbox", name="Select bread.txt")).not_to_be_checked()

    def test_links_are_copied_one_a_line(self, new_page: NewPage, notes: Library) -> None:
        page = new_page(notes.url, permissions=CLIPBOARD)
        page.get_by_role("checkbox", name="Select all files shown").check()
        page.get_by_role("region", name="Selected files").get_by_role("button", name="Copy links").click()
        assert wait_until(lambda: len(clipboard(page).splitlines()) == 3)
        contents = {httpx.get(link).content for link in clipboard(page).splitlines()}
        assert contents == {file.body for file in notes.files.values()}

    def test_expire_together(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        page.get_by_role("checkbox", name="Select apples.txt").check()
        page.get_by_role("checkbox", name="Select bread.txt").check()
        page.get_by_role("region", name="Selected files").get_by_role("button", name="Set expiry…").click()
        dialog = page.get_by_role("dialog", name="Set expiry")
        dialog.get_by_role("combobox", name="Delete by itself").select_option("In 1 hour")
        dialog.get_by_role("button", name="Set expiry").click()
        for name in ("apples.txt", "bread.txt"):
            assert wait_until(lambda name=name: file_of(notes, name)["expires_at"] is not None)  # type: ignore[misc]
        assert file_of(notes, "cheese.txt")["expires_at"] is None

    def test_expire_together_but_for_one_that_is_gone(self, page: Page, notes: Library, watch: Watch) -> None:
        watch.allow("status of 404")
        page.goto(notes.url)
        page.get_by_role("checkbox", name="Select all files shown").check()
        httpx.delete(f"{notes.url}/v1/files/{notes.hashes['cheese.txt']}").raise_for_status()
        page.get_by_role("region", name="Selected files").get_by_role("button", name="Set expiry…").click()
        dialog = page.get_by_role("dialog", name="Set expiry")
        dialog.get_by_role("combobox", name="Delete by itself").select_option("In 1 hour")
        dialog.get_by_role("button", name="Set expiry").click()
        expect(message(page, "Expiry of 2 files set")).to_be_visible()
        messages = page.get_by_role("region", name="Messages")
        expect(messages).to_contain_text("1 file was not changed. The file is no longer there.")
        for name in ("apples.txt", "bread.txt"):
            assert file_of(notes, name)["expires_at"] is not None

    def test_are_downloaded_one_after_the_other(self, page: Page, notes: Library) -> None:
        page.goto(notes.url)
        page.get_by_role("checkbox", name="Select all files shown").check()
        names = set()
        page.on("download", lambda download: names.add(download.suggested_filename))
        page.get_by_role("region", name="Selected files").get_by_role("button", name="Download").click()

        def all_came() -> bool:
            page.wait_for_timeout(50)
            return names == set(notes.files)

        assert wait_until(all_came), names

    def test_more_than_twenty_are_asked_about(self, page: Page, start_daemon: StartDaemon) -> None:
        daemon = start_daemon()
        hashes = store_many(daemon, 25)
        page.goto(daemon.url)
        page.get_by_role("checkbox", name="Select all files shown").check()
        selected = page.get_by_role("region", name="Selected files")
        selected.get_by_role("button", name="Delete").click()
        question = page.get_by_role("dialog", name="Delete 25 files?")
        question.get_by_role("button", name="Cancel").click()
        wait_for_files(page, 25)
        selected.get_by_role("button", name="Delete").click()
        question.get_by_role("button", name="Delete").click()
        wait_for_files(page, 0)
        assert wait_until(lambda: not any(is_stored(daemon, digest) for digest in hashes))
