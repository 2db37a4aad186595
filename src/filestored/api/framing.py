"""What the head of a request must be before anybody looks at what it asks for (RFC 9112)."""

from filestored.api.exchange import Exchange
from filestored.errors import BadRequest, HeadersTooLarge

MAX_HEADERS = 100
"""How many header fields a request may have."""

MAX_HEADER_BYTES = 64 * 1024
"""How long they may be in all, names and values, in bytes."""

_BODIED = frozenset({"POST", "PUT", "PATCH"})
# of two that differ one would be believed here and the other elsewhere
_ONCE = frozenset({
    b"host", b"authorization", b"content-type", b"content-md5", b"content-disposition", b"range", b"if-range",
    b"upload-length", b"upload-offset", b"upload-defer-length", b"upload-metadata", b"upload-concat",
    b"upload-checksum", b"tus-resumable",
})  # fmt: skip


def require_sound_head(exchange: Exchange) -> None:
    """Raise HeadersTooLarge where a head is too long, BadRequest where it can be understood in more than one way."""
    lines, headers = exchange.lines, exchange.headers
    if len(lines) > MAX_HEADERS or sum([len(name) + len(value) for name, value in lines]) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"At most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes in all are taken.")
    if len(headers) != len(lines):
        _require_once(exchange)
    if not exchange.is_http1:
        return
    # Granian calls HTTP/1.0 just 1
    is_old = exchange.http_version != "1.1"
    # the server passes an empty one on where there is none
    if not headers.get(b"host") and not is_old:
        raise BadRequest("The request has no Host; HTTP/1.1 demands it (RFC 9112, 3.2).")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and coding.strip(b" \t").lower() != b"chunked":
        raise BadRequest("The body has a Transfer-Encoding besides chunked; send it as it is (RFC 9112, 6.1).")
    is_silent = coding is None and b"content-length" not in headers
    if is_silent and is_old and exchange.method in _BODIED and b"content-type" in headers:
        raise BadRequest("Over HTTP/1.0 a body needs a Content-Length (RFC 1945, 7.2.2).")


def _require_once(exchange: Exchange) -> None:
    seen = set()
    for name, _ in exchange.lines:
        if name in seen and name in _ONCE:
            raise BadRequest(f"The request has the header {name.decode('ascii')} twice; send it once.")
        seen.add(name)
