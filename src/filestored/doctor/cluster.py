"""The daemons that share a catalogue: which there are, whether they reach each other, and that each is only one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from filestored.catalogue.records import DaemonRecord
from filestored.cluster.daemons import AWAY_SECONDS, LOST_SECONDS
from filestored.cluster.incarnation import is_of_place, new_incarnation
from filestored.doctor.catalogue import identity, opened
from filestored.doctor.findings import Finding, Situation, fault, good, lacking, skipped, warning
from filestored.doctor.proxies import is_loopback
from filestored.errors import CatalogueError, CatalogueMissing

_MOST_NAMED = 5
_PEER_URL = "give each daemon a --peer-url that the others reach, and let their machines' ports through"


def check_cluster(situation: Situation) -> Iterator[Finding]:
    """See who shares the catalogue, and what keeps them from passing requests on to each other."""
    if isinstance(situation.catalogue, Path):
        yield skipped("the catalogue is a file: this daemon is the only one")
        return
    if situation.failures:
        yield skipped("who shares the catalogue cannot be told: see catalogue")
        return
    try:
        with opened(situation) as rows:
            records = rows.daemons() if rows is not None else []
    except CatalogueMissing:
        records = []
    except (CatalogueError, ImportError):
        yield skipped("who shares the catalogue cannot be told: see catalogue")
        return
    try:
        yield from _look(situation, records)
    except ImportError as error:
        yield lacking(error)


def _look(situation: Situation, records: list[DaemonRecord]) -> Iterator[Finding]:
    own_id = identity(situation)
    own = next((each for each in records if each.id == own_id), None)
    present = [each for each in records if each.silent <= AWAY_SECONDS * 1000]
    yield from _judge_own(situation, own)
    yield from _judge_silent([each for each in records if each not in present and each is not own])
    if not present:
        yield good("no daemon with this catalogue was heard of lately")
        return
    yield from _judge_addresses(situation, present)
    others = [each for each in present if each is not own]
    if others and situation.settings.stop_delay == 0:
        yield warning(
            "--stop-delay is 0: a load balancer sends requests to this daemon for a moment after it has stopped",
            "set it to twice the interval of the balancer's health checks, as 15s (docs/operations.md)",
        )


def _judge_own(situation: Situation, own: DaemonRecord | None) -> Iterator[Finding]:
    """See that the daemon of this spool is the only one of its id, and is heard of."""
    is_present = own is not None and own.silent <= AWAY_SECONDS * 1000
    if own is not None and is_present and not _is_of_this_folder(situation, own):
        yield fault(
            f"another daemon has the id of {situation.path}, and is reached at {own.url}: one of the two is a copy",
            "stop the daemon of the copy, and remove .filestored/store-id there",
        )
    elif situation.holder is not None and situation.holder.address and not is_present:
        yield fault(
            f"process {situation.holder.pid} runs, and the other daemons have not heard of it for {AWAY_SECONDS:g} s",
            "see its log: it may have lost the database, or use another --catalogue than the one examined",
        )


def _is_of_this_folder(situation: Situation, record: DaemonRecord) -> bool:
    try:
        return is_of_place(record.incarnation, new_incarnation(situation.folder.pid_file))
    except OSError:
        # no daemon has run here: whoever has this id runs elsewhere
        return False


def _judge_silent(silent: list[DaemonRecord]) -> Iterator[Finding]:
    for each in sorted(silent, key=lambda record: record.silent)[:_MOST_NAMED]:
        seconds = each.silent // 1000
        gone = seconds > LOST_SECONDS
        yield warning(
            f"the daemon at {each.url} has not been heard of for {_shown(seconds)}"
            + (": others end what it has left when its time is over" if gone else ""),
            "start it again with its spool, which has its unfinished uploads; one that is gone for good is forgotten "
            "after a day",
        )
    if len(silent) > _MOST_NAMED:
        yield warning(f"so have {len(silent) - _MOST_NAMED} more", "see their machines")


def _shown(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def _judge_addresses(situation: Situation, present: list[DaemonRecord]) -> Iterator[Finding]:
    from filestored.doctor.peers import SILENT, why_unreached

    shared = [url for url, count in Counter(each.url for each in present).items() if count > 1]
    for url in shared:
        yield fault(f"several daemons say that they are reached at {url}", _PEER_URL)
    urls = [each.url for each in present]
    local = [url for url in urls if is_loopback(urlsplit(url).hostname or "")]
    if local and len(local) < len(urls):
        yield fault(f"no other machine reaches a daemon at {local[0]}", _PEER_URL)
    reasons = dict(zip(urls, why_unreached(urls, situation.settings.tls_cert), strict=True))
    unreached = {url: reason for url, reason in reasons.items() if reason}
    for url, reason in list(unreached.items())[:_MOST_NAMED]:
        mend = "see its log on its machine" if reason == SILENT else _PEER_URL
        yield fault(f"the daemon at {url} cannot be reached from here: {reason}", mend)
    if not shared and not unreached:
        count = len(present)
        yield good(
            f"{count} daemon{'s' if count > 1 else ''}, and each can be reached: {', '.join(urls[:_MOST_NAMED])}"
        )
