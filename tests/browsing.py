"""A real Chromium for tests: a fresh profile for each page, and a watch over what a page does wrong unseen.

The ``conftest.py`` of a folder with such tests imports :func:`chromium`, :func:`watch`, :func:`new_page`, :func:`page`
and :func:`pytest_runtest_makereport` from here.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    ViewportSize,
    WebError,
    expect,
    sync_playwright,
)

from tests.chromium import NAMES, find_chromium, launch_options
from tests.conftest import require_program

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
TRACES = Path(__file__).parent.parent / ".cache" / "traces"
"""Where the trace of a failed test is kept; ``playwright show-trace FILE`` shows it."""

PATIENCE_MS = 15_000
"""How long an expectation may take to come true, on a busy machine."""

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember how the test itself ended, so that the trace of a failed one is kept."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


class Watch:
    """What went wrong in the pages of one test: errors in the console, among them every breach of the page's
    policy; exceptions nobody caught; requests that would leave this machine."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._allowed: list[re.Pattern[str]] = []

    def allow(self, pattern: str) -> None:
        """Expect faults that have this regular expression in them, such as ``status of 401`` where one is provoked."""
        self._allowed.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        """Return the faults that were not allowed."""
        return [fault for fault in self.faults if not any(pattern.search(fault) for pattern in self._allowed)]

    def follow(self, context: BrowserContext) -> None:
        """Look at all pages of a profile from now on."""
        context.on("console", self._on_console)
        context.on("weberror", self._on_exception)
        context.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_exception(self, error: WebError) -> None:
        self.faults.append(f"exception: {error.error}")

    def _on_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https", "ws", "wss") and url.hostname not in _LOOPBACK:
            self.faults.append(f"request to another host: {request.url}")


class NewPage(Protocol):
    """Opens a page in a profile of its own."""

    def __call__(
        self,
        url: str | None = None,
        *,
        language: str = "en-US",
        size: ViewportSize = DESKTOP,
        theme: Literal["light", "dark"] = "light",
        touch: bool = False,
        permissions: Sequence[str] = (),
    ) -> Page:
        """Open ``url``, or an empty page, and return it."""


def require_chromium() -> str:
    """Return the path of Chromium; leave the test out where there is none, except in CI."""
    return find_chromium() or require_program(NAMES[0])


# not of the session: while it runs no other test of this process could call asyncio.run
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a folder, in each process that runs some of them."""
    program = require_chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=launch_options())
        yield browser
        browser.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What goes wrong in this test's pages; anything that was not allowed fails the test at its end."""
    watch = Watch()
    yield watch
    faults = watch.unexpected()
    assert not faults, "\n".join(faults)


@pytest.fixture
def new_page(chromium: Browser, watch: Watch, request: pytest.FixtureRequest) -> Iterator[NewPage]:
    """Open pages, each in a fresh profile: no storage, English, light and desktop size unless told otherwise."""
    contexts: list[BrowserContext] = []
    # what is asked for first ends last: a page that outlives its server would complain of that
    for server in ("start_daemon", "proxy"):
        if server in request.fixturenames:
            request.getfixturevalue(server)

    def open_page(
        url: str | None = None,
        *,
        language: str = "en-US",
        size: ViewportSize = DESKTOP,
        theme: Literal["light", "dark"] = "light",
        touch: bool = False,
        permissions: Sequence[str] = (),
    ) -> Page:
        context = chromium.new_context(
            locale=language, viewport=size, color_scheme=theme, has_touch=touch, is_mobile=touch,
            permissions=permissions, reduced_motion="reduce",
        )  # fmt: skip
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.tracing.start(snapshots=False, screenshots=False)
        watch.follow(context)
        page = context.new_page()
        if url is not None:
            page.goto(url)
        return page

    yield open_page
    report = request.node.stash.get(_REPORT, None)
    for number, context in enumerate(contexts):
        _close(context, keep_as=_trace_name(request.node, number) if report is None or report.failed else None)


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """Return an empty page at desktop size in English."""
    return new_page()


def _trace_name(node: pytest.Item, number: int) -> Path:
    name = re.sub(r"[^\w.-]+", "-", node.nodeid)
    return TRACES / f"{name}-{number}.zip"


def _close(context: BrowserContext, *, keep_as: Path | None) -> None:
    try:
        if keep_as is None:
            context.tracing.stop()
        else:
            context.tracing.stop(path=keep_as)
    except Error:
        # the browser itself has died; the test has failed for that already
        return
    context.close()
