"""filestored: a file storage daemon. POST a file, get its hash; GET it by the hash; DELETE it by the hash."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filestored.client import AsyncClient as AsyncClient
    from filestored.client import Client as Client

__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """Import the clients when they are asked for (PEP 562): the commands need not wait for them."""
    if name in ("AsyncClient", "Client"):
        from filestored import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
