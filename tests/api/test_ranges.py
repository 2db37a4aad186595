import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.ranges import MAX_RANGES, Span, content_range, multipart_framing, parse_range
from filestored.errors import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=0-99", [(0, 100)]),
        (b"bytes=10-", [(10, 100)]),
        (b"bytes=-10", [(90, 100)]),
        (b"bytes=-1000", [(0, 100)]),
        (b"bytes=90-5000", [(90, 100)]),
        (b"BYTES=1-2", [(1, 3)]),
        (b"bytes= 1-2 ,\t4-5", [(1, 3), (4, 6)]),
        (b"bytes=,,1-2,,4-5,", [(1, 3), (4, 6)]),
        (b"bytes=50-59,0-9", [(50, 60), (0, 10)]),
        (b"bytes=0-9,5-14", [(0, 10), (5, 15)]),
        (b"bytes=0-9,200-", [(0, 10)]),
        (b"bytes=0-9,-0", [(0, 10)]),
        (b"bytes=0000000000000000000000000000000000000000000000001-2", [(1, 3)]),
        (b"bytes=1-" + b"9" * 5000, [(1, 100)]),
        (b"bytes=-" + b"9" * 5000, [(0, 100)]),
    ],
)
def test_ranges_are_clipped_and_keep_their_order(header: bytes, spans: list[tuple[int, int]]) -> None:
    assert parse_range(header, 100) == [Span(*span) for span in spans]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=5-4",
        b"bytes=0-1,5-4",
        b"bytes=a-b",
        b"bytes=1",
        b"bytes=1--2",
        b"bytes=--1",
        b"bytes=+1-2",
        b"bytes=1 - 2",
        b"bytes=0-1;2-3",
        b"bytes =0-1",
        b"bytes=0-1\n",
        b"lines=0-1",
        "bytes=٣-٤".encode(),
    ],
)
def test_a_malformed_header_or_another_unit_is_ignored(header: bytes) -> None:
    assert parse_range(header, 100) is None


def test_more_ranges_than_allowed_are_ignored() -> None:
    ranges = [b"%d-%d" % (number, number) for number in range(MAX_RANGES + 1)]
    assert parse_range(b"bytes=" + b",".join(ranges), 1000) is None
    assert parse_range(b"bytes=" + b",".join(ranges[1:]), 1000) is not None


def test_ranges_that_add_up_to_more_than_the_file_are_ignored() -> None:
    assert parse_range(b"bytes=0-49,0-49", 100) == [Span(0, 50), Span(0, 50)]
    assert parse_range(b"bytes=0-49,0-50", 100) is None


@pytest.mark.parametrize("header", [b"bytes=100-", b"bytes=100-200,500-", b"bytes=-0", b"bytes=" + b"9" * 5000 + b"-"])
def test_ranges_outside_the_file_cannot_be_satisfied(header: bytes) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 100)
    assert (b"content-range", b"bytes */100") in caught.value.headers


def test_of_an_empty_file_only_the_last_bytes_can_be_had() -> None:
    assert parse_range(b"bytes=-5", 0) is None
    for header in (b"bytes=0-", b"bytes=0-0", b"bytes=-0"):
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, 0)


def test_a_content_range_names_the_last_byte() -> None:
    assert content_range(Span(0, 1), 100) == b"bytes 0-0/100"


def test_the_framing_has_the_length_it_says() -> None:
    spans = [Span(0, 10), Span(90, 100)]
    heads, closing, length = multipart_framing(spans, 100, b"text/plain", b"frontier")
    body = heads[0] + bytes(10) + heads[1] + bytes(10) + closing
    assert len(body) == length
    assert body.split(bytes(10)) == [
        b"--frontier\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-9/100\r\n\r\n",
        b"\r\n--frontier\r\nContent-Type: text/plain\r\nContent-Range: bytes 90-99/100\r\n\r\n",
        b"\r\n--frontier--\r\n",
    ]


@given(
    st.binary(max_size=60) | st.text("0123456789-, b", max_size=60).map(lambda text: b"bytes=" + text.encode()),
    st.integers(0, 2**63 - 1),
)
def test_whatever_is_asked_spans_lie_within_the_file_and_its_size(header: bytes, size: int) -> None:
    try:
        spans = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if spans is not None:
        assert all(0 <= start < stop <= size for start, stop in spans)
        assert 0 < len(spans) <= MAX_RANGES
        assert sum(stop - start for start, stop in spans) <= size


@given(st.integers(0, 2**63 - 2), st.integers(1, 2**63 - 1), st.integers(1, 2**63))
def test_one_range_inside_the_file_is_the_bytes_it_names(start: int, length: int, more: int) -> None:
    header = b"bytes=%d-%d" % (start, start + length - 1)
    assert parse_range(header, start + length + more) == [Span(start, start + length)]


@pytest.mark.parametrize(
    "header",
    [b"bytes=" + b"9" * 4_000_000, b"bytes=" + b"1-" * 2_000_000, b"bytes=" + b", " * 2_000_000, b"0-1," * 1_000_000],
)
def test_a_long_header_costs_no_more_than_its_length(header: bytes) -> None:
    began = time.process_time()
    assert parse_range(header, 100) is None
    assert time.process_time() - began < 2
