"""Lines for whoever waits for a command."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from filestored.cli.terminal import is_terminal


class Progress:
    """Findings on standard output, and how far it has come on a terminal."""

    def __init__(self) -> None:
        self._is_watched = is_terminal(sys.stderr)
        self._shown = ""

    def show(self, text: str) -> None:
        """Tell how far it has come, in place of what was told before."""
        if self._is_watched:
            self._write(f"\r{text.ljust(len(self._shown))}")
            self._shown = text

    def print(self, line: str) -> None:
        """Print a line on standard output, at once."""
        self.clear()
        click.echo(line)
        if sys.stdout is not None:
            sys.stdout.flush()

    def clear(self) -> None:
        """Take away what was told of how far it has come."""
        if self._shown:
            self._write(f"\r{' ' * len(self._shown)}\r")
            self._shown = ""

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def printable(text: str) -> str:
    """Return a text fit for one line of a terminal: what is not printable is escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call something for each SIGINT and SIGTERM, in the running event loop, instead of ending at once."""
    loop = asyncio.get_running_loop()
    # a shell has background jobs ignore Ctrl-C, which means others
    ours = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    for number in ours:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in ours:
            with suppress(ValueError):
                loop.remove_signal_handler(number)
