"""The settings themselves, and the daemon, if one runs."""

from collections.abc import Iterator

from filestored.daemon import is_alive, is_ready, running
from filestored.doctor.certificate import CERTIFICATE
from filestored.doctor.findings import Finding, Situation, fault, good, skipped, warning
from filestored.errors import StartError

_PATIENCE_SECONDS = 5.0


def check_settings(situation: Situation) -> Iterator[Finding]:
    """Tell of settings that are wrong, and of variables that look like settings and are none."""
    wrong = {reason for name, reason in situation.wrong.items() if name not in CERTIFICATE}
    for each in sorted(wrong):
        yield fault(each, "correct it: no daemon starts so; what is said below is of its default instead")
    for each in situation.loaded.warnings:
        yield warning(each, "unset it, or correct its name: filestored config shows what is in force")
    if not situation.loaded.warnings and not wrong:
        given = sum(origin != "default" for origin in situation.loaded.origins.values())
        yield good(f"{given} settings are given, the others at their defaults")


def check_daemon(situation: Situation) -> Iterator[Finding]:
    """Ask the daemon that runs."""
    holder = situation.holder
    if holder is None:
        yield _judge_absent(situation)
    elif not holder.address:
        yield warning(f"process {holder.pid} is starting", "wait a moment, then see its log")
    elif is_ready(holder.address):
        yield good(f"process {holder.pid} accepts requests at {holder.address}")
    elif is_alive(holder.address, _PATIENCE_SECONDS):
        yield fault(
            f"process {holder.pid} answers at {holder.address}, but store or catalogue fail it",
            "GET /readyz names which of them, and the log says why",
        )
    else:
        yield fault(
            f"process {holder.pid} does not answer at {holder.address}",
            "see its log; filestored restart, unless it is stopped by a debugger",
        )


def _judge_absent(situation: Situation) -> Finding:
    try:
        running(situation.path)
    except StartError as error:
        return fault(str(error), "run this as the user of the daemon, and see who has that file open (fuser)")
    return skipped(f"no daemon runs on {situation.path}")
