"""Tests of the page in a real Chromium."""

from tests.browsing import chromium, new_page, page, pytest_runtest_makereport, watch
from tests.npm import npm_packages

__all__ = ["chromium", "new_page", "npm_packages", "page", "pytest_runtest_makereport", "watch"]
