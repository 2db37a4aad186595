"""A stretch of network between a program and PostgreSQL that breaks at a chosen word."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from filestored.catalogue.address import PostgresAddress


@dataclass
class Cut:
    """Where connections break: when the program sends ``word``, before the server has it, or after it has answered."""

    word: bytes
    is_answered: bool
    times: int = 1
    address: PostgresAddress = field(default_factory=lambda: PostgresAddress(""))


@contextlib.contextmanager
def network(url: str, cut: Cut) -> Iterator[PostgresAddress]:
    """Forward connections to a server until they are cut; give the address to connect to instead."""
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    target = (str(parts.hostname), int(parts.port or 5432))
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"{user}@127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=_accept, args=(server, target, cut), daemon=True).start()
        try:
            yield PostgresAddress(urlunsplit(parts._replace(netloc=there, query="sslmode=disable")))
        finally:
            # accept() goes on waiting in a socket that is only closed
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, target: tuple[str, int], cut: Cut) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            upstream = socket.create_connection(target)
            threading.Thread(target=_send, args=(client, upstream, cut), daemon=True).start()
            threading.Thread(target=_answer, args=(upstream, client), daemon=True).start()


def _send(client: socket.socket, upstream: socket.socket, cut: Cut) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            if cut.word in data and cut.times:
                cut.times -= 1
                # the program hears nothing any more, whatever the server still says
                client.shutdown(socket.SHUT_RDWR)
                if cut.is_answered:
                    upstream.sendall(data)
                break
            upstream.sendall(data)
    with contextlib.suppress(OSError):
        upstream.shutdown(socket.SHUT_WR)


def _answer(upstream: socket.socket, client: socket.socket) -> None:
    with upstream, client:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
