"""Several owners at one browser: whose files a deletion takes, who is told what, and tabs beside each other."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.library import (
    Library,
    choose,
    fill,
    is_stored,
    message,
    row,
    rows,
    sign_in,
    wait_for_files,
)
from tests.browsing import Watch
from tests.collection import text
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.proxy import proxy_before
from tests.tokens import bearer, make_token, revoke_token

SHARED = "Kept by more than one"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def anna(store: Path) -> str:
    return make_token(store, "anna", "read,write,delete")


@pytest.fixture
def boris(store: Path) -> str:
    return make_token(store, "boris", "read,write,delete")


@pytest.fixture
def shared(start_daemon: StartDaemon, store: Path, anna: str, boris: str, watch: Watch) -> Library:
    """A daemon with one text that both keep, under names of their own."""
    watch.allow("status of (401|403)")
    library = fill(start_daemon("--anonymous", "none", store=store), [text("hers.txt", SHARED)], bearer(anna))
    text("his.txt", SHARED).store(library.url, bearer(boris))
    return library


class TestAWaitingDeletion:
    def test_is_sent_as_whoever_wished_it(self, page: Page, shared: Library, anna: str, boris: str) -> None:
        digest = shared.hashes["hers.txt"]
        page.clock.install()
        page.goto(shared.url)
        sign_in(page, anna)
        choose(page, "hers.txt", "Delete")
        wait_for_files(page, 0)
        assert is_stored(shared.daemon, digest, bearer(anna))
        page.get_by_role("button", name="Sign out").click()
        assert wait_until(lambda: not is_stored(shared.daemon, digest, bearer(anna)))
        sign_in(page, boris)
        expect(row(page, "his.txt")).to_be_visible()
        page.clock.fast_forward("01:00")
        page.reload()
        expect(row(page, "his.txt")).to_be_visible()
        assert is_stored(shared.daemon, digest, bearer(boris))

    def test_of_a_refused_token_is_never_sent(
        self, page: Page, shared: Library, store: Path, anna: str, boris: str
    ) -> None:
        page.clock.install()
        page.goto(shared.url)
        sign_in(page, anna)
        choose(page, "hers.txt", "Delete")
        wait_for_files(page, 0)
        revoke_token(store, "anna")
        assert wait_until(lambda: not is_stored(shared.daemon, shared.hashes["hers.txt"], bearer(anna)))
        page.get_by_role("searchbox", name="Search by name").fill("h")
        page.clock.run_for(1000)
        expect(page.get_by_text("Your token is no longer valid")).to_be_visible()
        expect(page.get_by_role("button", name="Undo")).to_have_count(0)
        page.keyboard.press("Escape")
        sign_in(page, boris)
        expect(row(page, "his.txt")).to_be_visible()
        page.clock.fast_forward("01:00")
        page.goto("about:blank")
        page.wait_for_timeout(500)
        assert is_stored(shared.daemon, shared.hashes["hers.txt"], bearer(boris))


class TestAnAdministrator:
    @pytest.fixture
    def admin(self, store: Path) -> str:
        return make_token(store, "root", "admin")

    def test_is_asked_where_others_keep_the_file_too(self, page: Page, shared: Library, admin: str, anna: str) -> None:
        text("mine.txt", SHARED).store(shared.url, bearer(admin))
        page.goto(shared.url)
        sign_in(page, admin)
        # theirs are not in the list
        page.get_by_role("searchbox", name="Search by name").fill("mine")
        wait_for_files(page, 1)
        choose(page, "mine.txt", "Delete")
        question = page.get_by_role("dialog", name="Delete this file?")
        expect(question).to_contain_text("3 keep this file")
        question.get_by_role("button", name="Cancel").click()
        wait_for_files(page, 1)
        assert is_stored(shared.daemon, shared.hashes["hers.txt"], bearer(anna))

    def test_is_not_asked_about_what_nobody_else_keeps(self, page: Page, shared: Library, admin: str) -> None:
        text("mine.txt", "Kept by one").store(shared.url, bearer(admin))
        page.goto(shared.url)
        sign_in(page, admin)
        choose(page, "mine.txt", "Delete")
        expect(message(page, "mine.txt deleted")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)


class TestWhatIsOffered:
    def test_is_what_the_token_allows(self, page: Page, shared: Library, store: Path) -> None:
        carl = make_token(store, "carl", "read,write")
        text("carls.txt", "Carl's own").store(shared.url, bearer(carl))
        page.goto(shared.url)
        sign_in(page, carl)
        page.get_by_role("button", name="More for carls.txt").click()
        expect(page.get_by_role("menuitem", name="Rename…")).to_be_visible()
        expect(page.get_by_role("menuitem", name="Delete")).to_have_count(0)
        page.keyboard.press("Escape")
        page.get_by_role("checkbox", name="Select carls.txt").check()
        selected = page.get_by_role("region", name="Selected files")
        expect(selected.get_by_role("button", name="Set expiry…")).to_be_visible()
        expect(selected.get_by_role("button", name="Delete")).to_have_count(0)

    def test_follows_whoever_is_signed_in_and_no_late_answer(
        self, page: Page, shared: Library, store: Path, anna: str
    ) -> None:
        reader = make_token(store, "reader", "read")
        held: list[Route] = []

        def hold_second(route: Route) -> None:
            is_readers = route.request.headers.get("authorization") == bearer(reader)["authorization"]
            asked.append(is_readers)
            if is_readers and sum(asked) == 2:
                held.append(route)
            else:
                route.continue_()

        asked: list[bool] = []
        page.route("**/v1/caller", hold_second)
        page.goto(shared.url)
        sign_in(page, reader)
        expect(page.get_by_role("heading", name="No files yet")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, anna)
        wait_for_files(page, 1)
        expect(page.get_by_role("button", name="Upload files")).to_be_enabled()
        [late] = held
        with page.expect_response("**/v1/caller"):
            late.continue_()
        page.wait_for_timeout(300)
        expect(page.get_by_role("button", name="Upload files")).to_be_enabled()


class TestTabs:
    def test_share_a_remembered_token(self, page: Page, shared: Library, anna: str) -> None:
        page.goto(shared.url)
        another = page.context.new_page()
        another.goto(shared.url)
        expect(another.get_by_role("heading", name="Sign in to see your files")).to_be_visible()
        sign_in(page, anna, remember=True)
        wait_for_files(another, 1)
        another.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in to see your files")).to_be_visible()
        expect(rows(page)).to_have_count(0)

    def test_with_tokens_of_their_own_keep_to_them(self, page: Page, shared: Library, anna: str, boris: str) -> None:
        page.goto(shared.url)
        sign_in(page, anna)
        another = page.context.new_page()
        another.goto(shared.url)
        sign_in(another, boris, remember=True)
        wait_for_files(another, 1)
        with page.expect_response("**/v1/files?*name=*") as found:
            page.get_by_role("searchbox", name="Search by name").fill("h")
        assert [file["name"] for file in found.value.json()["files"]] == ["hers.txt"]


def test_a_deletion_that_fails_shows_the_file_again(page: Page, start_daemon: StartDaemon, watch: Watch) -> None:
    watch.allow("ERR_")
    library = fill(start_daemon(), [text("stays.txt", "It stays")])
    with proxy_before(library.daemon.address) as proxy:
        page.clock.install()
        page.goto(proxy.url)
        choose(page, "stays.txt", "Delete")
        wait_for_files(page, 0)
        proxy.vanish()
        page.clock.fast_forward("00:10")
        expect(page.get_by_text("Check the connection").first).to_be_visible()
        wait_for_files(page, 1)
        assert is_stored(library.daemon, library.hashes["stays.txt"])
