"""``completion``: what a shell needs to complete commands, options, names of servers and paths."""

import os

import click

VARIABLE = "_FILESTORED_COMPLETE"
"""The variable by which the script in the shell asks the program what there is."""


@click.command(
    epilog='For one session: eval "$(filestored completion bash)"; for all of them put its output where the shell '
    "looks for completions, see docs/cli.md."
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script for a shell."""
    from click.shell_completion import get_completion_class

    from filestored.cli.commands import filestored

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(filestored, {}, "filestored", VARIABLE).source())
    return 0


def answer_shell() -> int | None:
    """Answer a shell that asks for completions; return the exit status, None where none asks.

    Whatever goes wrong is told by the status alone: somebody is in the middle of a line.
    """
    instruction = os.environ.get(VARIABLE)
    if not instruction:
        return None
    from click.shell_completion import shell_complete

    from filestored.cli.commands import filestored

    try:
        return shell_complete(filestored, {}, "filestored", VARIABLE, instruction)
    except Exception:
        return 1
