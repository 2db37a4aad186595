"""``doctor``: what keeps a daemon from working, or from working well."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from filestored import daemon
from filestored.cli.options import setting_options
from filestored.doctor.certificate import CERTIFICATE
from filestored.doctor.checks import Told, examine
from filestored.doctor.findings import Situation, State
from filestored.errors import SettingsError, StartError
from filestored.logs import escaped
from filestored.settings import describe, find_store, load_what_is_right

Flags = Mapping[str, str | None]

_MARKS = {State.GOOD: "ok", State.SKIPPED: "-", State.WARNING: "warning", State.FAULT: "FAULT"}


@click.command(epilog="Exit status 0 when nothing must be mended, 1 when something must.")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@setting_options()
def doctor(as_json: bool, **flags: str | None) -> int:
    """Examine.

    What is examined are the settings that a restart would have: those of the last start, and those given here before
    them. Nothing is changed by it.
    """
    situation = find_situation(flags)
    told = []
    for each in examine(situation):
        told.append(each)
        if not as_json:
            _show(each)
    is_well = all(each.finding.state != State.FAULT for each in told)
    if as_json:
        click.echo(json.dumps({"well": is_well, "findings": [_as_json(each) for each in told]}, indent=2))
    return 0 if is_well else 1


def find_situation(flags: Flags) -> Situation:
    """Return what is examined: the settings that a restart would have, and those of flags before them.

    What is wrong is examined as well, but for what is given here: that is called wrongly. Raises SettingsError.
    """
    store = _find_store(flags)
    given = {name: value for name, value in flags.items() if value is not None}
    env: Mapping[str, str] = os.environ
    last = daemon.LastStart.recall(store)
    if last is not None:
        given = {**last.flags_at(store), **given}
        env = last.environment(env)
    loaded, wrong = load_what_is_right(given, env)
    for name, reason in wrong.items():
        if name == "store" or (flags.get(name) is not None and name not in ("config", *CERTIFICATE)):
            raise SettingsError(reason)
    holder = None
    with suppress(StartError):
        # where it cannot be told the check of the daemon says why
        holder = daemon.running(store)
    return Situation(loaded, holder, wrong)


def _find_store(flags: Flags) -> Path:
    """Return the store's local folder, also where the settings file cannot be read. Raises SettingsError."""
    try:
        return find_store(flags, os.environ)
    except SettingsError:
        without = {name: value for name, value in os.environ.items() if name != describe("config").variable}
        return find_store({**flags, "config": None}, without)


def _show(told: Told) -> None:
    name, finding = told
    click.echo(f"{_MARKS[finding.state]:<8} {name:<12} {escaped(finding.found)}")
    if finding.mend:
        click.echo(f"{'':<8} {'':<12} → {escaped(finding.mend)}")


def _as_json(told: Told) -> dict[str, str | None]:
    name, finding = told
    return {"check": name, "state": finding.state.value, "found": finding.found, "mend": finding.mend or None}
