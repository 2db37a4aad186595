"""``filestored COMMAND``: which commands there are, and how every one of them ends.

click rather than Typer, since Typer makes options from signatures and these are made from Settings.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from typing import TextIO

import click
from click.shell_completion import CompletionItem

from filestored import __version__
from filestored.cli.telling import tell
from filestored.errors import FilestoredError, SettingsError
from filestored.extras import explained
from filestored.firstprocess import leave_first_process
from filestored.signals import heed_signals

# the line of help stands here so that listing the commands imports none of them
_COMMANDS = {
    "start": ("filestored.cli.daemon", "Start the daemon in the background; return when it accepts requests."),
    "run": ("filestored.cli.daemon", "Run the daemon in the foreground, for containers and systemd."),
    "stop": ("filestored.cli.daemon", "Let the daemon finish running requests and stop it."),
    "restart": ("filestored.cli.daemon", "Stop the daemon and start it again with the settings of its last start."),
    "status": ("filestored.cli.daemon", "Say whether the daemon runs, and where."),
    "get_pid": ("filestored.cli.daemon", "Print the daemon's process id and nothing else."),
    "put": ("filestored.cli.transfers", "Store files and whole folders at a server; print their hashes."),
    "get": ("filestored.cli.transfers", "Fetch files by their hashes, or a folder by its manifest."),
    "rm": ("filestored.cli.remote", "Delete files by their hashes."),
    "ls": ("filestored.cli.remote", "List the files at a server."),
    "info": ("filestored.cli.remote", "Show what a server knows of a file."),
    "server": ("filestored.cli.servers", "Give servers names; say which is asked by default."),
    "token": ("filestored.cli.access", "Make, list and revoke tokens: who may do what."),
    "link": ("filestored.cli.links", "Print an address of a file that works without a token for a while."),
    "scrub": ("filestored.cli.care", "Re-read stored blobs and compare each with its name; beside a daemon, too."),
    "reindex": ("filestored.cli.care", "Give every blob that the catalogue does not know a file without owner."),
    "import": (
        "filestored.cli.importing",
        "Import files from a folder, a store, a bucket, transfer.sh or filebrowser.",
    ),
    "copy-store": ("filestored.cli.copying", "Copy a store into another, verified: folders and servers."),
    "gc": ("filestored.cli.care", "Remove what has expired, and temporary files that belong to no upload."),
    "doctor": (
        "filestored.cli.doctor",
        "Say what keeps the daemon from working, or from working well, and what mends it.",
    ),
    "config": ("filestored.cli.config", "Show the settings in force and where each comes from."),
    "completion": ("filestored.cli.completion", "Print what bash, zsh or fish needs to complete commands."),
}


class Commands(click.Group):
    """A group that imports a command when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands, in the order they are explained."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name == "run":
            leave_first_process()
            # before the imports: they take longer than a container may wait to stop
            heed_signals()
        module, summary = _COMMANDS[cmd_name]
        # Python's own words take an underscore behind them: import_
        name = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)
        command: click.Command = getattr(import_module(module), name)
        # what a function says beyond its first paragraph is said to users, too
        further = (command.help or "").partition("\n\n")[2]
        command.help = f"{summary}\n\n{further}" if further else summary
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without importing any."""
        found = [CompletionItem(name, help=summary) for name, (_, summary) in _COMMANDS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called for, or say which was probably meant."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.command(
    cls=Commands,
    help="A file storage daemon: POST a file, get its hash; GET it by the hash; DELETE it by the hash.",
    epilog="'filestored COMMAND --help' shows every option and its default.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", message="filestored %(version)s")
def filestored() -> None:
    """Hold the commands together; it does nothing itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 called wrongly, 130 interrupted.

    Whatever goes wrong is one line on standard error, never a traceback. Nothing is left to be written.
    """
    status = _run(arguments)
    for stream in (sys.stdout, sys.stderr):
        if not _is_written(stream):
            # the interpreter would try once more at its end, and complain
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return status


def _is_written(stream: TextIO | None) -> bool:
    """Tell whether everything that was printed could be written; to a stream that is closed nothing is."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        return False
    return True


def _run(arguments: Sequence[str] | None) -> int:
    try:
        if (answered := _answer_shell()) is not None:
            return answered
        words = list(sys.argv[1:] if arguments is None else arguments)
        # not its main(), which writes an empty line of its own when it is interrupted
        with filestored.make_context("filestored", words) as context:
            status = filestored.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        return _fail(error.format_message(), 2)
    except SettingsError as error:
        return _fail(str(error), 2)
    except FilestoredError as error:
        return _fail(str(error), _status_of(error))
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # nobody reads any more, and whoever stopped reading knows
        return 1
    except ImportError as error:
        return _fail(str(explained(error) or error), 1)
    except OSError as error:
        place = "" if _is_written(sys.stdout) else "standard output: "
        return _fail(place + _explained(error), 1)
    except Exception as error:
        return _fail(_explained(error), 1)
    return status if isinstance(status, int) else 0


def _answer_shell() -> int | None:
    """Answer a shell that completes a command line; return the exit status, None where none asks."""
    if "_FILESTORED_COMPLETE" not in os.environ:
        return None
    from filestored.cli.completion import answer_shell

    return answer_shell()


def _status_of(error: FilestoredError) -> int:
    # those of the client have the status of an answer, too
    return int(getattr(error, "exit_status", getattr(error, "status", 1)))


def _explained(error: Exception) -> str:
    """Say what failed without naming what only a programmer knows, where that can be told."""
    if isinstance(error, OSError):
        return str(error).partition("] ")[2] or str(error)
    return f"{type(error).__name__}: {error}"


def _fail(reason: str, status: int) -> int:
    line = " ".join(reason.split())
    tell(line if line.isprintable() else ascii(line)[1:-1])
    return status
