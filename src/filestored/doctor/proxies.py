"""Proxies: whom a request is believed, and downloads that another program sends."""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from filestored.blobs.bucket.connecting import endpoint_of
from filestored.doctor.findings import Finding, Situation, fault, good, warning
from filestored.errors import SettingsError
from filestored.startable import require_detours

_BROAD = {4: 8, 6: 16}


def check_proxies(situation: Situation) -> Iterator[Finding]:
    """See that not just anybody is believed who claims to speak for others, and that downloads have a way."""
    yield from _judge_trusted(situation)
    try:
        require_detours(situation.settings)
    except SettingsError as error:
        yield fault(str(error), "give what it needs, or leave it out: no daemon starts so")
        return
    if situation.settings.accel_redirect is not None:
        yield from _judge_accel(situation)
    if situation.settings.redirect_downloads is not None:
        yield from _judge_redirects(situation)


def _judge_trusted(situation: Situation) -> Iterator[Finding]:
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


def _judge_accel(situation: Situation) -> Iterator[Finding]:
    prefix = situation.settings.accel_redirect
    away = [str(each) for each in situation.settings.trusted_proxy if not each.is_loopback]
    if away:
        yield warning(
            f"nginx at {', '.join(away)} is to send the files (--accel-redirect {prefix}), maybe on another machine",
            f"see that it has {situation.path} as a folder, or trust 127.0.0.1 alone",
        )
    else:
        yield good(
            f"nginx of this machine is to send the files as {prefix}/…: deploy/nginx-accel.conf has what it needs, "
            "which cannot be asked from here"
        )


def _judge_redirects(situation: Situation) -> Iterator[Finding]:
    address = situation.settings.bucket
    endpoint = None if address is None else endpoint_of(address, os.environ)
    parts = urlsplit(endpoint or "")
    if parts.hostname is not None and is_loopback(parts.hostname) and not is_loopback(situation.settings.host):
        yield warning(
            f"--redirect-downloads sends clients to {endpoint}, which is their own machine to them",
            "name the engine by an address that clients reach with --bucket-endpoint, or leave it out",
        )
    elif parts.scheme == "http" and situation.settings.tls_cert is not None:
        yield warning(
            f"--redirect-downloads sends clients from https to {endpoint}, in the clear",
            "give the engine a certificate and an https address, or leave it out",
        )
    else:
        yield good(f"downloads are sent to {endpoint or 'the provider of the bucket'}, which clients must reach, too")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its address or name alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
