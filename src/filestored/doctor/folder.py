"""The store's folder, or the spool of one in a bucket: whether it is one or would be, and who may use it."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from filestored.blobs.layout import StoreFolder
from filestored.doctor.findings import Finding, Situation, fault, good, refused, skipped, warning
from filestored.errors import StartError

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
            f"{path} belongs to {_name(owner)}, and you are {_name(os.geteuid())}",
            f"run the daemon, and this, as {_name(owner)}; or change that: chown -R {_name(os.geteuid())} {path}",
        )
        return
    closed = [str(each) for each in _used(path, private) if not os.access(each, os.R_OK | os.W_OK | os.X_OK)]
    if closed:
        yield fault(f"these cannot be written to: {', '.join(closed[:5])}", f"chmod u+rwx {' '.join(closed[:5])}")
    elif private.is_dir() and private.stat().st_mode & _OTHERS:
        yield warning(f"others on this machine may look into {private}", f"chmod 700 {private}")
    else:
        yield good(f"{_name(owner)} may read and write {situation.called}, and others not what is the program's own")


def _judge_place(situation: Situation) -> Finding:
    place = situation.place
    if os.access(place, os.W_OK | os.X_OK):
        return good(f"{_name(os.geteuid())} may make {situation.called} in {place}")
    return fault(
        f"{_name(os.geteuid())} may not make a folder in {place}",
        f"make it as root and give it to {_name(os.geteuid())}, or name another folder with {situation.option}",
    )


def _used(path: Path, private: Path) -> Iterator[Path]:
    """Return the folders a daemon writes to: of those of blobs a few stand for the rest."""
    yield path
    if private.is_dir():
        yield private
        yield from (each for each in sorted(private.iterdir()) if each.is_dir())
    yield from (path / f"{number:02x}" for number in range(0, 256, 16) if (path / f"{number:02x}").is_dir())


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def skip_unless_own(situation: Situation) -> Finding | None:
    """Return what a check says that would have to write to a store which is not this user's; else None."""
    return None if is_own(situation) else skipped(f"{situation.called} is not yours to write to: see permissions")
