"""The token a request names: ``Authorization: Bearer`` (RFC 6750), or Basic with it as the password (RFC 7617)."""

import binascii
from base64 import b64decode

NOT_A_TOKEN = ""
"""Returned for credentials that cannot hold a token: they are wrong, not absent."""


def token_in(authorization: bytes | None) -> str | None:
    """Return the token that ``Authorization`` names; None without the header, empty where it names none."""
    if authorization is None:
        return None
    scheme, _, credentials = authorization.strip(b" \t").partition(b" ")
    credentials = credentials.strip(b" ")
    match scheme.lower():
        case b"bearer":
            return credentials.decode("latin-1")
        case b"basic":
            return _password(credentials)
    return NOT_A_TOKEN


def _password(credentials: bytes) -> str:
    try:
        return b64decode(credentials, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, ValueError):
        return NOT_A_TOKEN
