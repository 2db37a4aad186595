"""The bad network of the tests is as bad as it says, and otherwise changes nothing."""

import contextlib
import os
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Daemon
from tests.processes import wait_until
from tests.proxy import Proxy

BODY = os.urandom(1 << 20)


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    with Proxy(daemon.address) as proxy:
        yield proxy


def cut_upload(proxy: Proxy) -> Iterator[bytes]:
    """Yield a body that takes some seconds, and cut the connection in the middle."""
    proxy.limit(1 << 20)
    for number in range(8):
        if number == 2:
            proxy.cut()
        yield BODY


def test_it_passes_on_what_is_sent_and_answered(proxy: Proxy) -> None:
    digest = httpx.post(proxy.url, content=BODY).text
    assert httpx.get(f"{proxy.url}/{digest}").content == BODY
    assert proxy.uploaded > len(BODY)
    assert proxy.connections == 2


def test_it_is_as_slow_as_it_is_told(proxy: Proxy) -> None:
    proxy.limit(2 << 20)
    began = time.monotonic()
    httpx.post(proxy.url, content=BODY).raise_for_status()
    assert 0.4 < time.monotonic() - began < 5


def test_it_cuts_connections_and_takes_new_ones(proxy: Proxy) -> None:
    with httpx.Client(base_url=proxy.url) as client:
        with pytest.raises(httpx.TransportError):
            client.post("/", content=cut_upload(proxy))
        proxy.limit(None)
        assert client.get("/healthz").status_code == 200


def test_it_freezes_and_thaws(proxy: Proxy) -> None:
    with httpx.Client(base_url=proxy.url, timeout=0.5) as client:
        assert client.get("/healthz").status_code == 200
        proxy.freeze()
        with pytest.raises(httpx.ReadTimeout):
            client.get("/healthz")
        proxy.thaw()
        assert client.get("/healthz", timeout=20).status_code == 200


def test_it_vanishes_and_comes_back_at_the_same_address(proxy: Proxy) -> None:
    url = proxy.url
    proxy.vanish()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
    proxy.come_back()
    assert proxy.url == url
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_it_leaves_no_connection_to_the_daemon_behind(proxy: Proxy) -> None:
    with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=proxy.url) as client:
        client.get("/healthz")
        assert proxy.cut() == 1
        assert wait_until(lambda: proxy.cut() == 0)
