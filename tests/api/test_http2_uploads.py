"""Uploads over HTTP/2 that are cut: with every code that a stream may be reset with, also the one for no error."""

import hashlib
import time

import pytest

from tests.api import http2_frames as http2
from tests.conftest import StartDaemon
from tests.processes import wait_until

PIECE = 16_000


def head(stream: int) -> bytes:
    return http2.request("POST", "/", stream, ("content-type", "text/plain"))


def data(stream: int, body: bytes, *, ends: bool = False) -> bytes:
    """Return the frames of a body, which fits into the window that a connection begins with."""
    assert len(body) < 65_000
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    frames = [http2.frame(http2.DATA, 0, stream, piece) for piece in pieces]
    return b"".join(frames) + (http2.frame(http2.DATA, http2.END_STREAM, stream) if ends else b"")


@pytest.mark.parametrize("code", [http2.NO_ERROR, http2.CANCEL])
def test_a_body_that_is_reset_stores_nothing(start_daemon: StartDaemon, code: int) -> None:
    daemon = start_daemon("--http2", "always", "--workers", "1")
    bodies: list[bytes] = []
    for size in (20, 16_000, 48_000):
        for pause in (0.0, 0.02):
            for number in range(10):
                body = bytes([len(bodies)]) * (size + number)
                bodies.append(body)
                with http2.connect(daemon.url) as connection:
                    if pause:
                        connection.sendall(head(1) + data(1, body))
                        time.sleep(pause)
                        connection.sendall(http2.reset(1, code))
                    else:
                        connection.sendall(head(1) + data(1, body) + http2.reset(1, code))
                    time.sleep(0.01)
    whole = b"whole"
    with http2.connect(daemon.url) as connection:
        connection.sendall(head(1) + data(1, whole, ends=True))
        assert wait_until(lambda: daemon.blob(hashlib.sha256(whole).hexdigest()).exists())
    assert wait_until(lambda: daemon.leftovers() == [])
    stored = [len(body) for body in bodies if daemon.blob(hashlib.sha256(body).hexdigest()).exists()]
    assert stored == []
