"""Ending connections that are of no use any more, where the server does not: those that may speak HTTP/2.

A client that never finishes its first request, over TLS or HTTP/2, is kept for as long as it likes otherwise; so is
what was handed over for one that takes no byte of an answer. What happens is looked at from outside: the requests, by
the address they come from, and what the system knows of each connection.
"""

import asyncio
import errno
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass

from loguru import logger

Peer = tuple[str, str]
"""Host and port as ASGI's ``client`` has them from Granian: both text."""

_KEPT_SECONDS = 75.0
_LONGEST_PAUSE = 4.0
_SHORTEST_PAUSE = 0.25
_LOOKS_A_TURN = 32
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_INTERNET = (socket.AF_INET, socket.AF_INET6)
# struct tcp_info, linux/tcp.h: tcpi_last_data_sent, tcpi_last_ack_sent, tcpi_last_data_recv
_LAST_DATA = struct.Struct("=44xIII")


@dataclass(slots=True)
class _Seen:
    """An open connection: whose it is, and how often it was looked at."""

    peer: Peer
    looks: int = 0


class Connections:
    """The connections of one worker, and which of them something is still to be expected of.

    - before its first request: ``header_timeout`` in all, however slowly that comes;
    - after an answer was given up because its client took nothing: ``send_timeout`` without a byte, either way;
    - after other requests: as long as browsers like to keep one, without a byte.

    A connection with a request under way is left alone: the request has timeouts of its own.
    """

    def __init__(self, header_timeout: float, send_timeout: float) -> None:
        self._header_timeout = header_timeout
        self._send_timeout = send_timeout
        self._kept = max(_KEPT_SECONDS, header_timeout, send_timeout)
        self._pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, min(header_timeout, send_timeout) / 4))
        self._asked: dict[Peer, float] = {}
        self._running: dict[Peer, int] = {}
        self._stuck: set[Peer] = set()
        # by the number of the socket's inode: no other has it at the same time
        self._seen: dict[int, _Seen] = {}
        self._ports: set[int] = set()

    def note(self, peer: Peer, now: float) -> None:
        """Note a request that is answered at once; ``now`` is of ``time.monotonic``."""
        self._asked[peer] = now

    def begin(self, peer: Peer, now: float) -> None:
        """Note a request that may take its time."""
        self._asked[peer] = now
        self._running[peer] = self._running.get(peer, 0) + 1

    def end(self, peer: Peer, now: float, *, is_stuck: bool) -> None:
        """Note the end of such a request; ``is_stuck`` says that the client did not take its answer."""
        self._asked[peer] = now
        left = self._running.pop(peer, 0) - 1
        if left > 0:
            self._running[peer] = left
        if is_stuck:
            self._stuck.add(peer)

    async def watch(self) -> None:
        """Look at all connections again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            try:
                await self._look()
            except OSError:
                # out of descriptors: what was not looked at is not gone
                continue
            except Exception as error:
                logger.opt(exception=error).error("the connections could not be looked at")

    async def _look(self) -> None:
        """Look at each connection once, and let others run in between."""
        now = time.monotonic()
        present: dict[int, _Seen] = {}
        for number, name in enumerate(os.listdir("/proc/self/fd")):
            if number % _LOOKS_A_TURN == _LOOKS_A_TURN - 1:
                await asyncio.sleep(0)
            try:
                self._examine(int(name), present)
            except OSError as error:
                # otherwise it is gone meanwhile
                if error.errno in _NO_DESCRIPTORS:
                    raise
        self._seen = present
        self._forget({seen.peer for seen in present.values()}, now)

    def _forget(self, peers: set[Peer], now: float) -> None:
        """Forget who has no connection any more; one that came since ``now`` was not among those looked at."""
        for peer in [peer for peer, asked in self._asked.items() if asked < now and peer not in peers]:
            if peer not in self._running:
                del self._asked[peer]
        self._stuck &= self._asked.keys()

    def _examine(self, descriptor: int, present: dict[int, _Seen]) -> None:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return
        # a copy: the server, in a thread of its own, may close this one, and its number be another connection's
        copy = os.dup(descriptor)
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            # a file's by now; to close the copy would give up all locks that this process has on it (fcntl(2))
            return
        with socket.socket(fileno=copy) as connection:
            if connection.family in _INTERNET and connection.type == socket.SOCK_STREAM and self._is_ours(connection):
                host, port = connection.getpeername()[:2]
                inode = os.fstat(copy).st_ino
                # an address of this link alone is told without the link by the server
                seen = self._seen.get(inode) or _Seen((host.partition("%")[0], str(port)))
                seen.looks += 1
                present[inode] = seen
                if self._is_over(seen, connection):
                    connection.shutdown(socket.SHUT_RDWR)

    def _is_ours(self, connection: socket.socket) -> bool:
        """Return whether it was accepted here, which what this process has opened itself was not."""
        port = connection.getsockname()[1]
        if port not in self._ports and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._ports.add(port)
        return port in self._ports

    def _is_over(self, seen: _Seen, connection: socket.socket) -> bool:
        peer = seen.peer
        if peer in self._running:
            return False
        asked = self._asked.get(peer)
        if asked is None:
            # not by the clock: where this process was held up, a request may wait to be heard of
            return (seen.looks - 1) * self._pause >= self._header_timeout
        # an answer that was handed over this moment may not be on its way yet
        since, silent = time.monotonic() - asked, _silent(connection)
        if peer not in self._stuck:
            return min(since, silent) >= self._kept
        # one that only sends pings, which are answered, does not keep what it never takes
        return since >= self._kept or (since >= self._pause and silent >= self._send_timeout)


def _silent(connection: socket.socket) -> float:
    """Return for how many seconds no data went or came."""
    sent: int
    received: int
    sent, _, received = _LAST_DATA.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size))
    return min(sent, received) / 1000
