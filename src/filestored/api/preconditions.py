"""Conditional requests (RFC 9110, 13) and the dates they are written with (RFC 9110, 5.6.7)."""

import re
import time
from calendar import timegm
from collections.abc import Mapping
from datetime import date

from filestored.errors import PreconditionFailed

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_LAST_SECOND = 253402300799  # of the year 9999: a date has four digits for it

_TAG = re.compile(rb'(W/)?("[^"]*")')
_MONTH = rb"(?P<month>%s)" % b"|".join(_MONTHS)
_CLOCK = rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DATES = (
    re.compile(rb"(?:%s), (?P<day>[0-9]{2}) %s (?P<year>[0-9]{4}) %s GMT" % (b"|".join(_DAYS), _MONTH, _CLOCK)),
    re.compile(
        rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{2})-%s-(?P<year>[0-9]{2}) %s GMT"
        % (_MONTH, _CLOCK)
    ),
    re.compile(rb"(?:%s) %s (?P<day>[ 0-9][0-9]) %s (?P<year>[0-9]{4})" % (b"|".join(_DAYS), _MONTH, _CLOCK)),
)


def not_modified(headers: Mapping[bytes, bytes], etag: bytes, modified: int) -> bool:
    """Tell whether a GET or HEAD is to be answered with 304, in the order of RFC 9110, 13.2.2.

    ``headers`` have lower-case names, ``etag`` is the quoted strong tag, ``modified`` in whole seconds since 1970.
    Raises PreconditionFailed where ``If-Match``, or without it ``If-Unmodified-Since``, does not hold.
    """
    if (if_match := headers.get(b"if-match")) is not None:
        if not _matches(if_match, etag, weak=False):
            raise PreconditionFailed(f"If-Match does not name the file's tag {etag.decode('latin-1')}.")
    elif (if_unmodified_since := headers.get(b"if-unmodified-since")) is not None:
        limit = parse_http_date(if_unmodified_since)
        if limit is not None and modified > limit:
            raise PreconditionFailed(f"The file has changed since then: on {http_date(modified).decode('ascii')}.")
    if (if_none_match := headers.get(b"if-none-match")) is not None:
        return _matches(if_none_match, etag, weak=True)
    if (if_modified_since := headers.get(b"if-modified-since")) is not None:
        seen = parse_http_date(if_modified_since)
        return seen is not None and modified <= seen
    return False


def range_applies(if_range: bytes, etag: bytes, modified: int) -> bool:
    """Tell whether ``If-Range`` lets ``Range`` count (RFC 9110, 13.1.5): the strong tag or the very date of the file.

    A date is a strong validator here because a blob never changes under its tag.
    """
    validator = if_range.strip(b" \t")
    if validator.startswith((b'"', b"W/")):
        return validator == etag
    return parse_http_date(validator) == modified


def http_date(seconds: int) -> bytes:
    """Return a time, in seconds since 1970, as an IMF-fixdate; times before 1970 or after 9999 become the nearest."""
    moment = time.gmtime(min(max(seconds, 0), _LAST_SECOND))
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[moment.tm_wday],
        moment.tm_mday,
        _MONTHS[moment.tm_mon - 1],
        moment.tm_year,
        moment.tm_hour,
        moment.tm_min,
        moment.tm_sec,
    )


def parse_http_date(value: bytes) -> int | None:
    """Return a date in any of the three formats of RFC 9110, 5.6.7 as seconds since 1970, None where it is not one.

    The name of the weekday is not compared with the date.
    """
    value = value.strip(b" \t")
    match = next((match for form in _DATES if (match := form.fullmatch(value))), None)
    if match is None:
        return None
    year, month, day = _full_year(match["year"]), _MONTHS.index(match["month"]) + 1, int(match["day"])
    try:
        date(year, month, day)
    except ValueError:
        return None
    return timegm((year, month, day, int(match["hour"]), int(match["minute"]), int(match["second"])))


def _matches(header: bytes, etag: bytes, *, weak: bool) -> bool:
    """Tell whether a list of tags, or ``*``, holds ``etag`` by weak or strong comparison (RFC 9110, 8.8.3.2)."""
    if header == etag or header.strip(b" \t") == b"*":
        return True
    return any(match[2] == etag and (weak or match[1] is None) for match in _TAG.finditer(header))


def _full_year(digits: bytes) -> int:
    """Return the year; one of two digits lies at most fifty years ahead (RFC 9110, 5.6.7)."""
    year = int(digits)
    if len(digits) == 4:
        return year
    this_year = time.gmtime().tm_year
    year += this_year - this_year % 100
    return year - 100 if year > this_year + 50 else year
