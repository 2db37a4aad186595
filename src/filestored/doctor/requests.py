"""Signed requests to a bucket, as removals and redirected downloads are; and what its answers tell besides.

None of them changes anything: what is asked for is the bucket's mark, uploads that nobody completes, and its rules.
"""

import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from filestored.blobs.bucket.mark import MARK
from filestored.blobs.bucket.removing import PERMIT_SECONDS
from filestored.blobs.presigning import secret_of, sign_again
from filestored.doctor.findings import Finding, Situation, fault, good, lacking, skipped, warning

if TYPE_CHECKING:
    import httpx

    from filestored.doctor.bucket import Bucket

_ANSWER_SECONDS = 3.0
_MOST_READ = 1 << 20
_REFUSED = frozenset({400, 401, 403, 501})
# an answer's date has no fractions
_COARSE_SECONDS = 1.0
_NOTABLE_SECONDS = 5.0
_INITIATED = re.compile(r"<Initiated>([^<]{10,40})</Initiated>")
_ABANDONED_AFTER = timedelta(days=1)
_NO_RULE = "NoSuchLifecycleConfiguration"
_RULE = "set the lifecycle rule of docs/storage-layout.md, which ends them after a day"


class Answer(NamedTuple):
    """What came of a request: its status and the beginning of its body."""

    status: int
    body: str
    ahead: float | None
    """By how many seconds the engine's clock is ahead of this machine's; None where the answer has no date."""


def look_at_requests(situation: Situation, bucket: "Bucket", *, is_well: bool) -> Iterator[Finding]:
    """See by which clock the engine answers, whether it takes signed requests, and what nobody completes.

    Where it is not ``is_well`` with the bucket already, the clock alone may be why, and all else is nothing new.
    """
    try:
        url = _signed(bucket, bucket.address.key(MARK))
        if url is not None:
            yield from _look(situation, bucket, url, is_well=is_well)
        elif is_well:
            yield _judge_unsigned(situation)
    except ImportError as error:
        yield lacking(error)
    if is_well:
        yield skipped("whether objects may be put and removed is not tried: nothing is written here")


def _judge_unsigned(situation: Situation) -> Finding:
    if situation.settings.redirect_downloads is not None:
        return fault(
            "these credentials cannot sign addresses, which --redirect-downloads needs",
            "give a key that can (docs/configuration.md), or leave --redirect-downloads out",
        )
    return skipped(
        "these credentials cannot sign addresses: removals are signed by a header, the clock is not compared"
    )


def _look(situation: Situation, bucket: "Bucket", url: str, *, is_well: bool) -> Iterator[Finding]:
    import httpx

    # trusted are those whom a daemon trusts
    with httpx.Client(verify=ssl.create_default_context(), timeout=_ANSWER_SECONDS, trust_env=True) as client:
        try:
            answer = _ask(client, url)
            if answer.ahead is not None:
                yield _judge_clock(answer.ahead)
            if not is_well:
                return
            yield _judge_signature(situation, answer.status)
            if bucket.address.scheme == "s3":
                yield from _judge_uploads(_ask_for_uploads(client, bucket))
        except httpx.HTTPError as error:
            # its text may have the address in it, and so the signature
            if is_well:
                yield fault(
                    f"a signed request to the bucket has no answer ({type(error).__name__})",
                    "see that the way to the engine, and a proxy that HTTPS_PROXY names, let such requests through",
                )


def _signed(bucket: "Bucket", key: str) -> str | None:
    """Return an address that reads an object for a while; None where the credentials cannot sign."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        return str(obstore.sign(bucket.store, "GET", key, timedelta(seconds=PERMIT_SECONDS)))
    except (BaseError, ValueError):
        return None


def _ask(client: "httpx.Client", url: str) -> Answer:
    """Send a request. Raises httpx.HTTPError, whose text may have the address in it."""
    began = time.time()
    with client.stream("GET", url) as answer:
        took = time.time() - began
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > _MOST_READ or time.time() - began > _ANSWER_SECONDS:
                break
        return Answer(
            answer.status_code, body.decode("utf-8", "replace"), _ahead(answer.headers, began + took / 2, took)
        )


def _ahead(headers: Mapping[str, str], now: float, took: float) -> float | None:
    """Return by how many seconds an answer's date is surely ahead of a time, 0 for what the way may explain."""
    try:
        date = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    difference = date + _COARSE_SECONDS / 2 - now
    unsure = took / 2 + _COARSE_SECONDS
    return max(0.0, difference - unsure) if difference > 0 else min(0.0, difference + unsure)


def _judge_clock(ahead: float) -> Finding:
    if abs(ahead) < _NOTABLE_SECONDS:
        return good("its clock and that of this machine agree")
    found = f"this machine's clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the bucket's"
    if abs(ahead) < PERMIT_SECONDS:
        return warning(found, f"keep both right by NTP: removals are signed for {PERMIT_SECONDS} s")
    return fault(
        f"{found}, and removals are signed for {PERMIT_SECONDS} s",
        "set it right, and keep it so by NTP; from 15 minutes on the engine refuses everything",
    )


def _judge_signature(situation: Situation, status: int) -> Finding:
    if status not in _REFUSED:
        return good("it takes signed addresses, as removals are sent")
    found = f"it refuses signed addresses ({status})"
    mend = "see that the clock is right, and the key's secret; docs/operations.md has more"
    if situation.settings.redirect_downloads is not None:
        return fault(f"{found}, and --redirect-downloads sends clients to such", mend)
    return warning(f"{found}: each removal takes a second request, and loses its last fence", mend)


def _ask_for_uploads(client: "httpx.Client", bucket: "Bucket") -> tuple[Answer, Answer] | None:
    """Ask for the uploads in parts under way, and the rules that end them; None where the key is not known here."""
    url = _signed(bucket, "")
    secret = None if url is None else secret_of(url, os.environ)
    if url is None or secret is None:
        return None
    prefix = bucket.address.key("")
    uploads = _ask(client, sign_again(url, secret, {"uploads": "", "prefix": prefix}))
    return uploads, _ask(client, sign_again(url, secret, {"lifecycle": ""}))


def _judge_uploads(answers: tuple[Answer, Answer] | None) -> Iterator[Finding]:
    """Tell of uploads in parts that nobody completes, and of the rule that ends them, where the engine says so."""
    if answers is None or answers[0].status != 200:
        yield skipped("whether uploads in parts were left behind cannot be asked with these credentials")
        return
    uploads, rules = answers
    before = datetime.now(UTC) - _ABANDONED_AFTER
    left = sum(_moment(each) < before for each in _INITIATED.findall(uploads.body))
    if left:
        yield warning(f"{left} uploads in parts were begun more than a day ago, and take room unseen", _RULE)
    elif rules.status == 404 and _NO_RULE in rules.body:
        yield warning("the bucket has no rule that ends uploads in parts which nobody completes", _RULE)
    else:
        yield good("no upload in parts was left behind")


def _moment(text: str) -> datetime:
    """Read a time of the engine's; one that cannot be read is the present one."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return datetime.now(UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
