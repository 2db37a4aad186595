"""``token create``, ``token list``, ``token revoke``, and links made beside a store: who may do what."""

import json
import re
import sys
import time
from collections.abc import Mapping

import click

from filestored import daemon
from filestored.access import Permission, new_token
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import TokenRecord, now_milliseconds
from filestored.cli.defaults import value_option
from filestored.cli.stores import adopt_store_folder, change, find_store_folder, open_catalogue, store_options
from filestored.cli.telling import tell
from filestored.digest import Digest, parse_digest
from filestored.errors import SettingsError, StartError
from filestored.quantities import format_size, parse_duration, parse_size
from filestored.shared import renew_tokens
from filestored.signing import KEY_NOTE, Signer, new_key

_BASE = re.compile(r"https?://[^\s/?#]+(?:/[^\s?#]*)?", re.ASCII)
_ANYWHERE = {"0.0.0.0": "localhost", "[::]": "localhost"}  # noqa: S104


@click.group(epilog="A token is shown once, when it is made; the store keeps only its hash.")
def token() -> None:
    """Make, list and revoke tokens."""


@token.command()
@click.argument("name")
@click.option("--permissions", required=True, metavar="LIST", help="of read, write, delete, admin, with commas between")
@value_option("--expires-in", metavar="TIME", help="how long it is good: 30d, 12h", otherwise="for ever")
@value_option("--quota", metavar="SIZE", help="how much its owner may keep in all: 10GiB")
@store_options
def create(name: str, permissions: str, expires_in: str | None, quota: str | None, **flags: str | None) -> int:
    """Make a token and print it, and nothing else.

    NAME is the owner of what is uploaded with it. A running daemon knows it within a second.
    """
    text, record = _make(name, permissions, expires_in, quota)
    if sys.stdout is None:
        raise StartError("standard output is closed: nobody would get the token, so none is made")
    folder = adopt_store_folder(flags)
    with open_catalogue(flags, folder, needs_blobs=False) as catalogue:
        if not change(catalogue, folder, lambda transaction: transaction.add_token(record)):
            raise StartError(f"there is a token {name} already; revoke it first, or choose another name")
        renew_tokens(folder.shared_file)
        try:
            click.echo(text)
        except OSError as error:
            # a token that nobody has would still count as one: loopback would grant nothing any more
            change(catalogue, folder, lambda transaction: transaction.remove_token(name))
            renew_tokens(folder.shared_file)
            reason = error.strerror or error
            raise StartError(f"the token {name} could not be printed and is revoked again: {reason}") from None
    return 0


def _make(name: str, permissions: str, expires_in: str | None, quota: str | None) -> tuple[str, TokenRecord]:
    """Judge what was given on the command line. Raises SettingsError."""
    now = now_milliseconds()
    try:
        granted = Permission.parse(permissions)
    except ValueError as error:
        raise SettingsError(f"--permissions {permissions}: {error}") from None
    end = None if expires_in is None else now + int(_seconds(expires_in) * 1000)
    try:
        most = None if quota in (None, "none") else parse_size(quota)
    except ValueError as error:
        raise SettingsError(f"--quota {quota}: {error}") from None
    return _named(name, granted, now, end, most)


def _named(
    name: str, granted: Permission, now: int, end: int | None = None, quota: int | None = None
) -> tuple[str, TokenRecord]:
    """Make a token. Raises SettingsError where it cannot be called so."""
    try:
        return new_token(name, granted, now, expires_at=end, quota=quota)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _seconds(expires_in: str) -> float:
    try:
        seconds = parse_duration(expires_in)
    except ValueError as error:
        raise SettingsError(f"--expires-in {expires_in}: {error}") from None
    if seconds <= 0:
        raise SettingsError("--expires-in must be more than nothing, for example 30d")
    return seconds


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON, sizes in bytes")
@store_options
def list_tokens(as_json: bool, **flags: str | None) -> int:
    """Show what tokens there are, and how much each owner keeps."""
    with open_catalogue(flags, find_store_folder(flags), needs_blobs=False) as catalogue:
        rows = [(record, catalogue.usage(record.name).bytes) for record in catalogue.tokens()]
    if as_json:
        click.echo(json.dumps([_described(record, kept) for record, kept in rows], indent=2))
        return 0
    table: list[tuple[str, ...]] = [("NAME", "PERMISSIONS", "CREATED", "EXPIRES", "KEEPS", "QUOTA")]
    table += [_shown(record, kept) for record, kept in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _described(record: TokenRecord, kept: int) -> dict[str, object]:
    return {
        "name": record.name,
        "permissions": record.permissions.split(","),
        "created_at": _time(record.created_at),
        "expires_at": None if record.expires_at is None else _time(record.expires_at),
        "bytes": kept,
        "quota": record.quota,
    }


def _shown(record: TokenRecord, kept: int) -> tuple[str, ...]:
    end = "never" if record.expires_at is None else _time(record.expires_at)
    if record.expires_at is not None and record.expires_at <= now_milliseconds():
        end = f"ended {end}"
    quota = "none" if record.quota is None else format_size(record.quota)
    return record.name, record.permissions, _time(record.created_at), end, format_size(kept), quota


def _time(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


@token.command()
@click.argument("name")
@store_options
def revoke(name: str, **flags: str | None) -> int:
    """Make a token worthless, within a second and for ever. The files of its owner stay."""
    # a name that no token can have is a mistake like that of whoever makes one
    _named(name, Permission.READ, now_milliseconds())
    folder = find_store_folder(flags)
    with open_catalogue(flags, folder, needs_blobs=False) as catalogue:
        if not change(catalogue, folder, lambda transaction: transaction.remove_token(name)):
            raise StartError(f"there is no token {name}; see `filestored token list`")
        is_last = not catalogue.tokens()
    renew_tokens(folder.shared_file)
    click.echo(f"revoked: {name}")
    if is_last:
        tell("no token is left: a daemon with --anonymous loopback gives programs on its machine full access again")
    return 0


def make_link(file_hash: str, expires_in: str, base: str | None, flags: Mapping[str, str | None]) -> int:
    """Print the address of a file in a store on this machine. Raises SettingsError, StartError."""
    digest = parse_digest(file_hash)
    if digest is None:
        raise SettingsError(f"{file_hash[:140]} is not a hash: give 32, 40, 64 or 128 hex digits")
    seconds = _seconds(expires_in)
    if base is not None and not (_BASE.fullmatch(base) and base.isprintable()):
        raise SettingsError(f"--base {base[:200]}: it must be an address such as https://files.example")
    folder = find_store_folder(flags)
    address = base.rstrip("/") if base else _address_of(folder)
    with open_catalogue(flags, folder) as catalogue:
        name = _name_of(catalogue, folder, digest)
        signer = Signer(_key_of(catalogue))
    click.echo(address + signer.link_path(digest, name, int(time.time() + seconds)))
    return 0


def _name_of(catalogue: Catalogue, folder: StoreFolder, digest: Digest) -> str | None:
    """Return the name of a stored file, None where it has none. Raises StartError where it is not stored."""
    now = now_milliseconds()
    files = catalogue.find(digest)
    live = [file for file in files if file.is_live(now)]
    blobs = open_blobs(folder)
    try:
        is_stored = blobs.stat(digest) is not None and (bool(live) or not files)
    finally:
        blobs.close()
    if not is_stored:
        raise StartError(f"no file is stored under the hash {digest}")
    return next((file.name for file in live if file.name), None)


def _key_of(catalogue: Catalogue) -> str:
    """Return the key that links are signed with, made where no daemon has made it yet."""
    if catalogue.note(KEY_NOTE) is None:
        with catalogue.transaction() as transaction:
            transaction.add_note(KEY_NOTE, new_key())
    return catalogue.note(KEY_NOTE) or ""


def _address_of(folder: StoreFolder) -> str:
    """Return where the daemon listens. Raises StartError where none runs."""
    holder = daemon.running(folder.path)
    if holder is None or not holder.address:
        raise StartError(f"no daemon runs on {folder.path}: say with --base what others call the server")
    scheme, _, rest = holder.address.partition("://")
    host, _, port = rest.rpartition(":")
    return f"{scheme}://{_ANYWHERE.get(host, host)}:{port}"
