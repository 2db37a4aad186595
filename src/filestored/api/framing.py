"""What the head of a request must be before anybody looks at what it asks for (RFC 9112)."""

from filestored.api.exchange import Exchange
from filestored.errors import BadRequest, HeadersTooLarge

MAX_HEADERS = 100
"""How many header fields a request may have."""

MAX_HEADER_BYTES = 64 * 1024
"""How long they may be in all, names and values, in bytes."""

# of two that differ one would be believed here and the other elsewhere
_ONCE = frozenset({
    b"host", b"authorization", b"content-type", b"content-md5", b"content-disposition", b"range", b"if-range",
    b"upload-length", b"upload-offset", b"upload-defer-length", b"upload-metadata", b"upload-concat",
    b"upload-checksum", b"tus-resumable",
})  # fmt: skip


def require_sound_head(exchange: Exchange) -> None:
    """Raise HeadersTooLarge where a head is too long, BadRequest where it can be understood in more than one way."""
    lines, headers = exchange.lines, exchange.headers
    # HTTP/2 makes a line of each cookie (RFC 9113, 8.2.3)
    is_long = len(lines) > MAX_HEADERS and sum(name != b"cookie" for name, _ in lines) > MAX_HEADERS
    if is_long or sum([len(name) + len(value) for name, value in lines]) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"At most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes in all are taken.")
    if len(headers) != len(lines):
        _require_once(exchange)
    coding = headers.get(b"transfer-encoding")
    if coding is not None and coding.strip(b" \t").lower() != b"chunked":
        raise BadRequest("The body has a Transfer-Encoding besides chunked; send it as it is (RFC 9112, 6.1).")


def _require_once(exchange: Exchange) -> None:
    seen = set()
    for name, _ in exchange.lines:
        if name in seen and name in _ONCE:
            raise BadRequest(f"The request has the header {name.decode('ascii')} twice; send it once.")
        seen.add(name)
