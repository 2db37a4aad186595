"""``link``: an address that reads one file, from a server or made beside a local store."""

import json
from collections.abc import Callable
from importlib.util import find_spec

import click

from filestored.cli.connection import Where, asks_server, require_duration, require_hashes
from filestored.cli.defaults import value_option
from filestored.cli.terminal import write_line
from filestored.errors import SettingsError

_STORE = ("store", "spool", "bucket_endpoint", "bucket_region", "bucket_path_style", "catalogue", "config")
# without the libraries for a store there is only the server to ask
_HAS_STORES = find_spec("pydantic") is not None


def _store_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options that name a local store, where the libraries for one are installed."""
    if not _HAS_STORES:
        return function
    from filestored.cli.options import setting_options

    return setting_options(_STORE)(function)


@click.command(epilog="Whoever has the address can read this one file until the time is over, and do nothing else.")
@click.argument("file_hash", metavar="HASH")
@click.option("--expires-in", metavar="TIME", default="1h", show_default=True, help="how long it works: 90m, 7d")
@value_option(
    "--base", metavar="URL", help="what others call the server, for a store on this machine",
    otherwise="where its daemon listens",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print JSON: url, expires_at; from a server only")
@_store_options
@asks_server
def link(where: Where, file_hash: str, expires_in: str, base: str | None, as_json: bool, **flags: str | None) -> int:
    """Print an address that works without a token, and nothing else."""
    is_local = any(value is not None for value in (base, *flags.values()))
    if is_local and (where.url or where.server):
        raise SettingsError("--url and --server ask a server, --store and --base make the link here: give one of both")
    if is_local or (_HAS_STORES and not where.is_given):
        from filestored.cli.access import make_link

        if as_json:
            raise SettingsError("--json is for links that a server makes: name one with --url or --server")
        return make_link(file_hash, expires_in, base, flags)
    require_duration("--expires-in", expires_in)
    require_hashes([file_hash])
    with where.connected() as client:
        made = client.link(file_hash, expires_in)
    if as_json:
        write_line(json.dumps({"url": made.url, "expires_at": made.expires_at.isoformat().replace("+00:00", "Z")}))
    else:
        write_line(made.url)
    return 0
