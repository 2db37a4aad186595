import calendar
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.preconditions import http_date, not_modified, parse_http_date, range_applies
from filestored.errors import PreconditionFailed

TAG = b'"0a1b"'
MODIFIED = 784111777
SAME, BEFORE, AFTER = (http_date(MODIFIED + shift) for shift in (0, -1, 1))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({b"if-none-match": TAG}, True),
        ({b"if-none-match": b"W/" + TAG}, True),
        ({b"if-none-match": b'"x" , W/"y",' + TAG}, True),
        ({b"if-none-match": b'"a, b",' + TAG}, True),
        ({b"if-none-match": b" * "}, True),
        ({b"if-none-match": b'"x"'}, False),
        ({b"if-none-match": b"0a1b"}, False),
        ({b"if-none-match": b'"x'}, False),
        ({b"if-none-match": b""}, False),
        ({b"if-modified-since": SAME}, True),
        ({b"if-modified-since": AFTER}, True),
        ({b"if-modified-since": BEFORE}, False),
        ({b"if-modified-since": b"yesterday"}, False),
        ({b"if-modified-since": AFTER + b", " + AFTER}, False),
        ({b"if-match": TAG}, False),
        ({b"if-match": b"*"}, False),
        ({b"if-match": b'"x", ' + TAG}, False),
        ({b"if-unmodified-since": SAME}, False),
        ({b"if-unmodified-since": b"yesterday"}, False),
    ],
)
def test_one_precondition_decides(headers: dict[bytes, bytes], expected: bool) -> None:
    assert not_modified(headers, TAG, MODIFIED) is expected


@pytest.mark.parametrize(
    "headers",
    [
        {b"if-match": b'"x"'},
        {b"if-match": b"W/" + TAG},
        {b"if-match": b""},
        {b"if-unmodified-since": BEFORE},
        {b"if-match": b'"x"', b"if-unmodified-since": AFTER},
        {b"if-match": b'"x"', b"if-none-match": TAG},
        {b"if-unmodified-since": BEFORE, b"if-none-match": TAG},
    ],
)
def test_a_precondition_that_does_not_hold_fails_before_all_else(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(PreconditionFailed):
        not_modified(headers, TAG, MODIFIED)


def test_a_tag_counts_for_more_than_a_date() -> None:
    assert not_modified({b"if-match": TAG, b"if-unmodified-since": BEFORE}, TAG, MODIFIED) is False
    assert not_modified({b"if-none-match": TAG, b"if-modified-since": BEFORE}, TAG, MODIFIED) is True
    assert not_modified({b"if-none-match": b'"x"', b"if-modified-since": AFTER}, TAG, MODIFIED) is False


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (TAG, True),
        (b" " + TAG, True),
        (b"W/" + TAG, False),
        (b'"x"', False),
        (b"*", False),
        (SAME, True),
        (AFTER, False),
        (BEFORE, False),
        (b"nonsense", False),
        (b"", False),
    ],
)
def test_a_range_applies_to_the_very_file_only(if_range: bytes, expected: bool) -> None:
    assert range_applies(if_range, TAG, MODIFIED) is expected


@pytest.mark.parametrize(
    "value",
    [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"],
)
def test_all_three_formats_are_read(value: bytes) -> None:
    assert parse_http_date(value) == MODIFIED


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"784111777",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun Nov 00 08:49:37 1994",
        b"1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_date_is_none(value: bytes) -> None:
    assert parse_http_date(value) is None


def test_a_year_of_two_digits_lies_at_most_fifty_years_ahead() -> None:
    for year in range(100):
        seconds = parse_http_date(b"Monday, 01-Jan-%02d 00:00:00 GMT" % year)
        assert seconds is not None
        assert seconds < calendar.timegm((2100, 1, 1, 0, 0, 0))


def test_a_leap_second_is_a_time() -> None:
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == calendar.timegm((2017, 1, 1, 0, 0, 0))


def test_times_no_date_can_say_become_the_nearest() -> None:
    assert http_date(-1) == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert http_date(2**60) == b"Fri, 31 Dec 9999 23:59:59 GMT"


@given(st.integers(0, 253402300799))
def test_a_written_date_reads_back_as_itself(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True).encode()
    assert parse_http_date(http_date(seconds)) == seconds


@given(st.binary() | st.text('W/"*, 0a1b').map(str.encode), st.binary())
def test_any_headers_are_answered(tags: bytes, day: bytes) -> None:
    for headers in ({b"if-none-match": tags, b"if-modified-since": day}, {b"if-modified-since": day}):
        assert not_modified(headers, TAG, MODIFIED) in (True, False)
    assert range_applies(tags, TAG, MODIFIED) in (True, False)
