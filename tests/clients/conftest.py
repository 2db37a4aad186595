"""Tests with the programs people upload with: tuspy, tus-js-client and Uppy."""

from tests.browsing import chromium, new_page, page, pytest_runtest_makereport, watch
from tests.npm import npm_packages

__all__ = ["chromium", "new_page", "npm_packages", "page", "pytest_runtest_makereport", "watch"]
