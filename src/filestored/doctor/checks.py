"""The list of checks, in the order they are told, and carrying them out."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from filestored.catalogue.address import without_password
from filestored.doctor.bucket import check_bucket
from filestored.doctor.catalogue import check_catalogue
from filestored.doctor.certificate import check_certificate
from filestored.doctor.cluster import check_cluster
from filestored.doctor.database import check_database
from filestored.doctor.disk import check_disk, check_flushing, check_space
from filestored.doctor.findings import Check, Finding, Situation, fault
from filestored.doctor.folder import check_folder, check_permissions
from filestored.doctor.machine import check_clock, check_limits
from filestored.doctor.network import check_access, check_port
from filestored.doctor.proxies import check_proxies
from filestored.doctor.running import check_daemon, check_settings

LONGEST_SECONDS = 12.0
"""How long a check may take. Each has shorter bounds of its own wherever it asks another machine."""

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
    "database": check_database,
    "bucket": check_bucket,
    "cluster": check_cluster,
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
    """Run all checks. One that breaks down, or does not end, is a finding, too, and keeps no other from being told."""
    for name, check in CHECKS.items():
        yield from (Told(name, finding) for finding in _bounded(check, situation))


def _bounded(check: Check, situation: Situation) -> Iterator[Finding]:
    """Carry a check out in a thread, which is left behind where it waits for what never comes."""
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()
    threading.Thread(target=_carry_out, args=(check, situation, found), daemon=True).start()
    deadline = time.monotonic() + LONGEST_SECONDS
    try:
        while (finding := found.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            yield finding
    except queue.Empty:
        yield fault(
            f"this took longer than {LONGEST_SECONDS:g} seconds, and was given up",
            "see whether the disk, and the machines that it asks, answer; then run it again",
        )


def _carry_out(check: Check, situation: Situation, found: "queue.SimpleQueue[Finding | None]") -> None:
    try:
        for finding in check(situation):
            found.put(finding)
    except Exception as error:
        reason = without_password(f"{type(error).__name__}: {error}")
        found.put(fault(f"this could not be looked at: {reason}", "run it as the user of the daemon"))
    finally:
        found.put(None)
