"""Heads of requests that are too long, or that two readers would understand differently."""

from collections.abc import Iterator

import pytest

from tests.api.raw import RawConnection
from tests.bad_days.consistency import sha256
from tests.conftest import Daemon


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[RawConnection]:
    with RawConnection(daemon.address) as connection:
        yield connection


def ask(raw: RawConnection, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request whose every line is given; return status and body of its answer."""
    raw.send("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body)
    status, _, answer = raw.answer()
    return status, answer


@pytest.mark.parametrize("lines", [
    [f"X-{number}: {'a' * 7000}" for number in range(12)],
    [f"X: {'a' * 7000}" for _ in range(12)],
    [f"{'n' * 900}{number}: a" for number in range(80)],
], ids=["values", "one name", "names"])  # fmt: skip
@pytest.mark.parametrize("target", ["remembered", "/healthz"])
def test_header_fields_are_bounded_wherever_they_go(raw: RawConnection, target: str, lines: list[str]) -> None:
    body = b"remembered by the worker that is asked"
    digest = sha256(body)
    assert ask(raw, "POST / HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", body=body)[0] == 200
    path = f"/{digest}" if target == "remembered" else target
    for _ in range(3):
        assert ask(raw, f"GET {path} HTTP/1.1", "Host: localhost")[0] == 200
    status, answer = ask(raw, f"GET {path} HTTP/1.1", "Host: localhost", *lines)
    assert (status, b"headers_too_large" in answer) == (431, True)


@pytest.mark.parametrize("name", ["Host", "Authorization", "Content-Type", "Range"])
def test_what_may_be_said_once_is_not_said_twice(raw: RawConnection, name: str) -> None:
    lines = [f"{name}: one", f"{name}: two"]
    status, answer = ask(raw, "GET / HTTP/1.1", *([] if name == "Host" else ["Host: localhost"]), *lines)
    assert status == 400
    assert f"the header {name.lower()} twice".encode() in answer


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked"])
def test_a_body_in_another_coding_is_refused(raw: RawConnection, coding: str) -> None:
    lines = ("POST / HTTP/1.1", "Host: localhost", f"Transfer-Encoding: {coding}")
    status, answer = ask(raw, *lines, body=b"2\r\nhi\r\n0\r\n\r\n")
    assert (status, b"Transfer-Encoding" in answer) == (400, True)
