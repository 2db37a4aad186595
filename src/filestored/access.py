"""Who may do what: decided here and nowhere else, and denied unless something grants it.

::

    request ── Credentials ──► Access.admit ──► Principal ──► require(permission), everywhere below HTTP too
               a token            tokens, the anonymous mode
               a signed link      Access.admit_by_link (read one digest, nothing else)
"""

import enum
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address

from filestored.catalogue.records import TokenRecord
from filestored.digest import Digest
from filestored.errors import Forbidden, Unauthorized

ANONYMOUS = "anonymous"
"""The owner of what is uploaded without a token."""

STRANGER = "-"
"""The owner as whom whoever has neither a token nor full access reads: it keeps nothing, and no token is called so."""

CHALLENGES = (
    (b"www-authenticate", b'Bearer realm="filestored"'),
    (b"www-authenticate", b'Basic realm="filestored", charset="UTF-8"'),
)
"""What ``401`` says of the ways to name a token (RFC 6750, RFC 7617)."""

_PREFIX = "fs"
_ID_BYTES = 6
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"{_PREFIX}-([0-9a-f]{{{2 * _ID_BYTES}}})-([A-Za-z0-9_-]{{43}})", re.ASCII)
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)


class Permission(enum.Flag):
    """What a caller can be allowed to do. ADMIN implies the rest, and sees every owner's files."""

    READ = enum.auto()
    WRITE = enum.auto()
    DELETE = enum.auto()
    ADMIN = enum.auto()

    @classmethod
    def parse(cls, text: str) -> "Permission":
        """Read names with commas between; ``admin`` implies the rest. Raises ValueError."""
        found = cls(0)
        for name in text.split(","):
            try:
                found |= cls[name.strip().upper()]
            except KeyError:
                raise ValueError(f"{name.strip()!r} is none of read, write, delete, admin") from None
        return ALL if found & cls.ADMIN else found

    def spelled(self) -> str:
        """Return the names, with commas between, as :meth:`parse` reads them."""
        return ",".join((each.name or "").lower() for each in self)


ALL = Permission.READ | Permission.WRITE | Permission.DELETE | Permission.ADMIN


class Anonymous(enum.StrEnum):
    """What requests without a token may do."""

    LOOPBACK = "loopback"
    NONE = "none"
    READ = "read"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the owner of what it uploads, what it may do, and how many bytes it may keep.

    ``has_token`` tells a refused request whether a token would help; ``expires_at`` is when the token or the link
    ends, in milliseconds since 1970; ``only`` holds whoever comes by a signed link to one digest.
    """

    owner: str
    permissions: Permission
    quota: int | None = None
    has_token: bool = True
    expires_at: int | None = None
    only: Digest | None = None

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the permission is granted; Unauthorized where no token was given.

        Nobody who comes by a link alone has any: what a link is good for is :meth:`require_reading`.
        """
        self.require_no_link()
        if self.permissions & permission:
            return
        name = (permission.name or "").lower()
        if self.has_token:
            raise Forbidden(f"This needs the permission '{name}'; use a token that has it.")
        raise Unauthorized(f"This needs a token with the permission '{name}'.", headers=CHALLENGES)

    def require_reading(self, digest: Digest) -> None:
        """Raise Forbidden or Unauthorized unless this very file may be read."""
        if self.only != digest:
            self.require(Permission.READ)

    def require_linking(self) -> None:
        """Raise Unauthorized unless it may make links: who has no token would have access long after it is closed."""
        self.require(Permission.READ)
        if not self.has_token and not self.sees_all:
            raise Unauthorized("To make a link takes a token with the permission 'read'.", headers=CHALLENGES)

    def require_no_link(self) -> None:
        """Raise Forbidden where a signed link alone is what lets the request in: it is good for one file's bytes."""
        if self.only is not None:
            raise Forbidden("A link is good for reading its file and for nothing else.")

    @property
    def sees_all(self) -> bool:
        """Whether every owner's files are shown to it, and deleted by it."""
        return bool(self.permissions & Permission.ADMIN)

    @property
    def claims_of(self) -> str | None:
        """Whose files it may change: its own, or everybody's (None)."""
        return None if self.sees_all else self.owner

    @property
    def may_read(self) -> bool:
        """Whether it may read any file whose hash it knows."""
        return bool(self.permissions & Permission.READ)


NOBODY_AT_ALL = Principal(STRANGER, Permission(0), has_token=False)
"""Whoever asks for what is open to all: it may do nothing else."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a request comes from: the client's address, whether a proxy passed it on, and the ``Host`` it names."""

    address: str
    is_proxied: bool
    host: str


class Access:
    """The rules in force: the anonymous mode, and the tokens as they were when last looked at."""

    def __init__(self, anonymous: Anonymous, tokens: Iterable[TokenRecord] = ()) -> None:
        self._anonymous = anonymous
        self._tokens: dict[str, TokenRecord] = {}
        self.update(tokens)

    def update(self, tokens: Iterable[TokenRecord]) -> None:
        """Take note of the tokens there are now."""
        self._tokens = {token.id: token for token in tokens}

    def knows(self, text: str) -> bool:
        """Tell whether a text is a token there is: if not, it may have been made a moment ago."""
        return self._find(text) is not None

    def _find(self, text: str) -> TokenRecord | None:
        match = _TOKEN.fullmatch(text)
        record = self._tokens.get(match[1]) if match else None
        # hashed and compared also where there is no such token, so that the time tells nothing
        is_right = compare_digest(hash_of(text), record.secret_hash if record else hash_of(""))
        return record if is_right else None

    @property
    def anonymous_depends_on_tokens(self) -> bool:
        """Whether what a request without a token may do changes with the first token made."""
        return self._anonymous is Anonymous.LOOPBACK

    @property
    def anonymous_grant(self) -> Permission:
        """The most that a request without a token can be allowed; where it comes from may still speak against it."""
        match self._anonymous:
            case Anonymous.NONE:
                return Permission(0)
            case Anonymous.READ:
                return Permission.READ
        return ALL

    def next_end(self, now: int) -> int | None:
        """Return when the next token ends, in milliseconds since 1970; None where none does."""
        ends = [token.expires_at for token in self._tokens.values() if token.expires_at and token.expires_at > now]
        return min(ends, default=None)

    def admit(self, connection: Connection, token: str | None, now: int) -> Principal:
        """Return who asks. Raises Unauthorized or Forbidden where nothing lets the request in.

        ``token`` is what the request names as one, None where it names none; ``now`` in milliseconds since 1970.
        """
        if token is not None:
            return self._admit_token(token, now)
        match self._anonymous:
            case Anonymous.FULL:
                return Principal(ANONYMOUS, ALL, has_token=False)
            case Anonymous.READ:
                return Principal(STRANGER, Permission.READ, has_token=False)
            case Anonymous.LOOPBACK if not self._tokens:
                return self._admit_local(connection)
        raise Unauthorized("This server answers nobody without a token.", headers=CHALLENGES)

    def _admit_token(self, text: str, now: int) -> Principal:
        record = self._find(text)
        if record is None:
            raise Unauthorized("The token is wrong, or was revoked.", headers=CHALLENGES)
        if record.expires_at is not None and record.expires_at <= now:
            raise Unauthorized("The token has expired; ask for a new one.", headers=CHALLENGES)
        return Principal(record.name, Permission.parse(record.permissions), record.quota, expires_at=record.expires_at)

    def _admit_local(self, connection: Connection) -> Principal:
        if connection.is_proxied or not is_loopback(connection.address):
            raise Forbidden(
                "Only programs on the server's own machine have access. To let others in make tokens for them "
                "(filestored token create NAME --permissions read,write), or open the server with --anonymous read "
                "or --anonymous full."
            )
        if not _is_local_name(connection.host):
            # a name that anybody may point at 127.0.0.1 says that a web page is asking (DNS rebinding)
            raise Forbidden(f"Local access needs an address or 'localhost' in Host, not {connection.host[:100]!r}.")
        return Principal(ANONYMOUS, ALL, has_token=False)

    def describe(self) -> str:
        """Say in one line who can do what, for the start-up log."""
        tokens = f"{len(self._tokens)} token{'' if len(self._tokens) == 1 else 's'}"
        without = {
            Anonymous.LOOPBACK: "programs on this machine may do everything, everybody else nothing",
            Anonymous.NONE: "nobody has access without one",
            Anonymous.READ: "everybody may read files whose hash they know, nobody may change anything without one",
            Anonymous.FULL: "EVERYBODY who reaches this port may read, upload and delete",
        }[self._anonymous]
        if self._anonymous is Anonymous.LOOPBACK and self._tokens:
            without = "nobody has access without one, programs on this machine no more than others"
        return f"{tokens}; {without}"


def by_link(digest: Digest, expires_at: int) -> Principal:
    """Return who comes by a signed link, which somebody has verified: a reader of one file until the link ends."""
    return Principal(STRANGER, Permission.READ, expires_at=expires_at, only=digest)


def is_token_name(name: str) -> bool:
    """Tell whether a token, and so an owner of files, can be called so."""
    return _NAME.fullmatch(name) is not None and name.lower() != ANONYMOUS


def new_token(
    name: str, permissions: Permission, now: int, *, expires_at: int | None = None, quota: int | None = None
) -> tuple[str, TokenRecord]:
    """Make a token; return its text, which is nowhere else, and what is kept of it.

    Times in milliseconds since 1970, ``quota`` in bytes. Raises ValueError where the name cannot be one.
    """
    if not is_token_name(name):
        raise ValueError(
            f"a token cannot be called {name[:100]!r}: its name, which is that of the owner of what it uploads, has 1 "
            f"to 64 of the characters A-Z a-z 0-9 . _ @ + -, begins with a letter or digit, and is not '{ANONYMOUS}'"
        )
    token_id = secrets.token_hex(_ID_BYTES)
    text = f"{_PREFIX}-{token_id}-{secrets.token_urlsafe(_SECRET_BYTES)}"
    return text, TokenRecord(token_id, name, hash_of(text), permissions.spelled(), now, expires_at, quota)


def hash_of(token: str) -> str:
    """Return what is kept of a token: SHA-256 in hex. It is random, so that a slow hash would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


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
    if not host:
        return True
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    name = parts["address"] or parts["name"]
    if f".{name.lower().rstrip('.')}".endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
