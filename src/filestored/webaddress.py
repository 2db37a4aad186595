"""Addresses of servers, ``http://HOST:PORT``: checked before a library is given them that fails at what is none."""

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
# what is read as an IPv4 address where a name ends so (WHATWG URL, "ends in a number")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_PATH = re.compile(r"[A-Za-z0-9._~/-]*", re.ASCII)
_LONGEST_NAME = 253


def split_address(text: str) -> SplitResult:
    """Return the parts of a server's address, which may have a path and nothing else. Raises ValueError."""
    if not _VISIBLE.fullmatch(text) or "\\" in text:
        raise ValueError("it may have visible ASCII characters only")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it must begin with http:// or https://")
    if "@" in parts.netloc or any(mark in text for mark in "?#") or not _PATH.fullmatch(parts.path):
        raise ValueError("it may have a host, a port and a plain path only")
    # an empty port would be that of the scheme, and nobody means it
    if parts.netloc.endswith(":") or parts.port == 0:
        raise ValueError("its port must be from 1 to 65535")
    _require_host(parts.hostname or "", is_bracketed=parts.netloc.startswith("["))
    return parts


def _require_host(host: str, *, is_bracketed: bool) -> None:
    if is_bracketed or ":" in host:
        if not is_bracketed or "%" in host or ip_address(host).version != 6:
            raise ValueError("its host is no IPv6 address")
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("its host is neither a name nor an address")
    if _NUMBER.fullmatch(labels[-1]):
        ip_address(host)
    # of what says that it is in another script
    host.encode("ascii").decode("idna")
