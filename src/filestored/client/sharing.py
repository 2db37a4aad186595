"""One client a server and token for all file systems of this process.

fsspec makes a file system for each thread and keeps it for ever; connections of their own would pile up with them.
"""

import atexit
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filestored.client import Client
    from filestored.client.addresses import Connection

_Key = tuple["Connection", tuple[tuple[str, Any], ...]]


class _Clients:
    """The clients of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[_Key, Client] = {}

    def find(self, to: "Connection", options: Mapping[str, Any]) -> "Client":
        """Return the client for a connection, made where there is none yet. Raises ClientError."""
        # only here: looking at addresses needs no HTTP library
        from filestored.client import Client

        key = (to, tuple(sorted(options.items())))
        with self._lock:
            if key not in self._by_key:
                self._by_key[key] = Client(to.url, to.token, verify=to.verify, **options)
            return self._by_key[key]

    def close(self) -> None:
        """Close all connections."""
        for client in self._by_key.values():
            client.close()


_clients = _Clients()
_parents: list[_Clients] = []


def shared_client(to: "Connection", options: Mapping[str, Any]) -> "Client":
    """Return this process's client for a server; ``options`` are others of Client's. Raises ClientError."""
    return _clients.find(to, options)


def _begin_anew() -> None:
    """Leave the connections to the process that was forked: they are its own, and a lock may be held there."""
    global _clients
    # kept, since letting go of them would close them here
    _parents.append(_clients)
    _clients = _Clients()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _clients.close())
