"""Options that take a value and may be left out."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., int]], Callable[..., int]]

NONE = "none"
"""How the help spells that nothing holds where nothing is given."""


def value_option(*names: str, help: str, otherwise: str = NONE, variable: str = "", **more: Any) -> Decorator:
    """Give a command an option that comes as None where it is left out.

    Its help ends with what holds ``otherwise``, and with the variable that is looked at before that, if there is one.
    """
    return click.option(*names, help=f"{help}  [default: {'; '.join(filter(None, (otherwise, variable)))}]", **more)
