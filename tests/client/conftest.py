"""Clients of both kinds, of a daemon or of a bad network before it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from filestored.client import Client
from tests.client.both import KINDS
from tests.conftest import Daemon
from tests.proxy import Proxy

Connect = Callable[..., Client]


@pytest.fixture(params=KINDS, ids=["blocking", "async"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Make clients of one kind; what they remember of uploads lies in the test's own folder."""
    with ExitStack() as stack:

        def make(url: str, token: str | None = None, **options: Any) -> Any:
            options.setdefault("state", tmp_path / "state")
            return stack.enter_context(request.param(url, token, **options))

        yield make


@pytest.fixture
def files(connect: Connect, daemon: Daemon) -> Client:
    """A client of the session's daemon."""
    return connect(daemon.url)


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    """A network that the test makes bad."""
    with Proxy(daemon.address) as proxy:
        yield proxy
