"""What a trusted proxy says of the client it speaks for: ``X-Forwarded-*`` and ``Forwarded`` (RFC 7239)."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address

from filestored.api.exchange import Exchange

Network = IPv4Network | IPv6Network

_REMEMBERED = 4096
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}", re.ASCII)
_SCHEMES = ("http", "https")
_ELEMENT = re.compile(r'\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"\s]*)\s*')


class Proxies:
    """The addresses whose word about others is taken."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        if not self._networks:
            return False
        answer = self._known.get(address)
        if answer is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            answer = self._known[address] = self._is_listed(address)
        return answer

    def _is_listed(self, address: str) -> bool:
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)

    def unwrap(self, exchange: Exchange) -> None:
        """Give a request the client, scheme and host it had before a trusted proxy passed it on.

        Whoever is not trusted is believed nothing, but that the request was passed on.
        """
        if not self.trusts(exchange.client):
            return
        # who is on the proxy's machine may come by another way, and then says nothing of a client
        exchange.is_from_trusted = exchange.is_proxied
        exchange.is_proxied = True
        headers = exchange.headers
        elements = _elements(headers.get(b"forwarded", b"").decode("latin-1"))
        hops = [_address(element.get("for", "")) for element in elements]
        listed = headers.get(b"x-forwarded-for")
        if listed is not None:
            others = [_address(part) for part in listed.decode("latin-1").split(",")]
            if hops and hops[-1] != others[-1]:
                # a client may have sent one of the two, and the proxy let it through: neither is believed
                return
            hops = others
        client = self._client(hops)
        if client:
            exchange.client = client
        last = elements[-1] if elements else {}
        scheme = _last(headers, b"x-forwarded-proto") or last.get("proto", "")
        if scheme.lower() in _SCHEMES:
            exchange.scheme = scheme.lower()
        host = _last(headers, b"x-forwarded-host") or last.get("host", "")
        if _HOST.fullmatch(host):
            exchange.host = host

    def _client(self, hops: list[str]) -> str:
        """Return the last address that is no trusted proxy's: what stands before it anybody may have made up."""
        for address in reversed(hops):
            if not address:
                return ""
            if not self.trusts(address):
                return address
        return hops[0] if hops else ""


def _elements(header: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded``, one a proxy, each a mapping of lower-case names."""
    if not header:
        return []
    return [
        {name.lower(): value.strip('"') for name, value in _ELEMENT.findall(element)} for element in header.split(",")
    ]


def _address(text: str) -> str:
    """Return the address in a hop such as ``192.0.2.7:1234`` or ``"[2001:db8::1]:80"``; empty where it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # without the zone of an IPv6 address, which may be any text
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return ""


def _last(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").rpartition(",")[2].strip()
