"""What the server signs so that it recognises it again: links to files, and places in a listing.

HMAC with SHA-256 (RFC 2104) under a key that lies in the catalogue, so that it holds across restarts. What is signed
begins with its purpose: a signature for one thing is none for another.
"""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import quote

from filestored.digest import Digest

KEY_NOTE = "signing-key"
"""The note in the catalogue under which the key lies."""

_KEY_BYTES = 32
_CURSOR_SIGNATURE_BYTES = 12
_FORMER_SECONDS = 5.0
_MAX_CURSOR = 4096
_MAX_SECONDS = 10**12


def new_key() -> str:
    """Return a fresh key in hex."""
    return secrets.token_hex(_KEY_BYTES)


class Signer:
    """Signs and verifies, in constant time."""

    def __init__(self, key: str) -> None:
        """``key`` is in hex."""
        self._key = bytes.fromhex(key)
        self._former: tuple[str, float] | None = None

    def change_key(self, key: str) -> None:
        """Sign and verify with this key from now on: a copied store takes its source's over while it is served."""
        former = self._key.hex()
        if key != former:
            self._former = (former, time.monotonic() + _FORMER_SECONDS)
            self._key = bytes.fromhex(key)

    def former(self) -> "Signer | None":
        """Return one with the key of until a moment ago, which others may still sign with; as a rule there is none."""
        key, until = self._former or ("", 0.0)
        return Signer(key) if time.monotonic() < until else None

    def derived(self, purpose: str) -> "Signer":
        """Return one with a key of its own for a purpose: what either signs the other does not recognise.

        It keeps that key when the one it is derived from changes.
        """
        return Signer(self._sign(f"key for {purpose}".encode()).hex())

    def sign(self, message: bytes) -> str:
        """Return the signature of a message. Only for a signer that is :meth:`derived` for it."""
        return _encode(self._sign(message))

    def sign_link(self, digest: Digest, expires: int) -> str:
        """Return the signature of a link that reads one file until ``expires`` (seconds since 1970)."""
        return _encode(self._sign(f"link {digest} {expires}".encode()))

    def link_path(self, digest: Digest, name: str | None, expires: int) -> str:
        """Return the path and query of a link that reads a file, under its name, until ``expires``."""
        shown = f"/{quote(name, safe='')}" if name else ""
        return f"/{digest}{shown}?expires={expires}&signature={self.sign_link(digest, expires)}"

    def is_link(self, digest: Digest, expires: str, signature: str) -> bool:
        """Tell whether a link is one this server made, whatever its time; the texts are as they came."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= len(str(_MAX_SECONDS))):
            return False
        wanted = self.sign_link(digest, int(expires))
        # '007' must not pass for '7'
        return str(int(expires)) == expires and hmac.compare_digest(wanted.encode(), signature.encode())

    def sign_cursor(self, place: list[str | int]) -> str:
        """Return a place in a listing as text that only this server can make."""
        payload = json.dumps(place, separators=(",", ":")).encode()
        return _encode(self._sign(b"cursor " + payload)[:_CURSOR_SIGNATURE_BYTES] + payload)

    def read_cursor(self, text: str) -> list[str | int] | None:
        """Return the place that :meth:`sign_cursor` was given, None where it did not make this text."""
        if len(text) > _MAX_CURSOR:
            return None
        try:
            decoded = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            return None
        signature, payload = decoded[:_CURSOR_SIGNATURE_BYTES], decoded[_CURSOR_SIGNATURE_BYTES:]
        wanted = self._sign(b"cursor " + payload)[:_CURSOR_SIGNATURE_BYTES]
        if not hmac.compare_digest(wanted, signature):
            return None
        place: list[str | int] = json.loads(payload)
        return place

    def _sign(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
