"""Ending what a silent client sends: seen on real connections of this process."""

import socket
from collections.abc import Iterator

import pytest

from filestored.api.stalls import end_reading

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::"])
def connections(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, Pair]]:
    """Two connections of a server to its clients: of each the server's end, and the client's."""
    is_dual = request.param == "::"
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, dualstack_ipv6=is_dual) as listening:
        port = listening.getsockname()[1]

        def connect() -> Pair:
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            server = listening.accept()[0]
            server.settimeout(10)
            return server, client

        one, other = connect(), connect()
        yield one, other
        for each in (*one, *other):
            each.close()


def test_the_server_reads_the_end_and_can_still_answer(connections: tuple[Pair, Pair]) -> None:
    (server, client), (other_server, other_client) = connections
    client.sendall(b"begun")
    end_reading(client.getsockname())
    assert server.recv(100) == b"begun"
    assert server.recv(100) == b""
    server.sendall(b"answer")
    assert client.recv(100) == b"answer"
    # nobody else is concerned
    other_client.sendall(b"goes on")
    assert other_server.recv(100) == b"goes on"
