"""Lines on standard error for whoever called the program."""

from contextlib import suppress

import click


def tell(line: str) -> None:
    """Write a line on standard error. Where it cannot be written, by a full disk too, the work goes on without."""
    with suppress(OSError):
        click.echo(f"filestored: {line}", err=True)
