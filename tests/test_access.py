"""Who may do what."""

import pytest

from filestored.access import ANONYMOUS, CHALLENGES, Access, Anonymous, Connection, Permission, is_loopback
from filestored.errors import FilestoredError, Forbidden, Unauthorized

LOCAL = Connection("127.0.0.1", False, "localhost:9000")
REMOTE = Connection("192.0.2.7", False, "files.example")


def permissions(mode: Anonymous, connection: Connection) -> Permission:
    try:
        principal = Access(mode).admit(connection, None, 0)
    except FilestoredError:
        return Permission(0)
    assert principal.owner == ANONYMOUS
    return principal.permissions


ALL = ~Permission(0)


@pytest.mark.parametrize(
    ("mode", "local", "remote"),
    [
        (Anonymous.LOOPBACK, ALL, Permission(0)),
        (Anonymous.NONE, Permission(0), Permission(0)),
        (Anonymous.READ, Permission.READ, Permission.READ),
        (Anonymous.FULL, ALL, ALL),
    ],
)
def test_the_anonymous_modes(mode: Anonymous, local: Permission, remote: Permission) -> None:
    assert permissions(mode, LOCAL) == local
    assert permissions(mode, REMOTE) == remote
    assert Access(mode).describe()


@pytest.mark.parametrize(
    ("address", "is_proxied", "host", "is_let_in"),
    [
        ("127.0.0.1", False, "127.0.0.1:9000", True), ("127.9.9.9", False, "localhost", True),
        ("::1", False, "[::1]:9000", True), ("::ffff:127.0.0.1", False, "localhost", True),
        ("127.0.0.1", False, "", True), ("127.0.0.1", False, "LOCALHOST.:1", True),
        ("127.0.0.1", False, "app.localhost", True), ("127.0.0.1", False, "192.168.1.5:9000", True),
        ("127.0.0.1", True, "localhost", False), ("127.0.0.1", False, "evil.example:9000", False),
        ("127.0.0.1", False, "evillocalhost", False), ("127.0.0.1", False, "localhost.evil.example", False),
        ("192.0.2.7", False, "localhost", False), ("::ffff:192.0.2.7", False, "localhost", False),
        ("", False, "localhost", False), ("not an address", False, "localhost", False),
    ],
)  # fmt: skip
def test_loopback_trusts_only_a_direct_local_connection(
    address: str, is_proxied: bool, host: str, is_let_in: bool
) -> None:
    connection = Connection(address, is_proxied, host)
    assert (permissions(Anonymous.LOOPBACK, connection) == ALL) is is_let_in


def test_a_refusal_says_how_to_open_up() -> None:
    with pytest.raises(Forbidden, match="--anonymous"):
        Access(Anonymous.LOOPBACK).admit(REMOTE, None, 0)
    with pytest.raises(Unauthorized) as refused:
        Access(Anonymous.NONE).admit(LOCAL, None, 0)
    assert refused.value.headers == CHALLENGES


def test_is_loopback_understands_zones() -> None:
    assert not is_loopback("fe80::1%eth0")
