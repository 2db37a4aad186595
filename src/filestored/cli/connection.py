"""The server that a command asks: its options, and how such a command ends when it is interrupted."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from filestored.errors import SettingsError
from filestored.quantities import parse_duration

if TYPE_CHECKING:
    from filestored.client import Client

_TIMEOUT = "30s"
_RETRY_FOR = "60s"
_CLOSING_SECONDS = 0.8


@dataclass(frozen=True, slots=True)
class Where:
    """What was given on the command line about the server."""

    url: str | None
    server: str | None
    token: str | None
    token_file: str | None
    ca_file: str | None
    timeout: str
    retry_for: str
    deadline: str | None

    @property
    def is_given(self) -> bool:
        """Whether a server is named, on the command line or by a variable."""
        named = (self.url, self.server, os.environ.get("FILESTORED_URL"), os.environ.get("FILESTORED_SERVER"))
        return any(named)

    @contextmanager
    def connected(self, *, connections: int = 4) -> Iterator["Client"]:
        """Give a client of the server that is meant; nothing is sent yet. Raises SettingsError."""
        client = self._client(connections)
        yield client
        # only then: after a failure threads may be at work with it, and the program ends
        client.close()

    def _client(self, connections: int) -> "Client":
        from filestored.client import Client
        from filestored.client.servers import choose

        choice = choose(
            os.environ, url=self.url, server=self.server, token=self.token,
            token_file=Path(self.token_file) if self.token_file else None,
            ca_file=Path(self.ca_file) if self.ca_file else None,
        )  # fmt: skip
        if choice.warning:
            click.echo(f"filestored: {choice.warning}", err=True)
        return Client(
            choice.url, choice.token,
            verify=True if choice.ca_file is None else str(choice.ca_file),
            timeout=_seconds("--timeout", self.timeout),
            retry_for=_seconds("--retry-for", self.retry_for, least=0.0),
            deadline=None if self.deadline is None else _seconds("--deadline", self.deadline),
            connections=connections,
        )  # fmt: skip


def require_duration(flag: str, text: str | None) -> None:
    """Raise SettingsError where a flag was given a duration that is none."""
    if text is not None:
        _seconds(flag, text)


def _seconds(flag: str, text: str, least: float = 0.001) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{flag} {text}: {error}") from None
    if seconds < least:
        raise SettingsError(f"{flag} must be more than nothing, for example 30s")
    return seconds


def _server_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a server; a configuration that is wrong has none."""
    from filestored.client.servers import read_servers, servers_file

    try:
        servers = read_servers(servers_file(os.environ))
    except SettingsError:
        return []
    return [
        CompletionItem(name, help=server.url) for name, server in servers.by_name.items() if name.startswith(incomplete)
    ]


complete_server_name = _server_names
"""For the parameters of commands that take the name of a server."""

_FILE = click.Path(path_type=str)

_OPTIONS = (
    click.option("--url", metavar="URL", help="address of a server  [default: http://localhost:9000; FILESTORED_URL]"),
    click.option(
        "--server", metavar="NAME", shell_complete=_server_names,
        help="a server of `filestored server list`  [FILESTORED_SERVER]",
    ),
    click.option("--token", metavar="TOKEN", help="token, which others on this machine can see  [FILESTORED_TOKEN]"),
    click.option("--token-file", metavar="FILE", type=_FILE, help="file with the token"),
    click.option("--ca-file", metavar="FILE", type=_FILE, help="certificates (PEM) that the server's is trusted by"),
    click.option(
        "--timeout", metavar="TIME", default=_TIMEOUT, show_default=True, help="longest wait for the next byte"
    ),
    click.option(
        "--retry-for", metavar="TIME", default=_RETRY_FOR, show_default=True,
        help="how long to try again while nothing gets through",
    ),
    click.option("--deadline", metavar="TIME", help="longest time for one file in all  [default: none]"),
)  # fmt: skip
_NAMES = ("url", "server", "token", "token_file", "ca_file", "timeout", "retry_for", "deadline")


def asks_server(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that name a server; it gets them together as its first argument.

    Interrupted, it ends with one line and 130, or 143 after SIGTERM.
    """

    @functools.wraps(function)
    def command(**given: Any) -> int:
        where = Where(**{name: given.pop(name) for name in _NAMES})
        with interruptible(), _local_faults():
            return function(where, **given)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def _local_faults() -> Iterator[None]:
    """Have what the system refuses end with the status for it, results that cannot be written too."""
    from filestored.client.errors import LocalFault

    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LocalFault.of(error.filename if isinstance(error.filename, str) else None, error) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT and SIGTERM end the program from within a block, with one line and 130 or 143.

    What the block has opened is closed first, within a moment; its threads are not waited for. A second signal ends
    the program at once. One that whoever started the program had it ignore stays ignored.
    """
    came: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in ours:
            signal.signal(each, leave)
        raise KeyboardInterrupt

    ours = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    _watch_signals(ours)
    for each in ours:
        signal.signal(each, stop)
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError, ValueError):
            if sys.stdout is not None:
                sys.stdout.flush()
        # the interpreter's own end would wait for what threads hold
        _leave_interrupted(came[0] if came else signal.SIGINT)


def _watch_signals(numbers: Collection[int]) -> None:
    """Have a thread see to it that a signal ends the program, whichever thread the system gives it to.

    Only the main thread runs handlers, and one that waits for a lock is not woken by what another thread was given.
    """
    arrivals, noted = os.pipe()
    os.set_blocking(noted, False)
    signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
    # does nothing but end a wait; by default nobody sends it
    signal.signal(signal.SIGURG, lambda number, frame: None)
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while (number := os.read(arrivals, 1)[0]) not in numbers:
            pass
        signal.pthread_kill(main, signal.SIGURG)
        time.sleep(_CLOSING_SECONDS)
        _leave_interrupted(number)

    threading.Thread(target=watch, daemon=True).start()


def _leave_interrupted(number: int) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"filestored: interrupted; the same command goes on from here\n")
    os._exit(128 + number)
