"""Hash functions and the digests that name blobs."""

import hashlib
import re
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from typing import NewType, Protocol, cast

from filestored.errors import DigestMismatch
from filestored.extras import explained

Digest = NewType("Digest", str)
"""Lower-case hex of a hash over a blob's bytes; made only by :func:`parse_digest` and :class:`Algorithm`."""


class Hash(Protocol):
    """What the constructors of hashlib and blake3 return, as far as it is used here."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take in more bytes."""

    def copy(self) -> "Hash":
        """Return one that goes on by itself from here."""

    def digest(self) -> bytes:
        """Return the hash of the bytes so far."""

    def hexdigest(self) -> str:
        """Return the same in lower-case hex."""


class _New(Protocol):
    def __call__(self, data: bytes = b"", /) -> Hash: ...


_HEX_LENGTHS = {"sha256": 64, "md5": 32, "sha1": 40, "sha512": 128, "blake3": 64}


def _blake3(data: bytes = b"", /) -> Hash:
    try:
        # only here: a client does without it until a server names its files so
        from blake3 import blake3
    except ImportError as error:
        raise explained(error) or error from error
    return blake3(data)


class Algorithm(StrEnum):
    """A hash function blobs can be named by. SHA-256 is the default; MD5 is what the first program used."""

    SHA256 = "sha256"
    MD5 = "md5"
    SHA1 = "sha1"
    SHA512 = "sha512"
    BLAKE3 = "blake3"

    new: _New
    hex_length: int

    def __init__(self, _: str) -> None:
        # md5 and sha1 name files here and keep no secret: a system in FIPS mode must not refuse them
        constructors = {
            "sha256": hashlib.sha256,
            "md5": partial(hashlib.md5, usedforsecurity=False),
            "sha1": partial(hashlib.sha1, usedforsecurity=False),
            "sha512": hashlib.sha512,
            "blake3": _blake3,
        }
        self.new = cast("_New", constructors[self.value])
        self.hex_length = _HEX_LENGTHS[self.value]

    @property
    def is_available(self) -> bool:
        """Whether this Python can work it out: BLAKE3 needs a package of its own."""
        return self is not Algorithm.BLAKE3 or find_spec("blake3") is not None


_DIGEST = re.compile(r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})", re.ASCII)


def parse_digest(text: str) -> Digest | None:
    """Return ``text`` as a digest, in lower case, or None where it cannot be the hash of anything.

    Any algorithm's length passes, since one store may hold blobs named by several. The only way from a
    client's text to a path: what it returns holds nothing but hex digits.
    """
    lowered = text.lower()
    return Digest(lowered) if _DIGEST.fullmatch(lowered) else None


def algorithm_of(digest: Digest, preferred: Algorithm) -> Algorithm:
    """Tell which algorithm made a digest, by its length; ``preferred`` decides between SHA-256 and BLAKE3."""
    if len(digest) == preferred.hex_length:
        return preferred
    return next(algorithm for algorithm in Algorithm if algorithm.hex_length == len(digest))


def require_same(announced_by: str, announced: str, actual: str) -> None:
    """Raise DigestMismatch unless the digest that was announced is that of the bytes; both in lower-case hex."""
    if announced != actual:
        raise DigestMismatch(
            f"The bytes that came have the digest {actual}, but {announced_by} announces {announced}; nothing was "
            "stored."
        )
