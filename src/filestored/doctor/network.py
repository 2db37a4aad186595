"""The port, proxies, and who reaches what over the network."""

from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from filestored.catalogue.catalogue import Catalogue
from filestored.doctor.findings import Finding, Situation, fault, good, warning
from filestored.doctor.folder import is_own
from filestored.errors import CatalogueError, StartError
from filestored.server import find_endpoint

_BROAD = {4: 8, 6: 16}


def check_port(situation: Situation) -> Iterator[Finding]:
    """See whether the daemon could listen; where it runs it does."""
    settings = situation.settings
    if situation.holder is not None:
        yield good(f"the daemon listens at {situation.holder.address or 'an address it has not told yet'}")
        return
    try:
        endpoint = find_endpoint(settings)
    except StartError as error:
        yield fault(str(error), "choose others with --host and --port, or stop what has them (ss -ltnp)")
    else:
        shown = "a free port" if settings.port == 0 else f"port {endpoint.port}"
        yield good(f"{shown} on {settings.host} can be listened on")


def check_proxies(situation: Situation) -> Iterator[Finding]:
    """See that not just anybody is believed who claims to speak for others."""
    networks = situation.settings.trusted_proxy
    if not networks:
        yield good("no proxy is trusted: what a request says of another client is not believed")
        return
    broad = [str(each) for each in networks if each.prefixlen < _BROAD[each.version]]
    public = [str(each) for each in networks if each.is_global and str(each) not in broad]
    if broad:
        yield fault(
            f"--trusted-proxy {', '.join(broad)} believes whoever sends a request",
            "name the proxy's own addresses: 127.0.0.1, or its network",
        )
    if public:
        yield warning(
            f"--trusted-proxy {', '.join(public)} is on the internet",
            "see that these are the proxy's own addresses, and that the way from there is encrypted",
        )
    if not broad and not public:
        yield good(f"trusted: {', '.join(map(str, networks))}; it must set X-Forwarded-For itself")


def check_access(situation: Situation) -> Iterator[Finding]:
    """See who may do what, and whether tokens travel in the clear."""
    settings = situation.settings
    is_reachable = not _is_loopback(settings.host)
    if is_reachable and settings.anonymous == "full":
        yield warning(
            "whoever reaches this port may store, read and delete everything (--anonymous full)",
            "use --anonymous read or none, and make tokens: filestored token create NAME --permissions read,write",
        )
    elif "*" in settings.cors_origin:
        yield warning(
            "every web site may do through its visitors' browsers whatever these may do",
            "name origins with --cors-origin",
        )
    elif is_reachable and not settings.tls_cert and not settings.trusted_proxy and _has_tokens(situation):
        yield warning(
            "tokens reach this port in the clear: there is neither a certificate nor a trusted proxy",
            "give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that --trusted-proxy names",
        )
    else:
        yield good(f"without a token: {settings.anonymous}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_tokens(situation: Situation) -> bool:
    where = situation.catalogue
    if isinstance(where, Path) and not (where.exists() and is_own(situation)):
        return False
    try:
        with closing(Catalogue(where, durable=True)) as rows:
            return bool(rows.tokens())
    except (CatalogueError, ImportError):
        # that is another check's affair
        return False
