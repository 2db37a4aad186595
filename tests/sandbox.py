"""What a unit takes away from a service, taken away without systemd: ``python -m tests.sandbox UNIT COMMAND…``.

Capabilities and system calls, as systemd would: no unit can be run where it is not the system's first process. Lines
that are about what a service sees of the file system are `placed`'s, where mounts may be made.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path
from socket import AddressFamily
from typing import Any

import pytest

from tests.conftest import EVERYTHING, require_program

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NOT_EQUAL, _EQUAL, _MASKED = 1, 4, 7
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")

_WRITE, _EXECUTE, _SHM_EXECUTE = 2, 4, 0o100000
_NAMESPACES = (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_SPECIAL_MODES = (0o4000, 0o2000)
_TIMED = (1, 2, 6)
"""Scheduling policies of real time: FIFO, RR, DEADLINE."""


class _Condition(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64),
    )  # fmt: skip


class Filter:
    """What the kernel answers to system calls, put together by libseccomp, which systemd uses as well."""

    def __init__(self, otherwise: int) -> None:
        """``otherwise`` is the answer to whatever no rule is about."""
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, answer: int, name: str, *conditions: tuple[int, int, int, int]) -> None:
        """Answer a call so where all conditions hold: the argument's place, an operator, and what that takes."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            # unknown to this library, and so never called by what it is to hold
            return
        made = (_Condition * len(conditions))(*(_Condition(*each) for each in conditions))
        added = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(answer), number, len(conditions), made
        )
        assert added == 0, (name, os.strerror(-added))

    def load(self) -> None:
        """Have it hold for this process, and all below it, from now on."""
        loaded = self._library.seccomp_load(self._context)
        assert loaded == 0, os.strerror(-loaded)


def require_seccomp() -> None:
    """Leave the test out where libseccomp, which comes with systemd, is missing, except in CI."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        assert not EVERYTHING, "libseccomp is not installed"
        pytest.skip("libseccomp is not installed")


@functools.cache
def calls_of(group: str) -> frozenset[str]:
    """Return the system calls in a group of systemd's, and in those it holds."""
    listed = subprocess.run(
        [require_program("systemd-analyze"), "syscall-filter", group],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    names = {line.strip() for line in listed.stdout.splitlines() if line.startswith("    ") and "#" not in line}
    inner = {name for name in names if name.startswith("@")}
    return frozenset((names - inner).union(*map(calls_of, inner)))


def lines_of(unit: Path) -> dict[str, list[str]]:
    """Return the lines of a unit, by their keys."""
    lines: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            lines.setdefault(key, []).append(value)
    return lines


def allowed_calls(unit: dict[str, list[str]]) -> frozenset[str]:
    """Return the system calls that a unit allows."""
    first, *others = unit["SystemCallFilter"]
    allowed = calls_of(first)
    for each in others:
        assert each.startswith("~"), each
        allowed -= calls_of(each[1:])
    return allowed


def is_allowed() -> bool:
    """Tell whether this system lets one have mounts and processes of one's own."""
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", "mount -o remount,ro,bind /"]
    return (
        bool(shutil.which("unshare") and shutil.which("setpriv"))
        and not subprocess.run(words, capture_output=True, timeout=30).returncode
    )


def placed(folder: Path) -> list[str]:
    """Return the words before a command that make the system read-only for it, but for a folder and what is mounted."""
    steps = ["mount --make-rprivate /", f"mount --bind {folder} {folder}", "mount -o remount,ro,bind /", 'exec "$@"']
    return ["unshare", "--mount", "sh", "-ec", " && ".join(steps), "sh"]


def enter(unit: dict[str, list[str]]) -> None:
    """Take from this process what the unit takes from its service."""
    assert unit["CapabilityBoundingSet"] == [""]
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
        # whoever has none has nothing to lose
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    assert unit["NoNewPrivileges"] == ["yes"]
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    allowed = Filter(_ERRNO | EPERM)
    for name in allowed_calls(unit):
        allowed.add(_ALLOW, name)
    narrow = _narrow(unit)
    narrow.load()
    # it forbids the call that loads another one
    allowed.load()


def _narrow(unit: dict[str, list[str]]) -> Filter:
    """Return a filter of calls that are allowed, but not with these arguments."""
    for name in ("MemoryDenyWriteExecute", "RestrictNamespaces", "RestrictSUIDSGID", "RestrictRealtime"):
        assert unit[name] == ["yes"], name
    denied = Filter(_ALLOW)
    both = _WRITE | _EXECUTE
    denied.add(_ERRNO | EPERM, "mmap", (2, _MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        denied.add(_ERRNO | EPERM, name, (2, _MASKED, _EXECUTE, _EXECUTE))
    denied.add(_ERRNO | EPERM, "shmat", (2, _MASKED, _SHM_EXECUTE, _SHM_EXECUTE))
    for flag in _NAMESPACES:
        for name in ("clone", "unshare"):
            denied.add(_ERRNO | EPERM, name, (0, _MASKED, flag, flag))
    # their arguments cannot be looked at: those who call them are to do without
    denied.add(_ERRNO | ENOSYS, "clone3")
    denied.add(_ERRNO | ENOSYS, "openat2")
    for mode in _SPECIAL_MODES:
        for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2), ("creat", 1)):
            denied.add(_ERRNO | EPERM, name, (place, _MASKED, mode, mode))
    for policy in _TIMED:
        denied.add(_ERRNO | EPERM, "sched_setscheduler", (1, _EQUAL, policy, 0))
    _keep_to_families(denied, unit["RestrictAddressFamilies"][0].split())
    if unit["LockPersonality"] == ["yes"]:
        denied.add(_ERRNO | EPERM, "personality", (0, _NOT_EQUAL, 0, 0))
    return denied


def _keep_to_families(denied: Filter, families: Iterable[str]) -> None:
    kept = {int(AddressFamily[name]) for name in families}
    for family in set(range(46)) - kept:
        denied.add(_ERRNO | EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))


def main(unit: str, *command: str) -> Any:
    """Become the command, with no more rights than the unit's service has."""
    enter(lines_of(Path(unit)))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
