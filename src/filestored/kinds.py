"""The kinds of values that settings have: how each is read from what an operator writes, and written again."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from filestored.access import Anonymous
from filestored.blobs.address import WRITTEN, BucketAddress, is_bucket
from filestored.digest import Algorithm
from filestored.quantities import format_duration, format_size, parse_duration, parse_size
from filestored.webaddress import split_address

Network = IPv4Network | IPv6Network

NONE = "none"
"""How "no limit" and "not used" are spelled."""

AUTO = "auto"
"""How "find it out" is spelled."""

SQLITE = "sqlite:///"
"""What the address of a catalogue in a file begins with."""

_MAX_WORKERS = 64
_DEFAULT_WORKERS = 4
_BUFFER = (4 << 10, 16 << 20)
REDIRECTED_FROM = 64 << 10
"""Bytes up to which a download is not worth a second request: a daemon has it in memory."""
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_POSTGRESQL = re.compile(r"postgres(?:ql)?://[\x21-\x7e]+", re.ASCII)
_PREFIX = re.compile(r"/[A-Za-z0-9._~/-]*[A-Za-z0-9_~-]/?", re.ASCII)
_VISIBLE = re.compile(r"[\x20-\x7e]+", re.ASCII)


def _whole(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        text = str(value)
        if isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"it must be a whole number from {low} to {high}")

    return parse


def _choice(options: Iterable[str]) -> Callable[[object], str]:
    names = tuple(options)

    def parse(value: object) -> str:
        if isinstance(value, str) and value.lower() in names:
            return value.lower()
        raise ValueError(f"it must be one of {', '.join(names)}")

    return parse


def _text(value: object) -> str:
    if isinstance(value, str) and _VISIBLE.fullmatch(value) and value == value.strip():
        return value
    raise ValueError("it must be text of visible ASCII characters")


def _workers(value: object) -> int:
    if value == "auto":
        return min(_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))
    try:
        return _whole(1, _MAX_WORKERS)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it must be a size such as 10485760, 10MB or 10MiB")
    return parse_size(str(value))


def _buffer(value: object) -> int:
    low, high = _BUFFER
    size = _size(value)
    if not low <= size <= high:
        raise ValueError(f"it must be from {format_size(low)} to {format_size(high)}")
    return size


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("it must be a time such as 30, 30s, 90m or 7d")
    seconds = parse_duration(str(value))
    if seconds <= 0:
        raise ValueError("it must be more than 0 seconds")
    return seconds


def _delay(value: object) -> float:
    """Return seconds, of which there may be none."""
    is_none = str(value) in ("0", "0s") or (isinstance(value, float) and value == 0)
    return 0.0 if is_none else _seconds(value)


def _peer_url(value: object) -> str:
    if value == AUTO:
        return AUTO
    try:
        parts = split_address(str(value).lower().rstrip("/"))
    except ValueError as error:
        raise ValueError(f"it must be http://HOST:PORT or https://HOST:PORT, or auto: {_said(error)}") from None
    if parts.path or _is_unspecified(parts.hostname or ""):
        raise ValueError("it must be http://HOST:PORT or https://HOST:PORT, or auto: an address of this machine alone")
    return parts.geturl()


def _is_unspecified(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_unspecified
    return False


def _said(error: ValueError) -> str:
    """Return why an address is refused; it is quoted in one line of visible characters."""
    return ascii(str(error))[1:-1]


def _or_none(parse: Callable[[object], object]) -> Callable[[object], object]:
    def parse_or_none(value: object) -> object:
        if value is None or value == NONE:
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, or {NONE}") from None

    return parse_or_none


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("it must be a path")
    # not resolved: where a symbolic link points may change while its name is what the operator chose
    return Path(os.path.abspath(Path(value).expanduser()))


def _folder(value: object) -> Path:
    if "://" in str(value):
        raise ValueError("it must be a local folder")
    return _path(value)


def _place(value: object) -> Path | BucketAddress:
    if isinstance(value, BucketAddress):
        return value
    if is_bucket(str(value)):
        return BucketAddress.parse(str(value))
    if "://" in str(value):
        raise ValueError(f"it must be a local folder or a bucket: {WRITTEN}")
    return _path(value)


def _endpoint(value: object) -> str:
    try:
        return split_address(str(value)).geturl().rstrip("/")
    except ValueError as error:
        raise ValueError(f"it must be http://HOST:PORT or https://HOST:PORT: {_said(error)}") from None


def _region(value: object) -> str:
    if isinstance(value, str) and _REGION.fullmatch(value):
        return value
    raise ValueError("it must be a name of visible ASCII characters, such as eu-west-1")


def _items(value: object) -> list[str]:
    """Return what is written with commas between, or as a list of the settings file."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("it must be a list with commas between")
    return [item.strip() for item in items if item.strip() not in ("", NONE)]


def _networks(value: object) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(item, strict=False) for item in _items(value or ""))
    except ValueError:
        raise ValueError("it must be addresses or networks with commas between (10.0.0.0/8,::1)") from None


def _origins(value: object) -> tuple[str, ...]:
    origins = tuple(item.lower() for item in _items(value or ""))
    if all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        return origins
    raise ValueError("it must be origins with commas between (https://app.example,http://localhost:3000), or *")


def _redirection(value: object) -> int | None:
    """Return from which size on downloads are redirected, None for not at all."""
    if isinstance(value, bool):
        return REDIRECTED_FROM if value else None
    if value is None or str(value).lower() in ("no", "false", NONE):
        return None
    if str(value).lower() in ("yes", "true"):
        return REDIRECTED_FROM
    try:
        return _size(value)
    except ValueError as error:
        raise ValueError(f"{error}, or yes or no") from None


def _prefix(value: object) -> str:
    if isinstance(value, str) and _PREFIX.fullmatch(value) and {"", ".", ".."}.isdisjoint(value.strip("/").split("/")):
        return value.rstrip("/")
    raise ValueError("it must be a path such as /stored, as nginx has it in a location that is internal")


def _spell_items(items: Iterable[object]) -> str:
    return ",".join(map(str, items)) or NONE


def _readable_file(value: object) -> Path:
    path = _path(value)
    if path.is_file() and os.access(path, os.R_OK):
        return path
    raise ValueError("it must be a file that can be read")


def _catalogue(value: object) -> str:
    text = str(value)
    if _POSTGRESQL.fullmatch(text):
        return text
    if not text.startswith(SQLITE) or text == SQLITE:
        raise ValueError(f"it must be {SQLITE}PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return SQLITE + str(_path(text.removeprefix(SQLITE)))


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of setting is shown to people: the placeholder in ``--help``, and a value's spelling.

    With ``has_secret`` a value may hold a password, as an address does.
    """

    metavar: str
    spell: Callable[[Any], str] = str
    is_path: bool = False
    has_secret: bool = False
    alone: str | None = None
    """What the flag means without a value; None where it needs one."""


LEVELS = ("trace", "debug", "info", "success", "warning", "error", "critical")


def _choices(options: Iterable[str]) -> tuple[BeforeValidator, Kind]:
    names = tuple(options)
    return BeforeValidator(_choice(names)), Kind("|".join(names))


Durability = Literal["full", "relaxed"]
LogFormat = Literal["text", "json"]
Http2 = Literal["tls", "always"]
PathStyle = Literal["auto", "yes", "no"]

Text = Annotated[str, BeforeValidator(_text), Kind("TEXT")]
Port = Annotated[int, BeforeValidator(_whole(0, 65535)), Kind("PORT")]
Backlog = Annotated[int, BeforeValidator(_whole(1, 65535)), Kind("NUMBER")]
Count = Annotated[int | None, BeforeValidator(_or_none(_whole(1, 10**9))), Kind("NUMBER")]
Workers = Annotated[int, BeforeValidator(_workers), Kind("NUMBER")]
Size = Annotated[int, BeforeValidator(_size), Kind("SIZE", format_size)]
Buffer = Annotated[int, BeforeValidator(_buffer), Kind("SIZE", format_size)]
OptionalSize = Annotated[int | None, BeforeValidator(_or_none(_size)), Kind("SIZE", format_size)]
Delay = Annotated[float, BeforeValidator(_delay), Kind("TIME", format_duration)]
PeerUrl = Annotated[str, BeforeValidator(_peer_url), Kind("URL")]
Seconds = Annotated[float, BeforeValidator(_seconds), Kind("TIME", format_duration)]
Folder = Annotated[Path, BeforeValidator(_folder), Kind("FOLDER", is_path=True)]
Place = Annotated[
    Path | BucketAddress,
    BeforeValidator(_place),
    PlainSerializer(str, return_type=str),
    Kind("FOLDER|URL", is_path=True),
]
OptionalText = Annotated[str | None, BeforeValidator(_or_none(_text)), Kind("TEXT")]
Region = Annotated[str | None, BeforeValidator(_or_none(_region)), Kind("TEXT")]
Endpoint = Annotated[str | None, BeforeValidator(_or_none(_endpoint)), Kind("URL")]
OptionalFile = Annotated[Path | None, BeforeValidator(_or_none(_path)), Kind("FILE", is_path=True)]
ReadableFile = Annotated[Path | None, BeforeValidator(_or_none(_readable_file)), Kind("FILE", is_path=True)]
CatalogueUrl = Annotated[str | None, BeforeValidator(_or_none(_catalogue)), Kind("URL", is_path=True, has_secret=True)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks), Kind("ADDRESSES", _spell_items)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins), Kind("ORIGINS", _spell_items)]
Redirects = Annotated[int | None, BeforeValidator(_redirection), Kind("[no|yes|SIZE]", format_size, alone="yes")]
PathPrefix = Annotated[str | None, BeforeValidator(_or_none(_prefix)), Kind("PREFIX")]
Level = Annotated[str, *_choices(LEVELS)]
Format = Annotated[LogFormat, *_choices(("text", "json"))]
Http2Use = Annotated[Http2, *_choices(("tls", "always"))]
Naming = Annotated[PathStyle, *_choices(("auto", "yes", "no"))]
Flushing = Annotated[Durability, *_choices(("full", "relaxed"))]
Hashing = Annotated[Algorithm, *_choices(Algorithm)]
Grant = Annotated[Anonymous, *_choices(Anonymous)]
