"""What a user may not read and write, and whether he can mend that himself."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from filestored.blobs.ownership import account, owner_of, user_name
from filestored.doctor.findings import Finding, fault

_MOST_SHOWN = 5
_FILE = os.R_OK | os.W_OK
_FOLDER = _FILE | os.X_OK


def judge_rights(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield a fault for those of some files and folders that this user may not write to: others' first, then his own.

    A mode is changed by him whom the file belongs to, an owner by root alone.
    """
    user = os.geteuid()
    closed = [each for each in paths if not os.access(each, _FOLDER if each.is_dir() else _FILE)]
    foreign = [each for each in closed if owner_of(each) not in (None, user)]
    own = [each for each in closed if owner_of(each) == user]
    if foreign:
        owners = ", ".join(sorted({user_name(owner) for each in foreign if (owner := owner_of(each)) is not None}))
        yield fault(
            f"these belong to {owners}, and {user_name(user)} may not write to them: {_shown(foreign, ', ')}",
            f"as root: chown {account(user)} {_shown(foreign, ' ')}",
        )
    if own:
        yield fault(f"these cannot be written to: {_shown(own, ', ')}", f"chmod u+rwX {_shown(own, ' ')}")


def _shown(paths: list[Path], between: str) -> str:
    return between.join(map(str, paths[:_MOST_SHOWN]))
