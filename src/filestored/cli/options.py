"""Command line options, made from the settings."""

from collections.abc import Callable, Iterable
from typing import Any

from filestored.cli.defaults import Decorator, value_option
from filestored.settings import Description, describe, describe_all


def setting_options(names: Iterable[str] | None = None) -> Decorator:
    """Give a command the flags of these settings, by default of all. What is not given comes as None.

    Values are taken as text: Settings judges them, whichever way they come in.
    """
    chosen = describe_all() if names is None else [describe(name) for name in names]

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        for setting in reversed(chosen):
            function = _option(setting)(function)
        return function

    return decorate


def _option(setting: Description) -> Decorator:
    # with a value that may be left out
    alone: dict[str, Any] = {} if setting.kind.alone is None else {"is_flag": False, "flag_value": setting.kind.alone}
    return value_option(
        setting.flag,
        setting.name,
        metavar=setting.kind.metavar,
        help=setting.meaning,
        otherwise=setting.default,
        variable=setting.variable,
        **alone,
    )
