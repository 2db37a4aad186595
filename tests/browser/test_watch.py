"""The watch over the pages: each kind of fault is seen, and a page that does nothing wrong passes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browsing import PHONE, NewPage, Watch
from tests.sites import serve

POLICY = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src *; img-src data:"}
HTML = (
    "<!doctype html><meta charset=utf-8><meta name=viewport content=width=device-width><link rel=icon href=data:,>"
    "<h1>…</h1><script src=script.js></script>"
)
FAULTY = {
    "console": "console.error('lost the thread')",
    "exception": "throw new Error('nobody catches this')",
    "request to another host": "fetch('http://192.0.2.1/').catch(() => {})",
    "violates the following Content Security Policy directive": (
        "const style = document.createElement('style'); style.textContent = 'p{color:red}'; document.head.append(style)"
    ),
    "status of 404": "fetch('/nowhere')",
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "script.js").write_text("document.querySelector('h1').textContent = 'ready'")
    (tmp_path / "index.html").write_text(HTML)
    with serve(tmp_path, POLICY) as origin:
        yield origin


def add_script(folder: Path, script: str) -> None:
    (folder / "script.js").write_text(f"{script}; document.querySelector('h1').textContent = 'ready'")


def test_a_page_without_faults_passes(page: Page, site: str, watch: Watch) -> None:
    page.goto(site)
    expect(page.get_by_role("heading", name="ready")).to_be_visible()
    assert watch.faults == []


@pytest.mark.parametrize("kind", FAULTY)
def test_the_watch_sees(kind: str, page: Page, site: str, watch: Watch, tmp_path: Path) -> None:
    add_script(tmp_path, f"setTimeout(() => {{ {FAULTY[kind]} }})")
    page.goto(site)
    expect(page.get_by_role("heading", name="ready")).to_be_visible()
    page.wait_for_timeout(300)
    faults = watch.unexpected()
    # a refused request is an error in the console as well
    watch.allow(".")
    assert any(kind in fault for fault in faults), faults


def test_what_is_allowed_is_not_a_fault(page: Page, site: str, watch: Watch, tmp_path: Path) -> None:
    add_script(tmp_path, "console.error('expected')")
    watch.allow("expected")
    page.goto(site)
    expect(page.get_by_role("heading", name="ready")).to_be_visible()
    assert watch.faults != []


def test_each_page_has_a_profile_of_its_own(new_page: NewPage, site: str) -> None:
    first = new_page(site)
    first.evaluate("localStorage.setItem('kept', 'here')")
    second = new_page(site, size=PHONE, language="ru-RU", theme="dark", touch=True)
    assert second.evaluate("localStorage.getItem('kept')") is None
    assert second.evaluate("[innerWidth, navigator.language, matchMedia('(prefers-color-scheme: dark)').matches]") == [
        360, "ru-RU", True,
    ]  # fmt: skip
