"""Which server an address ``filestored://host/HASH`` means, and what that server may be told."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from filestored.client.servers import DEFAULT_URL, Choice, choose, read_servers, servers_file
from filestored.digest import parse_digest
from filestored.errors import SettingsError

SCHEME = "filestored://"


@dataclass(frozen=True, slots=True)
class Connection:
    """A server's ``url``, the token to show it, and how its certificate is checked: as Client takes them."""

    url: str
    token: str | None = field(repr=False)
    verify: bool | str


def split_address(address: str) -> tuple[str, str]:
    """Split ``filestored://host/path`` into host (with its port, "" where there is none) and path.

    A hash alone needs no host: ``filestored://HASH``. Raises ValueError where a token stands in the address, since
    addresses are logged and shown.
    """
    host, slash, path = address.removeprefix(SCHEME).partition("/")
    if "@" in host:
        raise ValueError("a token does not belong in an address: give it as the option 'token'")
    if parse_digest(host):
        return "", host + slash + path
    return host, path


def find_connection(
    *,
    host: str | None = None,
    server: str | None = None,
    token: str | None = None,
    secure: bool | None = None,
    verify: bool | str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Connection:
    """Find the server that is meant; what is not given comes from the configuration or the environment.

    ``host``, which stands in addresses, is the name of a server in the configuration, or ``host[:port]``: by https
    unless it is plainly this machine or ``secure`` says otherwise. ``server`` is the same or a whole ``https://…``.
    Without both it is the server that the commands would ask.

    FILESTORED_TOKEN is shown only to the server that the variables name, since an address may come from anywhere.
    Raises ValueError where ``host`` and ``server`` contradict each other, or the configuration is wrong.
    """
    named = server or host
    if host and named and _netloc(named) != host.lower():
        raise ValueError(f"the address names {host}, but the option 'server' another one: {server}")
    try:
        choice = _choose(named, token, secure, env)
    except SettingsError as error:
        raise ValueError(str(error)) from error
    if verify is None:
        verify = True if choice.ca_file is None else str(choice.ca_file)
    return Connection(choice.url, choice.token, verify)


def _netloc(server: str) -> str:
    return (urlsplit(server).netloc if "://" in server else server).lower()


def _choose(named: str | None, token: str | None, secure: bool | None, env: Mapping[str, str]) -> Choice:
    if not named:
        return choose(env, token=token)
    if named in read_servers(servers_file(env)).by_name:
        return choose(env, server=named, token=token)
    if not env.get("FILESTORED_URL") and not env.get("FILESTORED_SERVER"):
        env = {**env, "FILESTORED_URL": DEFAULT_URL}
    return choose(env, url=named if "://" in named else _address_of(named, secure=secure), token=token)


def _address_of(host: str, *, secure: bool | None) -> str:
    if secure is None:
        secure = not _is_this_machine(host)
    return f"{'https' if secure else 'http'}://{host}"


def _is_this_machine(host: str) -> bool:
    """Tell whether a host is plainly this machine, so that nobody can listen."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
