"""Who may do what: decided here and nowhere else, and denied unless something grants it."""

import enum
from dataclasses import dataclass
from ipaddress import ip_address

from filestored.errors import Forbidden, Unauthorized

ANONYMOUS = "anonymous"
"""The owner of what is uploaded without a token."""


class Permission(enum.Flag):
    """What a caller can be allowed to do. ADMIN implies the rest, and sees every owner's files."""

    READ = enum.auto()
    WRITE = enum.auto()
    DELETE = enum.auto()
    ADMIN = enum.auto()


_ALL = Permission.READ | Permission.WRITE | Permission.DELETE | Permission.ADMIN


class Anonymous(enum.StrEnum):
    """What requests without a token may do."""

    LOOPBACK = "loopback"
    NONE = "none"
    READ = "read"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the owner of what it uploads, and what it may do."""

    owner: str
    permissions: Permission

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the permission is granted."""
        if not self.permissions & permission:
            name = (permission.name or "").lower()
            raise Forbidden(f"This needs the permission '{name}'; use a token that has it.")

    @property
    def claims_of(self) -> str | None:
        """Whose files it may change: its own, or everybody's (None)."""
        return None if self.permissions & Permission.ADMIN else self.owner


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a request comes from: the peer's address, whether a proxy passed it on, and the ``Host`` it names."""

    address: str
    is_proxied: bool
    host: str


class Access:
    """The rules in force."""

    def __init__(self, anonymous: Anonymous) -> None:
        self._anonymous = anonymous

    def admit(self, connection: Connection) -> Principal:
        """Return who asks. Raises Unauthorized or Forbidden where nothing lets the request in."""
        match self._anonymous:
            case Anonymous.FULL:
                return Principal(ANONYMOUS, _ALL)
            case Anonymous.READ:
                return Principal(ANONYMOUS, Permission.READ)
            case Anonymous.LOOPBACK:
                return self._admit_local(connection)
        raise Unauthorized("This server answers nobody without a token.", headers=((b"www-authenticate", b"Bearer"),))

    def _admit_local(self, connection: Connection) -> Principal:
        if connection.is_proxied or not is_loopback(connection.address):
            raise Forbidden(
                "Only programs on the server's own machine have access. To open it to others start it with "
                "--anonymous read or --anonymous full."
            )
        if not _is_local_name(connection.host):
            # a name that anybody may point at 127.0.0.1 says that a web page is asking (DNS rebinding)
            raise Forbidden(f"Local access needs an address or 'localhost' in Host, not {connection.host[:100]!r}.")
        return Principal(ANONYMOUS, _ALL)

    def describe(self) -> str:
        """Say in one line who can do what, for the start-up log."""
        return {
            Anonymous.LOOPBACK: "programs on this machine may do everything, everybody else nothing",
            Anonymous.NONE: "nobody has access without a token",
            Anonymous.READ: "everybody may read files whose hash they know, nobody may change anything",
            Anonymous.FULL: "EVERYBODY who reaches this port may read, upload and delete",
        }[self._anonymous]


def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine itself; an IPv4 one may come dressed as IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _is_local_name(host: str) -> bool:
    """Tell whether ``Host`` is an address, or a name that never leaves the machine (RFC 6761, 6.3).

    Without any ``Host`` no browser is asking.
    """
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if not host or f".{name.lower().rstrip('.')}".endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
