"""The catalogue's file: what keeps SQLite from using it, and what mends that."""

import os
from collections.abc import Iterator
from pathlib import Path

from filestored.catalogue.sqlite import DAMAGED
from filestored.doctor.findings import Finding, fault
from filestored.doctor.rights import judge_rights

_LITTLE_BYTES = 1 << 20
_RESTORE = (
    "restore it from a backup while no daemon runs; where there is none, stop the daemon, move it away and run "
    "'filestored reindex', which loses names, owners and tokens"
)


def judge_failure(path: Path, reason: str) -> Iterator[Finding]:
    """Say why a catalogue's file cannot be used, and what mends that: never what would lose one that is whole."""
    closed = list(judge_rights(_touched(path)))
    if closed:
        yield from closed
    elif any(each in reason for each in DAMAGED):
        yield judge_damage(path, reason)
    elif _is_full(path):
        yield fault(
            f"{path} cannot be used: {reason}, and its disk is full",
            "make room on its disk; the catalogue need not be damaged",
        )
    else:
        yield fault(
            f"{path} cannot be used: {reason}",
            "see whether its disk works (dmesg, the system's log); leave the catalogue as it is until then",
        )


def judge_damage(path: Path, reason: str) -> Finding:
    """Say that a catalogue's file is damaged."""
    return fault(f"{path} cannot be used, it is damaged: {reason}", _RESTORE)


def is_empty(path: Path) -> bool:
    """Tell whether a file has nothing in it: to SQLite it is a database without tables, to a store a lost one."""
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _touched(path: Path) -> Iterator[Path]:
    yield path.parent
    yield from (each for end in ("", "-wal", "-shm") if (each := path.with_name(path.name + end)).exists())


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LITTLE_BYTES or (disk.f_files > 0 and disk.f_favail == 0)
