"""Digests that travel with a file: ``Repr-Digest``, ``Content-Digest`` (RFC 9530) and ``Content-MD5`` (RFC 1864)."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from filestored.digest import Algorithm, Digest
from filestored.errors import BadRequest

# RFC 9530, 7.2 and what each gives in bytes
_KNOWN = {b"sha-256": ("sha256", 32), b"sha-512": ("sha512", 64), b"md5": ("md5", 16), b"sha": ("sha1", 20)}
_SENT = {Algorithm.SHA256: b"sha-256", Algorithm.SHA512: b"sha-512"}

# RFC 9651, 3.2: a member is a key and an item, of which only byte sequences are looked into
_KEY = rb"[a-z*][a-z0-9_.*-]*"
_ITEM = (
    rb"(?P<%s>:[A-Za-z0-9+/=]*:)"
    rb'|%%?"(?:[ !#-\[\]-~]|\\["\\])*"'
    rb"|@?-?[0-9]{1,15}(?:\.[0-9]{1,3})?"
    rb"|[A-Za-z*][A-Za-z0-9!#$%%&'*+.^_`|~:/-]*"
    rb"|\?[01]"
)
_MEMBER = re.compile(rb"(?P<key>%s)(?:=(?:%s))?" % (_KEY, _ITEM % b"bytes"))
_PARAMETER = re.compile(rb";[ ]*%s(?:=(?:%s))?" % (_KEY, _ITEM % b"unused"))
_COMMA = re.compile(rb"[ \t]*,[ \t]*")


class Expected(NamedTuple):
    """A digest the client announced: the algorithm as hashlib names it, the bytes, the header it came in."""

    algorithm: str
    digest: bytes
    field: str


def expected_digests(headers: Mapping[bytes, bytes]) -> tuple[Expected, ...]:
    """Return the digests that the headers of a message, or of a part, announce for what it carries.

    ``headers`` have lower-case names. Algorithms that are not known here are passed over (RFC 9530, 2). Raises
    BadRequest where a header is malformed or a digest has the wrong length.
    """
    found: list[Expected] = []
    for name, field in ((b"repr-digest", "Repr-Digest"), (b"content-digest", "Content-Digest")):
        if (value := headers.get(name)) is not None:
            members = dict(_members(value, field))
            known = [(key, encoded) for key, encoded in members.items() if key in _KNOWN]
            found.extend(_decoded(*_KNOWN[key], encoded, field) for key, encoded in known)
    if (value := headers.get(b"content-md5")) is not None:
        found.append(_decoded(*_KNOWN[b"md5"], value.strip(b" \t"), "Content-MD5"))
    return tuple(found)


def repr_digest(algorithm: Algorithm, digest: Digest) -> bytes | None:
    """Return ``Repr-Digest`` for a file, None where RFC 9530 has no current name for the algorithm."""
    name = _SENT.get(algorithm)
    return None if name is None else b"%s=:%s:" % (name, b64encode(bytes.fromhex(digest)))


def _members(value: bytes, field: str) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the members of a dictionary (RFC 9651, 4.2.2): base64 where they are byte sequences, else None."""
    value = value.strip(b" \t")
    position = 0
    while position < len(value):
        member = _MEMBER.match(value, position)
        if member is None:
            raise _malformed(field)
        position = member.end()
        while (parameter := _PARAMETER.match(value, position)) is not None:
            position = parameter.end()
        encoded: bytes | None = member["bytes"]
        yield member["key"], None if encoded is None else encoded[1:-1]
        if position < len(value):
            comma = _COMMA.match(value, position)
            if comma is None or comma.end() == len(value):
                raise _malformed(field)
            position = comma.end()


def _decoded(algorithm: str, length: int, encoded: bytes | None, field: str) -> Expected:
    if encoded is None:
        raise _malformed(field)
    try:
        # padding may be missing (RFC 9651, 4.2.7)
        digest = b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise _malformed(field) from None
    if len(digest) != length:
        raise BadRequest(f"{field} gives a {algorithm} digest of {len(digest)} bytes; it has {length}.")
    return Expected(algorithm, digest, field)


def _malformed(field: str) -> BadRequest:
    form = "the digest in base64" if field == "Content-MD5" else "for example sha-256=:…:, with the digest in base64"
    return BadRequest(f"{field} is malformed; it is written as {form}.")
