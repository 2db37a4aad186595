"""The server that a command asks: its options, and how such a command ends when it is interrupted."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from filestored.cli.defaults import value_option
from filestored.cli.telling import tell
from filestored.client.errors import shown
from filestored.digest import parse_digest
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
            tell(choice.warning)
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


def require_not_empty(*given: tuple[str, str | None]) -> None:
    """Raise SettingsError where a flag was given nothing, such as a variable that is not set."""
    for flag, text in given:
        if text == "":
            raise SettingsError(f"{flag} is empty; give it a value, or leave it out")


def require_hashes(hashes: Iterable[str]) -> None:
    """Raise SettingsError for what could not be the hash of anything."""
    for each in hashes:
        if parse_digest(each) is None:
            raise SettingsError(f"{shown(each[:140])!r} is not a hash: it has 32, 40, 64 or 128 hex digits")


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

# what cannot be read is told by whoever opens it, with the status for it
_FILE = click.Path(path_type=str, readable=False)

_OPTIONS = (
    value_option(
        "--url", metavar="URL", help="address of a server", otherwise="http://localhost:9000", variable="FILESTORED_URL"
    ),
    value_option(
        "--server", metavar="NAME", shell_complete=_server_names, help="a server of `filestored server list`",
        otherwise="that of `filestored server default`", variable="FILESTORED_SERVER",
    ),
    value_option(
        "--token", metavar="TOKEN", help="token, which others on this machine can see", variable="FILESTORED_TOKEN"
    ),
    value_option("--token-file", metavar="FILE", type=_FILE, help="file with the token"),
    value_option(
        "--ca-file", metavar="FILE", type=_FILE, help="certificates (PEM) that the server's is trusted by",
        otherwise="the system's",
    ),
    click.option(
        "--timeout", metavar="TIME", default=_TIMEOUT, show_default=True, help="longest wait for the next byte"
    ),
    click.option(
        "--retry-for", metavar="TIME", default=_RETRY_FOR, show_default=True,
        help="how long to try again while nothing gets through",
    ),
    value_option("--deadline", metavar="TIME", help="longest time for one file in all"),
)  # fmt: skip
_NAMES = ("url", "server", "token", "token_file", "ca_file", "timeout", "retry_for", "deadline")


def asks_server(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that name a server; it gets them together as its first argument.

    Interrupted, it ends with one line and 130, 143 after SIGTERM, 129 after SIGHUP.
    """

    @functools.wraps(function)
    def command(**given: Any) -> int:
        where = Where(**{name: given.pop(name) for name in _NAMES})
        require_not_empty(("--token-file", where.token_file), ("--ca-file", where.ca_file), ("--server", where.server))
        with interruptible(goes_on=_goes_on(given)), _local_faults():
            return function(where, **given)

    decorated: Callable[..., int] = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _goes_on(given: Mapping[str, Any]) -> bool:
    """Tell whether a command moves files, of which what is done is not done again; no stream can be gone on with."""
    return "jobs" in given and "-" not in (given.get("output"), *given.get("files", ()))


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
def interruptible(*, goes_on: bool) -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP end the program from within a block, with one line and 130, 143 or 129.

    What the block has opened is closed first, within a moment; its threads are not waited for. A second signal ends
    the program at once. One that whoever started the program had it ignore stays ignored. Where
    the same command ``goes_on`` from there when it is called again, that is said.
    """
    came: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in ours:
            signal.signal(each, leave)
        raise KeyboardInterrupt

    all_three = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ours = [each for each in all_three if signal.getsignal(each) != signal.SIG_IGN]
    _watch_signals(ours, goes_on)
    for each in ours:
        signal.signal(each, stop)
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError, ValueError):
            if sys.stdout is not None:
                sys.stdout.flush()
        # the interpreter's own end would wait for what threads hold
        _leave_interrupted(came[0] if came else signal.SIGINT, goes_on)


def _watch_signals(numbers: Collection[int], goes_on: bool) -> None:
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
        _leave_interrupted(number, goes_on)

    threading.Thread(target=watch, daemon=True).start()


def _leave_interrupted(number: int, goes_on: bool) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"filestored: interrupted" + (b"; the same command goes on from here\n" if goes_on else b"\n"))
    os._exit(128 + number)
