"""``server add``, ``list``, ``remove``, ``default``: the servers that a user calls by name."""

import getpass
import json
import os
import sys
from pathlib import Path

import click

from filestored.cli.connection import complete_server_name, require_not_empty
from filestored.cli.defaults import value_option
from filestored.cli.telling import tell
from filestored.cli.terminal import is_terminal, write_line
from filestored.client import servers
from filestored.client.errors import shown
from filestored.errors import SettingsError

_FILE = click.Path(path_type=str, allow_dash=True, readable=False)


@click.group(epilog="They are kept in servers.toml, in $XDG_CONFIG_HOME/filestored or ~/.config/filestored.")
def server() -> None:
    """Give servers names."""


@server.command()
@click.argument("name")
@click.argument("url")
@value_option(
    "--token-file", metavar="FILE", type=_FILE,
    help="file that has the token; - reads the token from standard input and keeps it in servers.toml",
)  # fmt: skip
@value_option(
    "--ca-file", metavar="FILE", type=_FILE, help="certificates (PEM) that the server's is trusted by",
    otherwise="the system's",
)  # fmt: skip
@click.option("--default", "is_default", is_flag=True, help="ask this one where no other is named")
def add(name: str, url: str, token_file: str | None, ca_file: str | None, is_default: bool) -> int:
    """Add a server, or replace the one of that name."""
    require_not_empty(("--token-file", token_file), ("--ca-file", ca_file))
    token = None
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        raise SettingsError(f"{shown(ca_file)}: the certificates cannot be read")
    if token_file == "-":  # noqa: S105
        token, token_file = servers.require_token(_read_token(), "standard input"), None
    elif token_file is not None:
        servers.read_token(Path(token_file))
    servers.add_server(
        servers.servers_file(os.environ),
        servers.Server(
            servers.require_name(name),
            servers.require_url(url, "URL"),
            token,
            _absolute(token_file),
            _absolute(ca_file),
        ),
        is_default=is_default,
    )
    return 0


def _read_token() -> str:
    if is_terminal(sys.stdin):
        return getpass.getpass("Token: ").strip()
    return sys.stdin.read(8192).strip()


def _absolute(path: str | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))


@server.command("list")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a line")
def list_servers(as_json: bool) -> int:
    """Show what servers there are; * marks the default. No token is shown."""
    known = servers.read_servers(servers.servers_file(os.environ))
    if known.warning:
        tell(known.warning)
    width = max((len(name) for name in known.by_name), default=0)
    for name, each in known.by_name.items():
        is_default, has_token = name == known.default, bool(each.token or each.token_file)
        if as_json:
            write_line(json.dumps({"name": name, "url": each.url, "default": is_default, "token": has_token}))
        else:
            token = "with a token" if has_token else "without a token"
            write_line(f"{'*' if is_default else ' '} {name:<{width}}  {each.url}  {token}")
    return 0


@server.command()
@click.argument("name", shell_complete=complete_server_name)
def remove(name: str) -> int:
    """Forget a server."""
    servers.remove_server(servers.servers_file(os.environ), name)
    return 0


@server.command()
@click.argument("name", required=False, shell_complete=complete_server_name)
def default(name: str | None) -> int:
    """Have a server asked where none is named; without NAME print which one it is."""
    path = servers.servers_file(os.environ)
    if name is not None:
        servers.set_default(path, name)
        return 0
    chosen = servers.read_servers(path).default
    if chosen is None:
        raise SettingsError("no server is the default; see `filestored server default --help`")
    write_line(chosen)
    return 0
