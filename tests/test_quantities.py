from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.quantities import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10485760", 10485760),
        ("5B", 5),
        ("10K", 10_000),
        ("10kb", 10_000),
        ("10MB", 10_000_000),
        ("10 MiB", 10 * 2**20),
        ("10mib", 10 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("2T", 2 * 10**12),
        ("2TiB", 2**41),
        ("0.0001KB", 0),
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1.5", ".5G", "5.", "ten", "10XB", "10 M B", "1e3", "0x10", "1_000", "٣", "1KB\n", "1,5GB"],
)
def test_what_is_no_size_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"1\.5GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", [str(MAX_SIZE + 1), "9" * 40, "9999999999T"])
def test_a_size_past_the_largest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 9223372036854775807 bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        ("30s", 30),
        ("90m", 5400),
        ("12 h", 43200),
        ("7d", 604800),
        ("2W", 1209600),
        ("1.5h", 5400),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "-1s", "1y", "h", "1h30m", "1e3", "nan", "inf", "٣", "3\n"])
def test_what_is_no_duration_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="90m, 7d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36526d", str(MAX_DURATION + 1), "9" * 40])
def test_a_duration_past_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a hundred years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (512, "512"),
        (10_000_000, "10MB"),
        (64 << 20, "64MiB"),
        (3 << 29, "1.5GiB"),
        (2**40, "1TiB"),
        (1025, "1025"),
    ],
)
def test_a_size_is_written_shortly(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (30, "30s"), (5400, "90m"), (86400, "1d"), (604800, "7d"), (0.25, "0.25s"), (1e-7, "0.0000001s")],
)
def test_a_duration_is_written_shortly_with_a_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, MAX_SIZE) | st.integers(0, 5000).map(lambda count: count * 2**20))
def test_a_written_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.decimals(0, 36525, places=9).map("{:f}".format), st.sampled_from("smhd"))
def test_a_written_duration_reads_back_as_itself(number: str, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text() | st.text("0123456789.kKmMiIbBsdw -+eE", max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with suppress(ValueError):
            assert parse(text) >= 0
