"""The header fields of tus 1.0.0, the protocol of resumable uploads: what they say, and how it is checked."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from filestored.api import names
from filestored.api.bodies import end_of, make_wish
from filestored.api.exchange import Exchange
from filestored.api.routes import CHUNK
from filestored.catalogue.records import PART, UploadRecord, Wish
from filestored.digest import Algorithm, Digest, Hash, parse_digest
from filestored.errors import BadRequest, Forbidden, NotFound, TooLarge, UnknownVersion, UnsupportedMediaType
from filestored.resuming import require_offset

VERSION = b"1.0.0"
EXTENSIONS = b"creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
CHECKSUMS = {"sha1": 20, "sha256": 32, "md5": 16}
"""The algorithms of ``Upload-Checksum``, and how many bytes each gives."""

MAX_DETAILS_BYTES = 4096
"""How long ``Upload-Metadata`` may be."""

MAX_DETAILS = 64
"""How many pairs it may have."""

MAX_LENGTH = 1 << 62
"""The longest upload that can be announced, in bytes."""

_FINAL = "final;"
_KEY = r"[!-+\--~]{1,255}"
_ADDRESS = r"(?:https?://[^/\s]+)?/v1/uploads/([0-9a-f]{32})"
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_OF_KEY = re.compile(_KEY, re.ASCII)
_OF_ADDRESS = re.compile(_ADDRESS, re.ASCII)

# for the OpenAPI document: what is read here, as far as a pattern can say it
_CHAR = "[A-Za-z0-9+/]"
_PAIR = f"{_KEY} (?:{_CHAR}{{4}})*(?:{_CHAR}{{2}}(?:==)?|{_CHAR}{{3}}=?)?"

METADATA_PATTERN = f"^(?:{_PAIR}(?:,{_PAIR})*)?$"
"""What ``Upload-Metadata`` looks like."""

CHECKSUM_PATTERN = f"^(?:sha1 {_CHAR}{{27}}=|sha256 {_CHAR}{{43}}=|md5 {_CHAR}{{22}}==)$"
"""What ``Upload-Checksum`` looks like."""

CONCAT_PATTERN = f"^(?:{PART}|{_FINAL}{_ADDRESS}(?: {_ADDRESS})*)$"
"""What ``Upload-Concat`` looks like."""

Fields = Mapping[bytes, bytes]


class Details(NamedTuple):
    """What ``Upload-Metadata`` says of the file: its name, type and life, and the hash it must have."""

    wish: Wish
    expected: Digest | None


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the body of one request must hash to (checksum extension)."""

    algorithm: str
    digest: bytes

    def begin(self) -> Hash:
        """Return the hash to take of the body."""
        return Algorithm(self.algorithm).new()


def require_version(headers: Fields) -> None:
    """Raise UnknownVersion unless the client speaks the version of this server (tus 1.0.0, Tus-Resumable)."""
    if headers.get(b"tus-resumable") != VERSION:
        raise UnknownVersion(
            "Say Tus-Resumable: 1.0.0, the version of the protocol that this server speaks.",
            headers=((b"tus-version", VERSION),),
        )


def is_id(text: str) -> bool:
    """Tell whether a text could be the id of an upload."""
    return _ID.fullmatch(text) is not None


def has_body(exchange: Exchange) -> bool:
    """Tell whether a request has a body, as far as its head says so."""
    if exchange.content_length is not None:
        return exchange.content_length > 0
    # HTTP/2 need not announce a body in any way
    return b"transfer-encoding" in exchange.headers or is_chunk(exchange)


def is_chunk(exchange: Exchange) -> bool:
    """Tell whether the body is said to be bytes of an upload."""
    return exchange.headers.get(b"content-type", b"").split(b";")[0].strip().lower() == CHUNK.encode()


def require_chunk(exchange: Exchange) -> None:
    """Raise UnsupportedMediaType unless the body is said to be bytes of an upload."""
    if not is_chunk(exchange):
        raise UnsupportedMediaType(f"The bytes of an upload are sent with Content-Type: {CHUNK}.")


def id_in(text: str) -> str:
    """Return the id in an address, fit to be a file's name. Raises NotFound."""
    if not is_id(text):
        raise NotFound("There is no such upload.")
    return text


def require_nothing_to_add(upload: UploadRecord, offset: int, exchange: Exchange) -> None:
    """Raise unless a complete upload is asked to be where it is, with nothing to add."""
    if parts_in(upload.concat) is not None:
        raise Forbidden("This upload was joined from parts; nothing can be added to it.")
    require_offset(upload, offset)
    if has_body(exchange) and exchange.content_length != 0:
        raise TooLarge("The upload is complete; nothing can be added to it.")


def size_in(headers: Fields, name: str) -> int | None:
    """Return a number of bytes, None where the field is not there. Raises BadRequest where it is none."""
    value = headers.get(name.lower().encode())
    if value is None:
        return None
    # so many digits that the number is beyond all limits are a mistake, too
    if not value.isdigit() or len(value) > 20 or int(value) > MAX_LENGTH:
        raise BadRequest(f"{name} must be a whole number of bytes, from 0 to {MAX_LENGTH}.")
    return int(value)


def length_in(headers: Fields) -> int | None:
    """Return how long a new upload will be; None where the client says that it will tell later.

    Raises BadRequest where it says neither, or both (creation, creation-defer-length).
    """
    length = size_in(headers, "Upload-Length")
    deferred = headers.get(b"upload-defer-length")
    if deferred not in (None, b"1"):
        raise BadRequest("Upload-Defer-Length can only be 1.")
    if (length is None) == (deferred is None):
        raise BadRequest("Give either Upload-Length or Upload-Defer-Length: 1.")
    return length


def details_in(text: str) -> Details:
    """Read ``Upload-Metadata``: ``filename`` or ``name``, ``filetype`` or ``type``, ``hash`` and ``expires_in``.

    Other keys are the client's own affair. Raises BadRequest where it is malformed or a value makes no sense.
    """
    pairs = _pairs(text)
    name = pairs.get("filename") or pairs.get("name")
    media_type = pairs.get("filetype") or pairs.get("type") or ""
    if "/" not in media_type:
        # "undefined", "unknown": what scripts send for a file whose type the browser does not know
        media_type = ""
    expires_in = pairs.get("expires_in")
    wish = make_wish(
        names.clean_name(name) if name else None, media_type, end_of(expires_in) if expires_in is not None else None
    )
    wanted = pairs.get("hash")
    expected = parse_digest(wanted) if wanted else None
    if wanted and expected is None:
        raise BadRequest(f"The hash {wanted[:140]!r} in Upload-Metadata is none: give 32, 40, 64 or 128 hex digits.")
    return Details(wish, expected)


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of keys and values (creation, Upload-Metadata); some clients send it empty."""
    if len(text) > MAX_DETAILS_BYTES:
        raise BadRequest(f"Upload-Metadata may have {MAX_DETAILS_BYTES} bytes at the most.")
    items = text.split(",") if text.strip() else []
    if len(items) > MAX_DETAILS:
        raise BadRequest(f"Upload-Metadata may have {MAX_DETAILS} pairs at the most.")
    pairs: dict[str, str] = {}
    for item in items:
        key, _, encoded = item.strip().partition(" ")
        if not _OF_KEY.fullmatch(key) or key in pairs:
            raise BadRequest("Upload-Metadata is malformed: it has pairs of a key, given once, and a value in base64.")
        pairs[key] = _decoded(encoded, "Upload-Metadata").decode("utf-8", "replace")
    return pairs


def checksum_in(headers: Fields) -> Checksum | None:
    """Read ``Upload-Checksum``. Raises BadRequest where it is malformed or by another algorithm (checksum)."""
    value = headers.get(b"upload-checksum")
    if value is None:
        return None
    algorithm, _, encoded = value.decode("latin-1").strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise BadRequest(f"Upload-Checksum must be by one of {', '.join(CHECKSUMS)}.")
    digest = _decoded(encoded, "Upload-Checksum")
    if len(digest) != CHECKSUMS[algorithm]:
        raise BadRequest(f"Upload-Checksum gives {len(digest)} bytes; {algorithm} has {CHECKSUMS[algorithm]}.")
    return Checksum(algorithm, digest)


def _decoded(encoded: str, field: str) -> bytes:
    try:
        # padding may be missing, as some libraries leave it out
        return b64decode(encoded.strip() + "=" * (-len(encoded.strip()) % 4), validate=True)
    except ValueError:
        raise BadRequest(f"{field} is malformed: its values are base64.") from None


def concat_in(headers: Fields) -> str | None:
    """Return ``Upload-Concat``, None where it is not there. Raises BadRequest where it is neither form (concatenation).

    What it says of a final upload is read by :func:`parts_in`.
    """
    value = headers.get(b"upload-concat")
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text != PART and not text.startswith(_FINAL):
        raise BadRequest("Upload-Concat is either 'partial' or 'final;' and the addresses of the parts.")
    return text


def parts_in(concat: str | None) -> list[str] | None:
    """Return the ids of the parts of a final upload; None for any other.

    The addresses may be whole or begin with the path, as Location gave them. Raises BadRequest where one is of no
    upload here.
    """
    if concat is None or not concat.startswith(_FINAL):
        return None
    addresses = concat.removeprefix(_FINAL).split()
    found = [_OF_ADDRESS.fullmatch(address) for address in addresses]
    unknown = next((address for address, match in zip(addresses, found, strict=True) if match is None), None)
    if unknown is not None or not addresses:
        raise BadRequest(
            f"Upload-Concat names {(unknown or 'nothing')[:200]!r}; give the addresses of the parts, as Location told "
            "them, with a space between."
        )
    return [match[1] for match in found if match is not None]
