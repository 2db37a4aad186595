"""``rm``, ``ls``, ``info``: what is at a server."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from filestored.cli.connection import Where, asks_server, require_hashes
from filestored.cli.defaults import value_option
from filestored.cli.telling import tell
from filestored.cli.terminal import is_terminal, readable, write_line
from filestored.client.errors import ClientError, NotAllowed, Unreachable, shown

if TYPE_CHECKING:
    from filestored.client.records import File

# the widths of a table are those of so many files; it is printed as they come
_ROWS_AT_ONCE = 500
_FIELDS = ("hash", "size", "type", "created_at", "expires_at", "name")


@click.command(epilog="The other files of a hash's owner, and the bytes that others keep under it too, stay.")
@click.argument("hashes", nargs=-1, required=True, metavar="HASH...")
@asks_server
def rm(where: Where, hashes: tuple[str, ...]) -> int:
    """Delete files."""
    from filestored.client.folders import exit_status

    require_hashes(hashes)
    errors: list[ClientError] = []
    with where.connected() as client:
        for file_hash in hashes:
            try:
                client.delete(file_hash)
            except (Unreachable, NotAllowed):
                raise
            except ClientError as error:
                errors.append(error)
                tell(shown(str(error)))
    return exit_status(errors)


@click.command(epilog="A table on a terminal; in a pipe fields with tabs between: " + ", ".join(_FIELDS) + ".")
@value_option("--name", metavar="TEXT", help="only files whose name begins so; * stands for anything")
@value_option("--type", "media_type", metavar="TEXT", help="only files whose media type begins so")
@click.option(
    "--sort", metavar="FIELD", default="-created_at", show_default=True,
    type=click.Choice([sign + field for field in ("created_at", "name", "size") for sign in ("", "-")]),
    help="created_at, name or size; with - for descending",
)  # fmt: skip
@value_option("--limit", metavar="N", type=click.IntRange(1), help="no more than so many", otherwise="all")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a line")
@asks_server
def ls(where: Where, name: str | None, media_type: str | None, sort: str, limit: int | None, as_json: bool) -> int:
    """List files.

    They are one's own; with a token for admin those of all.
    """
    with where.connected() as client:
        files = client.list(name=name, type=media_type, sort=sort, limit=limit)
        if as_json:
            _write(files, lambda file: json.dumps(file.as_json()))
        elif is_terminal(sys.stdout):
            _write_table(files)
        else:
            _write(files, lambda file: "\t".join(_plain(cell) for cell in _cells(file)))
    return 0


def _write(files: Iterable["File"], spell: "Callable[[File], str]") -> None:
    for file in files:
        write_line(spell(file))


def _cells(file: "File") -> tuple[str, ...]:
    said = file.as_json()
    return tuple("" if said[field] is None else str(said[field]) for field in _FIELDS)


def _plain(cell: str) -> str:
    """Return a field for a pipe: tabs and line ends would make others of it."""
    return cell if not any(character in cell for character in "\t\n\r") else shown(cell)


def _write_table(files: Iterable["File"]) -> None:
    rest = iter(files)
    head: list[tuple[str, ...]] = [("HASH", "SIZE", "TYPE", "CREATED", "EXPIRES", "NAME")]
    while rows := [_row(file) for file in itertools.islice(rest, _ROWS_AT_ONCE)]:
        table = head + rows
        head = []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            cells[1] = row[1].rjust(widths[1])
            write_line("  ".join(cells).rstrip())


def _row(file: "File") -> tuple[str, ...]:
    file_hash, _, media_type, created, expires, name = _cells(file)
    # seconds are enough to look at
    return file_hash, readable(file.size), media_type, created[:19], expires[:19] or "never", name


@click.command()
@click.argument("file_hash", metavar="HASH")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@asks_server
def info(where: Where, file_hash: str, as_json: bool) -> int:
    """Show what the server knows of one's own file."""
    require_hashes([file_hash])
    with where.connected() as client:
        said = client.info(file_hash).as_json()
    if as_json:
        write_line(json.dumps(said))
        return 0
    width = max(map(len, said))
    for key, value in said.items():
        write_line(f"{key:<{width}}  {_plain('-' if value is None else str(value))}")
    return 0
