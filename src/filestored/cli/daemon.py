"""``start``, ``run``, ``stop``, ``restart``, ``status``, ``get_pid``."""

import os
from collections.abc import Mapping
from contextlib import suppress

import click

from filestored import daemon
from filestored.blobs.layout import StoreFolder
from filestored.cli.options import setting_options
from filestored.cli.telling import tell
from filestored.errors import StartError
from filestored.settings import Loaded, Settings, find_store, load
from filestored.startable import require_startable

Flags = dict[str, str | None]

_store_options = setting_options(["store", "spool", "config"])


@click.command()
@setting_options()
def start(**flags: str | None) -> int:
    """Start in the background."""
    return _start(flags, os.environ)


@click.command()
@setting_options()
def run(**flags: str | None) -> int:
    """Run in the foreground."""
    # it brings most of the program: the other commands are quicker without
    from filestored.server import serve

    loaded = _load(flags, os.environ)
    return serve(loaded.settings, daemon.LastStart.of(loaded))


@click.command()
@_store_options
def stop(**flags: str | None) -> int:
    """Stop."""
    pid = daemon.stop(find_store(flags, os.environ))
    click.echo(f"stopped: process {pid}")
    return 0


@click.command(epilog="Options given here replace those of the last start; the settings file is read anew.")
@setting_options()
def restart(**flags: str | None) -> int:
    """Stop, and start with the last start's settings."""
    store = find_store(flags, os.environ)
    last = daemon.LastStart.recall(store)
    env: Mapping[str, str] = os.environ
    if last is not None:
        given = {name: value for name, value in flags.items() if value is not None}
        flags = {**last.flags_at(store), **given}
        env = last.environment(os.environ)
    # a mistake must show before anything is stopped
    require_startable(load(flags, env).settings)
    if daemon.running(store) is not None:
        pid = daemon.stop(store)
        # nobody who reads it, or a full disk, must keep it from starting again; the next line fails as well
        with suppress(OSError):
            click.echo(f"stopped: process {pid}")
    return _start(flags, env)


@click.command(epilog="Exit status 0 when it runs, 1 when not.")
@click.option("--ready", "must_answer", is_flag=True, help="exit status 1 also where it runs but accepts no requests")
@_store_options
def status(must_answer: bool, **flags: str | None) -> int:
    """Say whether it runs."""
    store = find_store(flags, os.environ)
    holder = daemon.running(store)
    if holder is None:
        click.echo(f"not running on {store}")
        return 1
    is_ready = not must_answer or (holder.address != "" and daemon.is_ready(holder.address))
    hint = "" if is_ready else "; it accepts no requests"
    click.echo(f"running: process {holder.pid}, {holder.address or 'starting'}{hint}")
    return 0 if is_ready else 1


@click.command("get_pid", epilog="Exit status 1 when it does not run.")
@_store_options
def get_pid(**flags: str | None) -> int:
    """Print the process id."""
    store = find_store(flags, os.environ)
    pid = daemon.running_pid(store)
    if pid is None:
        raise StartError(f"not running on {store}")
    click.echo(pid)
    return 0


def _start(flags: Flags, env: Mapping[str, str]) -> int:
    loaded = _load(flags, env)
    if daemon.running(loaded.settings.folder) is None:
        require_startable(loaded.settings)
    is_lost = _is_catalogue_lost(loaded.settings)
    given = {name: value for name, value in flags.items() if value is not None}
    holder = daemon.start(loaded.settings, given, env)
    click.echo(f"started: process {holder.pid}, {holder.address}")
    if is_lost:
        tell(
            "the catalogue was lost and is made anew: names, owners and tokens are gone; the log, and "
            "filestored doctor, say what mends it"
        )
    return 0


def _is_catalogue_lost(settings: Settings) -> bool:
    """Tell whether the catalogue inside the store will be made anew, though there are files."""
    if settings.bucket is not None or settings.catalogue_address is not None:
        return False
    with suppress(OSError):
        return StoreFolder(settings.folder, settings.hash).lacks_catalogue
    return False


def _load(flags: Flags, env: Mapping[str, str]) -> Loaded:
    loaded = load(flags, env)
    for warning in loaded.warnings:
        tell(warning)
    return loaded
