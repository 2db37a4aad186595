"""How a file is shown to programs: JSON."""

import json
import re
from datetime import UTC, datetime

from filestored.api.exchange import Exchange, Headers
from filestored.catalogue.records import Added, FileRecord
from filestored.digest import Algorithm, algorithm_of

PLAIN = (b"content-type", b"text/plain; charset=utf-8")
JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
NO_SNIFF = (b"x-content-type-options", b"nosniff")

# of the year 9999; its nearest number of seconds, too, is before the year 10000
_LAST_MILLISECOND = 253402300799999
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")


async def answer_with_hashes(
    exchange: Exchange, status: int, headers: Headers, added: list[Added], preferred: Algorithm
) -> None:
    """Answer an upload: the hash and nothing else, one a line for several; JSON where ``Accept`` asks for it."""
    exchange.digest = ",".join(item.file.digest for item in added)
    if wants_json(exchange.headers.get(b"accept", b"")):
        objects = [file_object(item.file, preferred, exchange) for item in added]
        body = json.dumps(objects[0] if len(objects) == 1 else objects, ensure_ascii=False)
        await exchange.answer(status, [JSON, NO_STORE, *headers], body.encode())
    else:
        await exchange.answer(
            status, [PLAIN, NO_STORE, *headers], "\n".join(item.file.digest for item in added).encode()
        )


def file_object(file: FileRecord, preferred: Algorithm, exchange: Exchange) -> dict[str, object]:
    """Return a file as its JSON object; times are RFC 3339 in UTC."""
    return {
        "hash": file.digest,
        "algorithm": algorithm_of(file.digest, preferred).value,
        "size": file.size,
        "name": file.name,
        "type": file.media_type,
        "owner": file.owner or None,
        "created_at": timestamp(file.created_at),
        "expires_at": None if file.expires_at is None else timestamp(file.expires_at),
        "url": f"{base_url(exchange)}/{file.digest}",
    }


def timestamp(milliseconds: int) -> str:
    """Return a time as RFC 3339, in UTC, to the millisecond."""
    # whatever a catalogue says: one row must not keep a whole list from being shown
    moment = datetime.fromtimestamp(min(milliseconds, _LAST_MILLISECOND) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def base_url(exchange: Exchange) -> str:
    """Return the address by which the client reached this server; empty where it gave none that is one."""
    return f"{exchange.scheme}://{exchange.host}" if _HOST.fullmatch(exchange.host) else ""


def wants_json(accept: bytes) -> bool:
    """Tell whether ``Accept`` (RFC 9110, 12.5.1) asks for JSON by name, and more than for plain text."""
    weights = _weights(accept)
    json_weight = weights.get(b"application/json", 0.0)
    return json_weight > 0 and json_weight >= weights.get(b"text/plain", 0.0)


def accepts(accept: bytes, name: bytes) -> bool:
    """Tell whether ``Accept``, or ``Accept-Encoding``, takes something by its name."""
    return _weights(accept).get(name, 0.0) > 0


def _weights(accept: bytes) -> dict[bytes, float]:
    """Return what ``Accept`` and its like name, each with how much it is wanted."""
    weights: dict[bytes, float] = {}
    for item in accept.lower().split(b",")[:32]:
        name, *parameters = (part.strip() for part in item.split(b";"))
        weights[name] = max(weights.get(name, 0.0), _quality(parameters))
    return weights


def _quality(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
