"""The store's folder, or the spool of one in a bucket: whether it is one or would be, and who may use it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from filestored.blobs.layout import StoreFolder
from filestored.blobs.ownership import account, as_user, user_name
from filestored.doctor.findings import Finding, Situation, fault, good, refused, skipped, warning
from filestored.doctor.rights import judge_rights
from filestored.errors import StartError

_MOST_SHOWN = 5
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_folder(situation: Situation) -> Iterator[Finding]:
    """See what a start would make of the folder."""
    path = situation.path
    try:
        yield _judge(situation, path)
    except StartError as error:
        is_closed = isinstance(error.__cause__, OSError)
        mend = "run this as the user of the daemon" if is_closed else f"name another folder with {situation.option}"
        yield refused(str(error), mend)
    except OSError as error:
        yield fault(f"{path} cannot be read: {error.strerror or error}", "run this as the user of the daemon")


def _judge(situation: Situation, path: Path) -> Finding:
    if not path.exists():
        if situation.place != path.parent and not situation.place.is_dir():
            return fault(f"{path} cannot be made", f"name another folder with {situation.option}")
        return good(f"{path} is not there yet: the first start makes it")
    if not path.is_dir():
        return fault(f"{path} is not a folder", f"name a folder with {situation.option}")
    bucket = situation.settings.bucket
    StoreFolder.require(path, situation.settings.hash, bucket)
    if bucket is not None:
        return good(f"{path} is the spool of {bucket}, or becomes it")
    algorithms = situation.folder.algorithms()
    if algorithms:
        return good(f"{path} is a store, its files named by {', '.join(algorithms)}")
    if all(entry.name == "lost+found" for entry in os.scandir(path)):
        return good(f"{path} is empty: the first start makes it a store")
    return good(f"{path} is laid out as a store: the first start takes it over, as it is")


def is_own(situation: Situation) -> bool:
    """Tell whether the store, or where it would be made, may be written to by whoever asks, and is not another's."""
    private = situation.folder.private
    owned = private if private.is_dir() else situation.path
    if owned.is_dir() and owned.stat().st_uid != os.geteuid():
        return False
    return os.access(situation.place, os.W_OK | os.X_OK)


def check_permissions(situation: Situation) -> Iterator[Finding]:
    """See whether this user may do what the daemon must, and others may not read what they must not."""
    path, private = situation.path, situation.folder.private
    if not path.is_dir():
        yield _judge_place(situation)
        return
    owner = (private if private.is_dir() else path).stat().st_uid
    if owner != os.geteuid():
        yield fault(
            f"{path} belongs to {user_name(owner)}, and you are {user_name(os.geteuid())}",
            _run_as(owner, path),
        )
        return
    closed = list(judge_rights([*_used(path, private), *_kept(private)]))
    yield from closed or _judge_modes(situation)


def _judge_modes(situation: Situation) -> Iterator[Finding]:
    """See whether others may look into, or change, what is not theirs."""
    path, private = situation.path, situation.folder.private
    is_private = not private.is_dir() or not private.stat().st_mode & _OTHERS
    changeable = _changeable(path)
    if not is_private:
        yield warning(f"others on this machine may look into {private}", f"chmod 700 {private}")
    if changeable:
        shown = ", ".join(map(str, changeable[:_MOST_SHOWN]))
        yield warning(
            f"everybody on this machine may delete and replace files in {shown}",
            f"chmod o-w {path} {path}/[0-9a-f][0-9a-f]",
        )
    if is_private and not changeable:
        who = user_name(os.geteuid())
        yield good(f"{who} may read and write {situation.called}, and others not what is the program's own")


def _changeable(path: Path) -> list[Path]:
    """Return the folder, and those of blobs, whose names others may change; without the way there they may not."""
    if not path.stat().st_mode & stat.S_IXOTH:
        return []
    modes = {each: each.stat().st_mode for each in (path, *_shards(path))}
    return [each for each, mode in modes.items() if mode & stat.S_IWOTH and not mode & stat.S_ISVTX]


def _run_as(owner: int, path: Path) -> str:
    """Say what helps where the store is somebody else's; root is not told to take it from a service's user."""
    said = f"run the daemon, and this, as {user_name(owner)}: {as_user(owner)} filestored doctor …"
    if os.geteuid() == 0:
        return said
    return f"{said}; or have root give it to you: chown -R {account(os.geteuid())} {path}"


def _judge_place(situation: Situation) -> Finding:
    place = situation.place
    if os.access(place, os.W_OK | os.X_OK):
        return good(f"{user_name(os.geteuid())} may make {situation.called} in {place}")
    return fault(
        f"{user_name(os.geteuid())} may not make a folder in {place}",
        f"make it as root and give it to {user_name(os.geteuid())}, or name another folder with {situation.option}",
    )


def _used(path: Path, private: Path) -> Iterator[Path]:
    """Return the folders a daemon writes to: of those of blobs a few stand for the rest."""
    yield path
    if private.is_dir():
        yield private
        yield from (each for each in _listed(private) if each.is_dir())
    yield from _shards(path)


def _shards(path: Path) -> Iterator[Path]:
    yield from (each for number in range(0, 256, 16) if (each := path / f"{number:02x}").is_dir())


def _kept(private: Path) -> Iterator[Path]:
    """Return the files of the program's own that a daemon writes to: those beside the catalogue, and the logs."""
    for folder in (private, private / "log"):
        yield from (each for each in _listed(folder) if each.is_file() and not each.is_symlink())


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing where that cannot be seen, which is told of the folder itself."""
    return sorted(folder.iterdir()) if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else []


def skip_unless_own(situation: Situation) -> Finding | None:
    """Return what a check says that would have to write to a store which is not this user's; else None."""
    return None if is_own(situation) else skipped(f"{situation.called} is not yours to write to: see permissions")
