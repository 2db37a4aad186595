"""Sizes and durations as people write them: ``10485760``, ``10MB``, ``1.5GiB``; ``30``, ``90m``, ``7d``."""

import re
from decimal import Decimal
from fractions import Fraction

MAX_SIZE = 2**63 - 1
"""The largest size that can be written, in bytes."""

MAX_DURATION = 36525 * 86400
"""The longest duration that can be written, in seconds: a hundred years."""

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE_UNITS = {prefix.lower(): factor for prefix, factor in {"": 1, **_BINARY, **_DECIMAL}.items()}
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

# bounded, so that no text makes an arithmetic of thousands of digits
_NUMBER = r"([0-9]{1,40}(?:\.[0-9]{1,9})?)"
_SIZE = re.compile(_NUMBER + r" ?((?:[kmgt]i?)?)b?", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(_NUMBER + r" ?([smhdw]?)", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return a size in bytes: ``10485760``, or a number with a unit, in either case.

    ``K``, ``M``, ``G``, ``T`` (or ``KB`` …) are powers of 1000, ``KiB``, ``MiB``, ``GiB``, ``TiB`` powers of 1024. A
    number with a unit may be a decimal one; a fraction of a byte is cut off. Raises ValueError, with a sentence that
    says what is allowed.
    """
    match = _SIZE.fullmatch(text.strip(" "))
    if match is None or ("." in match[1] and not match[2]):
        raise ValueError("a size is written as bytes (10485760) or with a unit from KB to TB or KiB to TiB (1.5GiB)")
    size = int(Fraction(match[1]) * _SIZE_UNITS[match[2].lower()])
    if size > MAX_SIZE:
        raise ValueError(f"a size is at most {MAX_SIZE} bytes")
    return size


def parse_duration(text: str) -> float:
    """Return a duration in seconds: a number alone, or with ``s``, ``m``, ``h``, ``d`` or ``w``, in either case.

    Nothing (``0``) is a duration too. Raises ValueError, with a sentence that says what is allowed.
    """
    match = _DURATION.fullmatch(text.strip(" "))
    if match is None:
        raise ValueError("a duration is written as seconds (3600) or with one of the units s, m, h, d, w (90m, 7d)")
    seconds = Fraction(match[1]) * _DURATION_UNITS[match[2].lower() or "s"]
    if seconds > MAX_DURATION:
        raise ValueError(f"a duration is at most a hundred years ({MAX_DURATION // 86400}d)")
    return float(seconds)


def format_size(size: int) -> str:
    """Return the shortest text that :func:`parse_size` reads as exactly ``size`` bytes."""
    spellings = [_spell(size, factor, f"{prefix}B") for prefix, factor in (_BINARY | _DECIMAL).items()]
    return min((spelling for spelling in (*spellings, str(size)) if spelling), key=len)


def format_duration(seconds: float) -> str:
    """Return the shortest text, always with a unit, that :func:`parse_duration` reads as ``seconds``.

    Exact to the nanosecond, and for everything :func:`parse_duration` returns.
    """
    if seconds != int(seconds):
        text = f"{Decimal(repr(round(seconds, 9))):f}"
        return f"{text.removesuffix('.0')}s"
    spellings = [_spell(int(seconds), factor, unit) for unit, factor in _DURATION_UNITS.items()]
    return min((spelling for spelling in spellings if spelling), key=len)


def _spell(number: int, factor: int, unit: str) -> str | None:
    """Return ``number`` in units of ``factor``, None where that takes more than three decimals."""
    thousandths, rest = divmod(number * 1000, factor)
    if rest:
        return None
    whole, decimals = divmod(thousandths, 1000)
    return f"{whole}.{decimals:03d}".rstrip("0").rstrip(".") + unit
