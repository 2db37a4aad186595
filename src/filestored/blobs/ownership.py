"""Whose a store is: what another user than that of its daemon writes into it, the daemon cannot write to."""

import os
import pwd
from pathlib import Path

from filestored.blobs.layout import PRIVATE
from filestored.errors import StartError


def require_owner(store: Path, *, is_daemon: bool = False) -> None:
    """Raise StartError where the store is another user's, whose daemon could not use what would be made here.

    Others than root may fill an empty folder of somebody else's, where the system lets them. A daemon
    (``is_daemon``) is refused to root alone, and only where another user's daemon has been at work: whom else the
    system lets in may have been given the folder on purpose, as container platforms do.
    """
    user = os.geteuid()
    for place, is_made_by_daemon in ((store / PRIVATE, True), (store, False)):
        owner = owner_of(place)
        if owner is None:
            continue
        is_refused = user == 0 and is_made_by_daemon if is_daemon else user == 0 or is_made_by_daemon
        if owner != user and is_refused:
            raise StartError(
                f"the store {store} belongs to {user_name(owner)}, who could not write to what is made here: run it "
                f"as {user_name(owner)} ({as_user(owner)} filestored …)"
            )
        return


def owner_of(path: Path) -> int | None:
    """Return whose a file or folder is; None where that cannot be told."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def user_name(user: int) -> str:
    """Return what a user is called; ``user 10001`` where the system has no name for it."""
    known = account(user)
    return known if known != str(user) else f"user {user}"


def account(user: int) -> str:
    """Return what chown takes for a user: a name, or a number where the system has no name for it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def as_user(user: int) -> str:
    """Return what to write before a command that another user is to run."""
    known = account(user)
    return f"sudo -u {known}" if known != str(user) else f"sudo -u '#{user}'"
