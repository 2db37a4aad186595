"""A stretch of network between a program and a server that holds a chosen word back, even when its sender has died."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_PATIENCE_SECONDS = 120


@dataclass
class Hold:
    """What is held back: the first piece from the program with ``word`` in it, or the answer to that.

    ``caught`` is set as soon as it is held. ``release`` passes it on then, late; ``drop`` never does.
    """

    word: bytes
    is_answer: bool = False
    caught: threading.Event = field(default_factory=threading.Event)
    passed_on: threading.Event = field(default_factory=threading.Event)
    """Set when the piece has been passed on to the server."""
    _decided: threading.Event = field(default_factory=threading.Event)
    _is_dropped: bool = False
    _is_armed: bool = False

    def arm(self) -> None:
        """Hold the next one: until then everything passes."""
        self._is_armed = True

    def release(self) -> None:
        """Pass it on, whether the program is still there or not."""
        self._decided.set()

    def drop(self) -> None:
        """Never pass it on, and close its connection."""
        self._is_dropped = True
        self._decided.set()

    def takes(self, data: bytes) -> bool:
        """Tell whether a piece is what is to be held, which it is once only."""
        if not self._is_armed or self.caught.is_set() or self.word not in data:
            return False
        self._is_armed = False
        return True

    def wait(self) -> bool:
        """Hold it; tell whether it is to be passed on."""
        self.caught.set()
        assert self._decided.wait(_PATIENCE_SECONDS)
        return not self._is_dropped


@contextlib.contextmanager
def holding(target: tuple[str, int], hold: Hold) -> Iterator[int]:
    """Forward connections to a server, holding one piece back; give the port to connect to instead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, target, hold), daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            hold.drop()
            # accept() goes on waiting in a socket that is only closed
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, target: tuple[str, int], hold: Hold) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            try:
                upstream = socket.create_connection(target)
            except OSError:
                client.close()
                continue
            is_held = threading.Event()
            threading.Thread(target=_send, args=(client, upstream, hold, is_held), daemon=True).start()
            threading.Thread(target=_answer, args=(upstream, client, hold, is_held), daemon=True).start()


def _send(client: socket.socket, upstream: socket.socket, hold: Hold, is_held: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            if hold.takes(data):
                is_held.set()
                if not hold.is_answer and not hold.wait():
                    break
                upstream.sendall(data)
                hold.passed_on.set()
            else:
                upstream.sendall(data)
    with contextlib.suppress(OSError):
        upstream.shutdown(socket.SHUT_WR)


def _answer(upstream: socket.socket, client: socket.socket, hold: Hold, is_held: threading.Event) -> None:
    with upstream, client:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                if is_held.is_set() and hold.is_answer and not hold.caught.is_set() and not hold.wait():
                    break
                # whoever asked may be gone
                with contextlib.suppress(OSError):
                    client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
