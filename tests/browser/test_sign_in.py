"""Signing in on the page: where a token is asked for, what it opens, and what is kept of it."""

from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.library import (
    KINDS,
    Library,
    fill,
    make_files,
    open_file,
    row,
    rows,
    sign_in,
    wait_for_files,
)
from tests.browsing import NewPage, Watch
from tests.collection import text
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token, revoke_token

REFUSED = "status of (401|403)"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def anna(store: Path) -> str:
    """A token for a store that lets nobody in without one."""
    return make_token(store, "anna", "read,write,delete")


@pytest.fixture
def closed(start_daemon: StartDaemon, store: Path, anna: str, watch: Watch) -> Library:
    """A daemon with two files of Anna's, which asks for a token."""
    watch.allow(REFUSED)
    daemon = start_daemon("--anonymous", "none", store=store)
    return fill(daemon, [text("hers.txt", "Anna's own"), text("also.txt", "Hers too")], bearer(anna))


def kept_in_the_browser(page: Page) -> str:
    """Return everything the page keeps by name and value, as one text."""
    kept: str = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    return kept


def test_the_page_says_that_a_token_is_needed(page: Page, closed: Library) -> None:
    page.goto(closed.url)
    expect(page.get_by_role("heading", name="Sign in to see your files")).to_be_visible()
    expect(rows(page)).to_have_count(0)


def test_a_wrong_token_is_said_and_the_right_one_opens_the_list(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    page.get_by_role("banner").get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog", name="Sign in")
    for wrong in ("nonsense", anna[:-1] + ("a" if anna[-1] != "a" else "b")):
        dialog.get_by_label("Token").fill(wrong)
        dialog.get_by_role("button", name="Sign in").click()
        expect(dialog.get_by_role("alert")).to_contain_text("not valid")
    dialog.get_by_label("Token").fill(f"  {anna}\n")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()
    wait_for_files(page, 2)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_the_token_is_kept_for_the_tab_and_forgotten_with_it(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    sign_in(page, anna)
    wait_for_files(page, 2)
    page.reload()
    wait_for_files(page, 2)
    assert anna not in page.evaluate("JSON.stringify({...localStorage})")
    another = page.context.new_page()
    another.goto(closed.url)
    expect(another.get_by_role("heading", name="Sign in to see your files")).to_be_visible()


def test_the_token_is_remembered_where_that_was_asked_for(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    sign_in(page, anna, remember=True)
    wait_for_files(page, 2)
    another = page.context.new_page()
    another.goto(closed.url)
    wait_for_files(another, 2)


def test_signing_out_leaves_nothing_behind(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    sign_in(page, anna, remember=True)
    wait_for_files(page, 2)
    assert anna in kept_in_the_browser(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to see your files")).to_be_visible()
    expect(page.get_by_text("hers.txt")).to_have_count(0)
    assert anna not in kept_in_the_browser(page)
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to see your files")).to_be_visible()


def test_a_token_that_was_revoked_is_said_to_have_ended(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    sign_in(page, anna)
    wait_for_files(page, 2)
    revoke_token(closed.daemon.store, "anna")
    # after a second it is good for nothing
    page.wait_for_timeout(1200)
    page.get_by_role("searchbox", name="Search by name").fill("hers")
    expect(page.get_by_text("Your token is no longer valid")).to_be_visible()
    assert anna not in kept_in_the_browser(page)


def test_each_sees_the_own_files_only(new_page: NewPage, closed: Library, store: Path, anna: str) -> None:
    boris = make_token(store, "boris", "read,write")
    text("his.txt", "Boris's own").store(closed.url, bearer(boris))
    page = new_page(closed.url)
    sign_in(page, boris)
    wait_for_files(page, 1)
    expect(row(page, "his.txt")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, anna)
    wait_for_files(page, 2)
    expect(page.get_by_text("his.txt")).to_have_count(0)


def test_a_reader_is_told_what_it_may_not(page: Page, closed: Library, store: Path) -> None:
    reader = make_token(store, "reader", "read")
    page.goto(closed.url)
    sign_in(page, reader)
    expect(page.get_by_role("heading", name="No files yet")).to_be_visible()
    expect(page.get_by_role("button", name="Upload files")).to_be_disabled()
    page.locator("#choose-files").set_input_files(FilePayload(name="new.txt", mimeType="text/plain", buffer=b"new"))
    expect(page.get_by_role("region", name="Uploads")).to_contain_text("You may not upload here")
    expect(rows(page)).to_have_count(0)


@pytest.mark.parametrize(("name", "element"), KINDS.items())
def test_previews_work_with_a_token(
    name: str, element: str, page: Page, new_page: NewPage, start_daemon: StartDaemon, store: Path, anna: str,
    watch: Watch,
) -> None:  # fmt: skip
    watch.allow(REFUSED)
    files = [file for file in make_files(new_page()) if file.name == name]
    library = fill(start_daemon("--anonymous", "none", store=store), files, bearer(anna))
    page.goto(library.url)
    sign_in(page, anna)
    content = open_file(page, name).locator(element)
    expect(content).to_be_visible()
    if element == "img":
        expect(content).to_have_js_property("naturalWidth", 480)
    elif element in ("video", "audio"):
        assert wait_until(lambda: bool(content.evaluate("element => element.readyState >= 1")))
    elif element == "pre":
        expect(content).to_contain_text("Milk")


def test_a_download_works_with_a_token(page: Page, closed: Library, anna: str) -> None:
    page.goto(closed.url)
    sign_in(page, anna)
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download hers.txt").click()
    assert coming.value.suggested_filename == "hers.txt"
    assert coming.value.path().read_bytes() == b"Anna's own"
    # the address is kept in the list of downloads: it must not hold the token
    assert anna not in coming.value.url
