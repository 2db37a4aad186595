"""Names that a server tells, made harmless before they name local files."""

import os
import re
from email.message import Message
from urllib.parse import unquote

_LONGEST_BYTES = 240
_LONGEST_HEADER = 8192
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*utf-8'[^']*'([^;\s\"]+)", re.IGNORECASE)
_HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def name_in(disposition: str | None) -> str | None:
    """Return the file name of a ``Content-Disposition`` header (RFC 6266, RFC 8187), None where it has none."""
    if not disposition or len(disposition) > _LONGEST_HEADER:
        return None
    # where both are given this one is meant, and the library takes the other
    extended = _EXTENDED.search(disposition)
    if extended is not None:
        return unquote(extended[1], errors="replace") or None
    message = Message()
    message["Content-Disposition"] = disposition
    try:
        return message.get_filename() or None
    except (LookupError, ValueError):
        # a character set that nobody knows
        return None


def harmless_name(name: str | None, otherwise: str) -> str:
    """Return a name for a file in a folder: no path, nothing hidden, nothing that acts on a terminal, not too long.

    ``otherwise`` is taken where nothing is left of it.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    kept = _HOSTILE.sub("", last).strip()
    if kept.startswith("."):
        kept = "_" + kept.lstrip(".")
    return _shortened(kept) if kept.strip("_. ") else otherwise


def _shortened(name: str) -> str:
    if len(name.encode()) <= _LONGEST_BYTES:
        return name
    stem, suffix = os.path.splitext(name)
    suffix = suffix if len(suffix.encode()) <= 32 else ""
    room = _LONGEST_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + suffix
