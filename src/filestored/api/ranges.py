"""Range requests: ``Range``, ``Content-Range`` and the framing of ``multipart/byteranges`` (RFC 9110, 14)."""

import re
from typing import NamedTuple

from filestored.errors import RangeNotSatisfiable

MAX_RANGES = 16
"""A request for more ranges than this is answered with the whole file."""

# a number of more digits than this lies beyond any file, whatever they are
_MAX_DIGITS = 40
_BEYOND = 10**_MAX_DIGITS
_ONE = re.compile(rb"bytes=([0-9]{1,18})-([0-9]{1,18})")
_RANGE = re.compile(rb"([0-9]*)-([0-9]*)")


class Span(NamedTuple):
    """The bytes ``[start, stop)`` of a file."""

    start: int
    stop: int


def parse_range(header: bytes, size: int) -> list[Span] | None:
    """Return the spans that ``Range`` asks for of a file of ``size`` bytes, in the order asked, clipped to the file.

    None means: answer with the whole file. That is so where the header is malformed, names another unit than bytes, or
    asks for more than :data:`MAX_RANGES` ranges or, overlaps counted twice, for more bytes than the file has (RFC
    9110, 14.2). Raises RangeNotSatisfiable where it is valid and no range lies within the file.
    """
    # what download tools and players send nearly always
    match = _ONE.fullmatch(header)
    if match is not None:
        start, stop = int(match[1]), int(match[2]) + 1
        if start < stop <= size:
            return [Span(start, stop)]
    unit, _, asked = header.partition(b"=")
    # empty elements do not count (RFC 9110, 5.6.1)
    elements = [element for element in (part.strip(b" \t") for part in asked.split(b",")) if element]
    if unit.lower() != b"bytes" or not 0 < len(elements) <= MAX_RANGES:
        return None
    spans: list[Span] = []
    for element in elements:
        span = _clip(element, size)
        if span is None:
            return None
        if span.start < span.stop:
            spans.append(span)
    if not spans:
        # the last bytes of an empty file are all of it (14.1.2), but no Content-Range can say so
        if not size and any(element.startswith(b"-") and element.strip(b"-0") for element in elements):
            return None
        raise RangeNotSatisfiable(size)
    return spans if sum(stop - start for start, stop in spans) <= size else None


def content_range(span: Span, size: int) -> bytes:
    """Return ``Content-Range`` for a span, which has a byte at least, of a file of ``size`` bytes (RFC 9110, 14.4)."""
    return b"bytes %d-%d/%d" % (span.start, span.stop - 1, size)


def multipart_framing(
    spans: list[Span], size: int, media_type: bytes, boundary: bytes
) -> tuple[list[bytes], bytes, int]:
    """Return what stands around the spans in ``multipart/byteranges`` (RFC 9110, 14.6).

    That is the head that goes before each span, the closing delimiter, and the length of the whole body in bytes.
    """
    heads = [
        b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n" % (boundary, media_type, content_range(span, size))
        for span in spans
    ]
    heads[0] = heads[0].removeprefix(b"\r\n")
    closing = b"\r\n--%s--\r\n" % boundary
    content = sum(stop - start for start, stop in spans)
    return heads, closing, content + sum(map(len, heads)) + len(closing)


def _clip(element: bytes, size: int) -> Span | None:
    """Return one range as a span, an empty one where it lies outside the file, None where it is malformed."""
    match = _RANGE.fullmatch(element)
    if match is None or match[0] == b"-":
        return None
    if not match[1]:
        length = _number(match[2])
        return Span(max(size - length, 0), size) if length else Span(0, 0)
    start = _number(match[1])
    stop = _number(match[2]) + 1 if match[2] else _BEYOND + 1
    return Span(start, min(stop, size)) if start < stop else None


def _number(digits: bytes) -> int:
    """Return a decimal number, capped, so that a long row of digits costs no more than its length."""
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MAX_DIGITS else _BEYOND
