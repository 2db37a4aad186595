"""The port, and who reaches what over the network."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from filestored.doctor.catalogue import opened
from filestored.doctor.findings import Finding, Situation, fault, good, warning
from filestored.doctor.proxies import is_loopback
from filestored.errors import CatalogueError, StartError
from filestored.server import find_endpoint


def check_port(situation: Situation) -> Iterator[Finding]:
    """See whether the daemon could listen; where it runs it does."""
    settings = situation.settings
    if situation.holder is not None and settings.port in (0, urlsplit(situation.holder.address).port):
        yield good(f"the daemon listens at {situation.holder.address}")
        return
    try:
        endpoint = find_endpoint(settings)
    except StartError as error:
        yield fault(str(error), "choose others with --host and --port, or stop what has them (ss -ltnp)")
    else:
        shown = "a free port" if settings.port == 0 else f"port {endpoint.port}"
        yield good(f"{shown} on {settings.host} can be listened on")


def check_access(situation: Situation) -> Iterator[Finding]:
    """See who may do what, and whether tokens travel in the clear."""
    settings = situation.settings
    is_reachable = not is_loopback(settings.host)
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


def _has_tokens(situation: Situation) -> bool:
    try:
        with opened(situation) as rows:
            return rows is not None and bool(rows.tokens())
    except (CatalogueError, ImportError):
        # that is another check's affair
        return False
