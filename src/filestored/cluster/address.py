"""Where the other daemons of a cluster reach this one, as far as it can find that out by itself."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from filestored.catalogue.address import PostgresAddress


def find_url(scheme: str, host: str, port: int, catalogue: PostgresAddress) -> str:
    """Return the address for the other daemons: ``host`` is where this one listens, and perhaps everywhere.

    Then it is the address by which this machine reaches the database: the others reach that, too.
    """
    address = host
    if ip_address(host.partition("%")[0]).is_unspecified:
        # only here: it brings the database's driver with it
        from filestored.catalogue.connecting import server_of

        address = _address_towards(*server_of(catalogue))
    shown = f"[{address}]" if ":" in address else address
    return f"{scheme}://{shown}:{port}"


def _address_towards(host: str, port: int) -> str:
    """Return this machine's address on the way to another; its own where that is itself, or is not known."""
    if not host or host.startswith(("/", "@")):
        return "127.0.0.1"
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # nothing is sent: the system only chooses the way
            probe.connect(target)
            return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return "127.0.0.1"


def host_and_port(url: str) -> tuple[str, int, bool]:
    """Return the parts of another daemon's address: host, port, and whether it speaks TLS."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls
