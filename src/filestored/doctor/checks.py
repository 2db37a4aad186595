"""The list of checks, in the order they are told."""

from collections.abc import Iterator
from typing import NamedTuple

from filestored.doctor.catalogue import check_catalogue
from filestored.doctor.certificate import check_certificate
from filestored.doctor.disk import check_disk, check_flushing, check_space
from filestored.doctor.findings import Check, Finding, Situation, fault
from filestored.doctor.folder import check_folder, check_permissions
from filestored.doctor.machine import check_clock, check_limits
from filestored.doctor.network import check_access, check_port, check_proxies
from filestored.doctor.running import check_daemon, check_settings

CHECKS: dict[str, Check] = {
    "settings": check_settings,
    "folder": check_folder,
    "permissions": check_permissions,
    "disk": check_disk,
    "flushing": check_flushing,
    "space": check_space,
    "clock": check_clock,
    "limits": check_limits,
    "catalogue": check_catalogue,
    "port": check_port,
    "proxies": check_proxies,
    "access": check_access,
    "certificate": check_certificate,
    "daemon": check_daemon,
}
"""By the name a finding goes by. A check looks at one thing, says at least one sentence, and changes nothing."""


class Told(NamedTuple):
    """A finding, and the check it is of."""

    name: str
    finding: Finding


def examine(situation: Situation) -> Iterator[Told]:
    """Run all checks. One that breaks down is a finding, too, and keeps no other from being told."""
    for name, check in CHECKS.items():
        try:
            yield from (Told(name, finding) for finding in check(situation))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            yield Told(name, fault(f"this could not be looked at: {reason}", "run it as the user of the daemon"))
