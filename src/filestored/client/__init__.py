"""The client: a server's files from Python, from the command line, and from what reads through fsspec.

``Client`` and ``AsyncClient`` perform the same operations, which ``operations`` describes as steps without input or
output. Nothing here needs the libraries of the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from filestored.extras import explained

if TYPE_CHECKING:
    from filestored.client.asynchronous import AsyncClient as AsyncClient
    from filestored.client.asynchronous import AsyncStream as AsyncStream
    from filestored.client.blocking import Client as Client
    from filestored.client.blocking import Stream as Stream
    from filestored.client.calls import UNCHANGED as UNCHANGED
    from filestored.client.errors import ClientError as ClientError
    from filestored.client.errors import Damaged as Damaged
    from filestored.client.errors import LocalFault as LocalFault
    from filestored.client.errors import NotAllowed as NotAllowed
    from filestored.client.errors import NotStored as NotStored
    from filestored.client.errors import Refused as Refused
    from filestored.client.errors import SourceChanged as SourceChanged
    from filestored.client.errors import TooMuch as TooMuch
    from filestored.client.errors import Unreachable as Unreachable
    from filestored.client.records import Caller as Caller
    from filestored.client.records import File as File
    from filestored.client.records import Head as Head
    from filestored.client.records import Item as Item
    from filestored.client.records import Link as Link
    from filestored.client.records import Received as Received
    from filestored.client.records import Stats as Stats

_ERRORS = (
    "ClientError", "Damaged", "LocalFault", "NotAllowed", "NotStored", "Refused", "SourceChanged", "TooMuch",
    "Unreachable",
)  # fmt: skip
_RECORDS = ("Caller", "File", "Head", "Item", "Link", "Received", "Stats")
_PLACES = {
    "AsyncClient": "asynchronous",
    "AsyncStream": "asynchronous",
    "Client": "blocking",
    "Stream": "blocking",
    "UNCHANGED": "calls",
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(_RECORDS, "records"),
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562): errors alone need no HTTP library."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    except ImportError as error:
        raise explained(error) or error from error
