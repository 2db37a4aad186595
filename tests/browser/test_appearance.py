"""How the page looks and reads: languages, dark and light, phones, keyboards, screen readers, and its weight."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Response, ViewportSize, expect

from tests.browser.library import (
    Library,
    choose,
    message,
    open_file,
    row,
    rows,
    run_library,
    wait_for_files,
)
from tests.browsing import DESKTOP, PHONE, NewPage, Watch
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.proxy import proxy_before

MOST_BYTES = 100 * 1024
SMALLEST_TARGET = 24
IS_HIT = """
(element, reach) => {
  element.scrollIntoView({ block: "center", behavior: "instant" });
  const { x, y, width, height } = element.getBoundingClientRect();
  return [[-reach, 0], [reach, 0], [0, -reach], [0, reach]].every(([right, down]) => {
    const hit = document.elementFromPoint(x + width / 2 + right, y + height / 2 + down);
    return hit && (element.contains(hit) || element.closest("label")?.contains(hit));
  });
}
"""
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)


@pytest.fixture(scope="module")
def library(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A daemon with a file of each kind, which the tests leave as they are."""
    page = chromium.new_page()
    library = run_library(tmp_path_factory.mktemp("library"), page)
    page.close()
    yield library
    library.daemon.kill()


def words_of(page: Page) -> list[str]:
    """Return the names of all controls that are shown."""
    controls = page.locator("button, select, input, [role=columnheader], [role=table], h1, h2, label").filter(
        visible=True
    )
    names = [
        control.get_attribute("aria-label") or control.get_attribute("placeholder") or control.inner_text()
        for control in controls.all()
    ]
    return [name for name in names if name.strip()]


class TestLanguages:
    def test_the_browsers_language_is_spoken(self, new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, language="ru-RU")
        wait_for_files(page, len(library.files))
        expect(page.locator("html")).to_have_attribute("lang", "ru")
        own = {*library.files, "filestored", "PDF"}
        untranslated = [
            words for words in words_of(page) if words not in own and not CYRILLIC.search(words.replace("English", ""))
        ]
        assert untranslated == []

    @pytest.mark.parametrize(("language", "spoken"), [("en-GB", "en"), ("de-DE", "en"), ("ru", "ru")])
    def test_others_get_english(self, language: str, spoken: str, new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, language=language)
        expect(page.locator("html")).to_have_attribute("lang", spoken)

    def test_the_language_is_switched_and_stays(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        page.get_by_role("combobox", name="Language").select_option("Русский")
        expect(page.get_by_role("button", name="Загрузить файлы")).to_be_visible()
        expect(page.get_by_role("button", name="Открыть notes.txt")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Загрузить файлы")).to_be_visible()
        page.get_by_role("combobox", name="Язык").select_option("English")
        expect(page.get_by_role("button", name="Upload files")).to_be_visible()

    @pytest.mark.parametrize("language", ["en", "ru"])
    def test_dialogs_speak_it_too(self, language: str, new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, language=language)
        opener = {"en": "More for notes.txt", "ru": "Другие действия с notes.txt"}[language]
        for number in range(8):
            page.get_by_role("button", name=opener).click()
            items = page.get_by_role("menuitem")
            expect(items).to_have_count(8)
            name = items.nth(number).inner_text()
            assert bool(CYRILLIC.search(name)) == (language == "ru"), name
            page.keyboard.press("Escape")

    def test_both_languages_have_the_same_words(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        web = Path(__file__).parents[2] / "src" / "filestored" / "web"
        tables = sorted(path.name.removesuffix("-en.js") for path in web.glob("*-words-en.js"))
        assert tables
        for table in tables:
            english, russian = (
                page.evaluate(
                    "async (name) => Object.fromEntries(Object.entries((await import(name)).default)"
                    ".map(([key, words]) => [key, typeof words === 'string' ? words : Object.values(words).join()]))",
                    f"/web/{table}-{language}.js",
                )
                for language in ("en", "ru")
            )
            assert list(english) == list(russian)
            for key, words in english.items():
                assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", russian[key])), key

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("expiry.set", {1: "у 1 файла", 3: "у 3 файлов", 5: "у 5 файлов", 21: "у 21 файла"}),
            ("downloading", {2: "скачиваются 2 файла", 5: "скачивается 5 файлов", 21: "скачивается 21 файл"}),
        ],
    )
    def test_numbers_are_declined(self, key: str, said: dict[int, str], new_page: NewPage, library: Library) -> None:
        page = new_page(library.url, language="ru")
        for number, words in said.items():
            text = page.evaluate(
                "async ([key, n]) => { await import('/web/dialog-words.js');"
                " return (await import('/web/words.js')).say(key, { n }); }",
                [key, number],
            )
            assert text.endswith(words)

    def test_what_the_server_says_is_translated(
        self, new_page: NewPage, start_daemon: StartDaemon, watch: Watch
    ) -> None:
        watch.allow("status of 403")
        page = new_page(language="ru")
        # whoever comes from elsewhere is not let in without a token
        page.set_extra_http_headers({"X-Forwarded-For": "203.0.113.9"})
        page.goto(start_daemon("--trusted-proxy", "127.0.0.1").url)
        expect(page.get_by_text("Без токена сервер пускает только программы")).to_be_visible()

    def test_the_notice_is_translated_when_the_language_is_switched(
        self, page: Page, library: Library, watch: Watch
    ) -> None:
        watch.allow("ERR_")
        with proxy_before(library.daemon.address) as proxy:
            page.goto(proxy.url)
            wait_for_files(page, len(library.files))
            # its words are there already when the server goes
            page.evaluate("import('/web/page-words-ru.js')")
            proxy.vanish()
            page.get_by_role("searchbox", name="Search by name").fill("notes")
            notice = page.locator("#notice")
            expect(notice).to_contain_text("The server cannot be reached.")
            page.get_by_role("combobox", name="Language").select_option("Русский")
            expect(notice).to_contain_text("Сервер недоступен.")
            expect(notice.get_by_role("button")).to_have_text("Повторить")


class TestThemes:
    @staticmethod
    def brightness(page: Page) -> float:
        """Return how bright the ground of the page is, from 0 to 255."""
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        numbers = [float(number) for number in re.findall(r"[\d.]+", color)][:3]
        return sum(numbers) / 3 * (255 if color.startswith("color(") else 1)

    @pytest.mark.parametrize(("theme", "is_dark"), [("dark", True), ("light", False)])
    def test_the_systems_theme_is_followed(
        self, theme: Any, is_dark: bool, new_page: NewPage, library: Library
    ) -> None:
        page = new_page(library.url, theme=theme)
        assert (self.brightness(page) < 80) == is_dark

    def test_the_theme_is_switched_and_stays(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        appearance = page.get_by_role("combobox", name="Appearance")
        appearance.select_option(value="dark")
        assert wait_until(lambda: self.brightness(page) < 80)
        page.reload()
        assert self.brightness(page) < 80
        expect(appearance).to_have_value("dark")
        appearance.select_option(value="system")
        assert wait_until(lambda: self.brightness(page) > 200)


class TestAPhone:
    @pytest.fixture
    def phone(self, new_page: NewPage, library: Library) -> Page:
        page = new_page(library.url, size=PHONE, touch=True)
        wait_for_files(page, len(library.files))
        return page

    @staticmethod
    def assert_fits(page: Page) -> None:
        width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1] == PHONE["width"]

    @staticmethod
    def small_targets(place: Page | Locator) -> list[str]:
        """Return the controls that a finger would miss: not hit all over a square around their middle."""
        targets = place.locator("button, select, input, a:not(.skip)").filter(visible=True)
        names = [
            target.evaluate(IS_HIT, SMALLEST_TARGET / 2 - 0.5)
            or target.get_attribute("aria-label")
            or target.inner_text()
            for target in targets.all()
        ]
        return [name for name in names if name is not True]

    def test_shows_the_list_without_scrolling_sideways(self, phone: Page) -> None:
        self.assert_fits(phone)
        assert self.small_targets(phone) == []
        expect(row(phone, "picture.png")).to_be_visible()

    @pytest.mark.parametrize("action", ["Open", "Make an expiring link…", "Rename…", "Set expiry…"])
    def test_shows_each_dialog(self, action: str, phone: Page) -> None:
        choose(phone, "picture.png", action)
        dialog = phone.get_by_role("dialog")
        expect(dialog).to_be_visible()
        self.assert_fits(phone)
        box = dialog.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert self.small_targets(dialog) == []

    def test_selects_several(self, phone: Page) -> None:
        phone.get_by_role("checkbox", name="Select picture.png").tap()
        expect(phone.get_by_role("region", name="Selected files")).to_contain_text("1 file selected")
        self.assert_fits(phone)
        assert self.small_targets(phone) == []

    def test_sorts(self, phone: Page, library: Library) -> None:
        phone.get_by_role("combobox", name="Sort").select_option("Name A–Z")
        expect(rows(phone).get_by_role("button", name="Open ")).to_have_text(sorted(library.files))


class TestAKeyboard:
    @staticmethod
    def focused(page: Page) -> str:
        """Return the name of what has the focus."""
        name: str = page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
        )
        return name

    def go_to(self, page: Page, name: str) -> None:
        """Press Tab until something has the focus."""
        for _ in range(120):
            page.keyboard.press("Tab")
            if self.focused(page) == name:
                return
        raise AssertionError(f"Tab never came to {name!r}")

    def test_opens_a_file_and_comes_back_to_it(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        self.go_to(page, "Open notes.txt")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="notes.txt")
        expect(dialog).to_be_visible()
        assert page.evaluate("document.activeElement.closest('dialog') !== null")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.get_by_role("button", name="Open notes.txt")).to_be_focused()

    def test_renames_by_the_menu(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        self.go_to(page, "More for notes.txt")
        page.keyboard.press("Enter")
        # comes with a file of its own when it is asked for first
        expect(page.get_by_role("menu")).to_be_visible()
        for _ in range(10):
            if self.focused(page) == "Rename…":
                break
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Rename")).to_be_visible()
        expect(page.get_by_role("textbox", name="Name")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()

    def test_skips_to_the_files(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        page.keyboard.press("Tab")
        assert self.focused(page) == "Skip to the files"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('[role=table]') !== null")

    def test_sees_where_the_focus_is(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        wait_for_files(page, len(library.files))
        unseen = []
        for _ in range(30):
            page.keyboard.press("Tab")
            style = page.evaluate(
                "(() => { const style = getComputedStyle(document.activeElement);"
                " return [style.outlineStyle, parseFloat(style.outlineWidth), style.boxShadow]; })()"
            )
            if (style[0] == "none" or style[1] < 1) and style[2] == "none":
                unseen.append(self.focused(page))
        assert unseen == []


def show_list(page: Page) -> None:
    expect(rows(page).first).to_be_visible()


def show_menu(page: Page) -> None:
    page.get_by_role("button", name="More for notes.txt").click()
    expect(page.get_by_role("menu")).to_be_visible()


def show_preview(page: Page) -> None:
    expect(open_file(page, "picture.png").locator("img")).to_be_visible()


def show_link(page: Page) -> None:
    choose(page, "notes.txt", "Make an expiring link…")
    page.get_by_role("button", name="Make the link").click()
    expect(page.get_by_role("img", name="QR code of the link")).to_be_visible()


def show_expiry(page: Page) -> None:
    choose(page, "notes.txt", "Set expiry…")
    page.get_by_role("combobox", name="Delete by itself").select_option("At a time of your choice")


def show_selection(page: Page) -> None:
    page.get_by_role("checkbox", name="Select notes.txt").check()
    expect(page.get_by_role("region", name="Selected files")).to_be_visible()


def show_message(page: Page) -> None:
    choose(page, "notes.txt", "Delete")
    expect(message(page, "notes.txt deleted")).to_be_visible()


def undo(page: Page) -> None:
    page.get_by_role("button", name="Undo").click()
    expect(row(page, "notes.txt")).to_be_visible()


def show_nothing(page: Page) -> None:
    page.get_by_role("searchbox", name="Search by name").fill("no such name")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()


def show_sign_in(page: Page) -> None:
    page.get_by_role("banner").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()


def show_uploads(page: Page) -> None:
    # a file whose bytes never come to an end while the page is looked at
    page.route("**/v1/files?name=*", lambda _: None)
    page.route("**/v1/files/missing", lambda _: None)
    page.locator("#choose-files").set_input_files(FilePayload(name="new.txt", mimeType="text/plain", buffer=b"new"))
    expect(page.get_by_role("region", name="Uploads")).to_be_visible()
    expect(page.get_by_role("progressbar").first).to_be_visible()


STATES = {
    "list": show_list, "menu": show_menu, "preview": show_preview, "link": show_link, "expiry": show_expiry,
    "selection": show_selection, "message": show_message, "nothing found": show_nothing, "sign-in": show_sign_in,
    "uploads": show_uploads,
}  # fmt: skip


@pytest.fixture(scope="module")
def axe(npm_packages: Path) -> str:
    """The script that finds what people with other senses than the programmers' would stumble over."""
    return (npm_packages / "axe-core" / "axe.min.js").read_text()


class TestAScreenReader:
    @staticmethod
    def faults(page: Page, axe: str) -> list[str]:
        """Return what axe finds serious or critical."""
        page.evaluate(axe)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        assert len(found["passes"]) > 5, "axe has looked at nothing"
        return [
            f"{rule['impact']} {rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for rule in found["violations"]
            for node in rule["nodes"]
            if rule["impact"] in ("serious", "critical")
        ]

    @pytest.mark.parametrize("state", STATES)
    def test_finds_nothing_serious(self, state: str, page: Page, library: Library, axe: str) -> None:
        page.goto(library.url)
        show_list(page)
        STATES[state](page)
        faults = self.faults(page, axe)
        if state == "message":
            undo(page)
        assert faults == []

    @pytest.mark.parametrize("state", ["list", "preview", "selection", "uploads"])
    @pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_finds_nothing_serious_in_the_dark(
        self, size: ViewportSize, state: str, new_page: NewPage, library: Library, axe: str
    ) -> None:
        page = new_page(library.url, size=size, theme="dark")
        show_list(page)
        STATES[state](page)
        assert self.faults(page, axe) == []

    def test_finds_nothing_serious_in_russian(self, new_page: NewPage, library: Library, axe: str) -> None:
        page = new_page(library.url, language="ru")
        show_list(page)
        assert self.faults(page, axe) == []

    def test_is_told_how_many_files_are_shown(self, page: Page, library: Library) -> None:
        page.goto(library.url)
        expect(page.locator("#announcer")).to_contain_text(f"{len(library.files)} files shown")
        page.get_by_role("searchbox", name="Search by name").fill("report")
        expect(page.locator("#announcer")).to_contain_text("1 file shown")

    def test_that_finds_nothing_would_find_a_fault(self, page: Page, library: Library, axe: str) -> None:
        page.goto(library.url)
        show_list(page)
        page.evaluate("document.querySelector('#search').removeAttribute('aria-label')")
        page.evaluate("document.querySelector('#search').removeAttribute('placeholder')")
        assert any("label" in fault for fault in self.faults(page, axe))


class TestWeight:
    @pytest.mark.parametrize("language", ["en", "ru"])
    def test_the_page_is_light(self, language: str, new_page: NewPage, library: Library) -> None:
        page = new_page(language=language)
        answers: list[Response] = []
        page.on("response", lambda answer: answers.append(answer))
        page.goto(library.url, wait_until="networkidle")
        show_list(page)
        own = [answer for answer in answers if "/web/" in answer.url or answer.url == f"{library.url}/"]
        sizes = {answer.url: len(answer.body()) for answer in own}
        assert len(sizes) > 5
        assert sum(sizes.values()) < MOST_BYTES, sizes

    def test_everything_comes_from_this_server(self, page: Page, library: Library, watch: Watch) -> None:
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.goto(library.url, wait_until="networkidle")
        assert watch.faults == []
        assert {url for url in urls if not url.startswith((library.url, "blob:", "data:"))} == set()
