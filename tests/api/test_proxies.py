"""What proxies say, what pages of other sites may do, and what ``Authorization`` holds."""

import base64
import os
from collections.abc import Iterator
from ipaddress import ip_network

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.credentials import token_in
from filestored.api.exchange import Exchange, Message
from filestored.api.proxies import Proxies
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token

INNER = "inner:9000"
TRUSTED = Proxies([ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def exchange(client: str, *headers: tuple[str, str]) -> Exchange:
    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {
        "method": "GET", "path": "/", "query_string": b"", "scheme": "http", "client": (client, 1),
        "http_version": "1.1",
        "headers": [(b"host", INNER.encode()), *((name.encode(), value.encode("latin-1")) for name, value in headers)],
    }  # fmt: skip
    return Exchange(scope, receive, send)


@pytest.mark.parametrize(
    ("peer", "headers", "client", "scheme", "host"),
    [
        ("127.0.0.1", [], "127.0.0.1", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.7")], "192.0.2.7", "http", INNER),
        ("::ffff:127.0.0.1", [("x-forwarded-for", "192.0.2.7")], "192.0.2.7", "http", INNER),
        ("192.0.2.1", [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")], "192.0.2.1", "http", INNER),
        # what stands before the last address that is not trusted anybody may have made up
        ("127.0.0.1", [("x-forwarded-for", "127.0.0.1, 192.0.2.7, 10.1.1.1")], "192.0.2.7", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")], "192.0.2.7", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "10.2.2.2, 10.1.1.1")], "10.2.2.2", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "unknown")], "127.0.0.1", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "6.6.6.6, nonsense")], "127.0.0.1", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "[2001:db8::1]:4711")], "2001:db8::1", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "fe80::1%a b=c")], "fe80::1", "http", INNER),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.7:4711")], "192.0.2.7", "http", INNER),
        (
            "10.0.0.1", [("forwarded", 'for=6.6.6.6, for="[2001:db8::1]:80";proto=https;host=files.example')],
            "2001:db8::1", "https", "files.example",
        ),
        # one of the two is a client's own: neither is believed
        (
            "127.0.0.1", [("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "192.0.2.7")],
            "127.0.0.1", "http", INNER,
        ),
        (
            "127.0.0.1",
            [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http, https"),
             ("x-forwarded-host", "files.example:8443")],
            "192.0.2.7", "https", "files.example:8443",
        ),
        (
            "127.0.0.1", [("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a b<script>")],
            "127.0.0.1", "http", INNER,
        ),
    ],
)  # fmt: skip
def test_a_trusted_proxy_is_believed_about_its_client_and_nobody_else(
    peer: str, headers: list[tuple[str, str]], client: str, scheme: str, host: str
) -> None:
    request = exchange(peer, *headers)
    TRUSTED.unwrap(request)
    assert (request.client, request.scheme, request.host) == (client, scheme, host)


def test_what_came_from_a_proxy_is_never_local() -> None:
    request = exchange("127.0.0.1")
    seen = [request.connection.is_proxied]
    TRUSTED.unwrap(request)
    seen.append(request.connection.is_proxied)
    assert seen == [False, True]
    assert not Proxies().trusts("127.0.0.1")
    assert not TRUSTED.trusts("not an address")


@given(st.text(st.characters(codec="latin-1")), st.text(st.characters(codec="latin-1")))
def test_no_header_of_a_proxy_breaks_anything(forwarded: str, listed: str) -> None:
    request = exchange("127.0.0.1", ("forwarded", forwarded), ("x-forwarded-for", listed), ("x-forwarded-host", listed))
    TRUSTED.unwrap(request)
    assert request.client


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None), (b"", ""), (b"Bearer abc", "abc"), (b"bEARER  abc", "abc"), (b"Bearer", ""), (b"Token abc", ""),
        (b"Basic " + base64.b64encode("имя:a:b".encode()), "a:b"), (b"Basic " + base64.b64encode(b"abc"), ""),
        (b"Basic abc", ""), (b"Basic \xff", ""), (b"Basic " + base64.b64encode(b"a:\xff"), ""),
    ],
)  # fmt: skip
def test_the_token_in_authorization(header: bytes | None, token: str | None) -> None:
    assert token_in(header) == token


def test_behind_a_proxy_nothing_is_local_and_addresses_are_those_clients_use(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--trusted-proxy", "127.0.0.1")
    assert httpx.post(daemon.url, content=b"x").status_code == 403
    token = make_token(daemon.store, "anna", "read,write")
    outside = {**bearer(token), "x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https", "host": "files.example"}
    made = httpx.post(f"{daemon.url}/v1/files", content=b"x", headers=outside).json()
    assert made["url"] == f"https://files.example/{made['hash']}"
    same = {**outside, "origin": "https://files.example"}
    assert httpx.post(daemon.url, content=b"x", headers=same).status_code == 200
    assert (
        httpx.post(daemon.url, content=b"x", headers={**outside, "origin": "https://evil.example"}).status_code == 403
    )
    assert wait_until(lambda: "client=192.0.2.7 POST" in daemon.read_log())


def test_uploads_are_counted_by_the_client_that_a_trusted_proxy_names(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        "--workers", "1", "--trusted-proxy", "127.0.0.1", "--anonymous", "full", "--max-uploads-per-client", "1"
    )  # fmt: skip

    def upload(client: str, body: object) -> int:
        return httpx.post(daemon.url, content=body, headers={"x-forwarded-for": client}, timeout=20).status_code  # type: ignore[arg-type]

    def nested() -> Iterator[bytes]:
        yield b"begun"
        statuses.append(upload("192.0.2.1", b"x"))
        statuses.append(upload("192.0.2.2", b"x"))
        yield b"done"

    statuses: list[int] = []
    assert upload("192.0.2.1", nested()) == 200
    assert statuses == [503, 200]


def test_cross_origin_pages_that_are_let_in_and_those_that_are_not(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--cors-origin", "https://app.example,http://localhost:3000")
    friend, stranger = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    asked = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization, x-more"}
    preflight = httpx.options(f"{daemon.url}/", headers={**friend, **asked})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = httpx.options(f"{daemon.url}/", headers={**stranger, **asked})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    cross = {"sec-fetch-site": "cross-site"}
    made = httpx.post(f"{daemon.url}/", content=os.urandom(9), headers={**friend, **cross})
    assert made.status_code == 200
    for _ in range(3):
        read = httpx.get(f"{daemon.url}/{made.text}", headers=friend)
        assert read.headers["access-control-allow-origin"] == "https://app.example"
        assert "ETag" in read.headers["access-control-expose-headers"]
        assert "Origin" in read.headers["vary"]
        assert "access-control-allow-origin" not in httpx.get(f"{daemon.url}/{made.text}", headers=stranger).headers
        # what a browser keeps of an image must not stand in for what a page may read
        assert "Origin" in httpx.get(f"{daemon.url}/{made.text}").headers["vary"]
    # an error can be read by the page as well
    assert "access-control-allow-origin" in httpx.get(f"{daemon.url}/nothing", headers=friend).headers
    assert httpx.post(f"{daemon.url}/", content=b"x", headers=stranger).status_code == 403
    assert httpx.options(f"{daemon.url}/").status_code == 405


def test_without_the_setting_a_preflight_is_any_other_method(client: httpx.Client) -> None:
    answer = client.options("/", headers={"origin": "https://a.example", "access-control-request-method": "PUT"})
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_a_server_open_to_all_origins(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--cors-origin", "*", "--anonymous", "full")
    made = httpx.post(f"{daemon.url}/", content=b"x", headers={"origin": "https://any.example"})
    assert (made.status_code, made.headers["access-control-allow-origin"]) == (200, "*")
