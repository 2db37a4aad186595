"""Telling the service manager that has started the daemon how it is: systemd's ``sd_notify`` (man sd_notify(3)).

::

    supervisor   READY=1 when a worker answers · STATUS=… · RELOADING=1 · EXTEND_TIMEOUT_USEC=… · STOPPING=1
    a thread     asks the daemon, as anybody would; WATCHDOG=1 for each answer

Datagrams to a socket that ``NOTIFY_SOCKET`` names; where there is none, nothing is said and nothing is started. The
supervisor is the main process of the unit, so ``NotifyAccess=main`` is enough, and workers cannot speak for it.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, MutableMapping

from filestored.daemon import is_alive, is_ready

_LOOK_SECONDS = 0.05
_SHARE = 3
_SHORTEST_SECONDS = 0.05
_LONGEST_ANSWER_SECONDS = 10.0
_LONGEST_END_SECONDS = 60.0


class Service:
    """The service manager, if one is listening."""

    def __init__(self, address: str = "", watchdog: float = 0) -> None:
        """Speak to the socket at ``address``, ``@`` for an abstract one; none is spoken to if it is empty.

        ``watchdog`` is how many seconds without a sign of life the manager puts up with, 0 for as many as it takes.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog
        self._url = ""
        self._is_ready = False
        self._is_over = threading.Event()

    @classmethod
    def of(cls, env: MutableMapping[str, str]) -> "Service":
        """Read what the manager has put into the environment, and take it out: processes below have no part in it."""
        address = env.pop("NOTIFY_SOCKET", "")
        span, meant_for = env.pop("WATCHDOG_USEC", ""), env.pop("WATCHDOG_PID", "")
        is_ours = span.isdecimal() and meant_for in ("", str(os.getpid()))
        return cls(address if address[:1] in ("/", "@") else "", int(span) / 1e6 if is_ours else 0)

    def say(self, *lines: str) -> None:
        """Send ``NAME=value`` lines in one datagram. Never raises: the daemon does not depend on who listens."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # a manager that reads nothing must not hold the daemon up
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)

    def tell(self, status: str) -> None:
        """Say in a few words what the daemon does; ``systemctl status`` shows it."""
        self.say(f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the workers are about to be replaced; :meth:`reloaded` says that they are."""
        if not self._is_ready:
            return
        # the clock that systemd compares with its own, so that an older READY=1 does not count
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=replacing the workers")

    def reloaded(self) -> None:
        """Say that the workers have been replaced."""
        if self._is_ready:
            self.say("READY=1", f"STATUS=serves {self._url}")

    def leaving(self, seconds: float) -> None:
        """Say that the daemon was told to stop, serves for so long, and then needs some time to end."""
        # a manager that has told it to counts since then
        patience = int((seconds + _LONGEST_END_SECONDS) * 1e6)
        self.say(f"EXTEND_TIMEOUT_USEC={patience}", f"STATUS=told to stop: serves for {seconds:g} seconds more")

    def stopping(self) -> None:
        """Say that the daemon finishes running requests and ends."""
        self._is_over.set()
        self.say("STOPPING=1", "STATUS=finishes running requests")

    @contextlib.contextmanager
    def attending(self, url: str) -> Iterator[None]:
        """Say when the daemon at ``url`` accepts requests, and then show that it lives, until the block ends."""
        if not self._address:
            yield
            return
        self._url = url
        # workers are forked meanwhile: a library that the thread is just importing could never be imported there
        import ssl  # noqa: F401

        watcher = threading.Thread(target=self._attend, name="service", daemon=True)
        # it inherits the mask: a signal that came to it would not wake the main thread, which waits for it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            watcher.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield
        finally:
            self._is_over.set()

    def _attend(self) -> None:
        self.tell("waits for its workers")
        while not is_ready(self._url):
            if self._is_over.wait(_LOOK_SECONDS):
                return
        self._is_ready = True
        self.say("READY=1", f"MAINPID={os.getpid()}", f"STATUS=serves {self._url}")
        if not self._watchdog:
            return
        pause = max(self._watchdog / _SHARE, _SHORTEST_SECONDS)
        while not self._is_over.is_set():
            if is_alive(self._url, min(pause, _LONGEST_ANSWER_SECONDS)):
                self.say("WATCHDOG=1")
            self._is_over.wait(pause)
