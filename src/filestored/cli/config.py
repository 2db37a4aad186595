"""``config``: the settings in force."""

import json
import os

import click

from filestored.cli.options import setting_options
from filestored.cli.stores import recalled
from filestored.cli.telling import tell
from filestored.settings import describe_all, load


@click.command(
    epilog="It takes the options of start and run, to try them out. Where --spool alone names the store, what commands "
    "on it know from its daemon's last start is shown, too."
)
@setting_options()
@click.option("--json", "as_json", is_flag=True, help="print JSON, sizes in bytes and times in seconds")
def config(as_json: bool, **flags: str | None) -> int:
    """Show the settings."""
    loaded = recalled(load(flags, os.environ))
    for warning in loaded.warnings:
        tell(warning)
    if as_json:
        secret = [setting for setting in describe_all() if setting.kind.has_secret]
        values = loaded.settings.model_dump(mode="json")
        values |= {setting.name: values[setting.name] and loaded.settings.shown(setting.name) for setting in secret}
        shown = {name: {"value": value, "origin": loaded.origins[name]} for name, value in values.items()}
        click.echo(json.dumps(shown, indent=2))
        return 0
    names = [setting.name for setting in describe_all()]
    rows = [(name.replace("_", "-"), loaded.settings.shown(name), loaded.origins[name]) for name in names]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    return 0
