"""Who may do what."""

import pytest

from filestored.access import (
    ANONYMOUS,
    CHALLENGES,
    STRANGER,
    Access,
    Anonymous,
    Connection,
    Permission,
    Principal,
    by_link,
    is_loopback,
    new_token,
)
from filestored.digest import Digest
from filestored.errors import FilestoredError, Forbidden, Unauthorized

LOCAL = Connection("127.0.0.1", False, "localhost:9000")
REMOTE = Connection("192.0.2.7", False, "files.example")


def permissions(mode: Anonymous, connection: Connection) -> Permission:
    try:
        principal = Access(mode).admit(connection, None, 0)
    except FilestoredError:
        return Permission(0)
    assert principal.owner == (STRANGER if mode is Anonymous.READ else ANONYMOUS)
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
        ("127.0.0.1", False, "localhost:evil.example", False), ("127.0.0.1", False, "127.0.0.1:80:evil", False),
        ("127.0.0.1", False, "[::1]evil.example", False), ("127.0.0.1", False, "[localhost]", False),
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


def test_a_token_is_right_or_wrong_and_its_secret_is_nowhere() -> None:
    text, record = new_token("anna", Permission.READ, 1000, expires_at=2000, quota=5)
    access = Access(Anonymous.NONE, [record])
    assert access.admit(REMOTE, text, 1999) == Principal("anna", Permission.READ, 5, expires_at=2000)
    assert text.split("-", 2)[2] not in repr(record)
    for wrong, now in ((text[:-1], 1), (text + "A", 1), (text[:-1] + "*", 1), ("", 1), (text, 2000)):
        with pytest.raises(Unauthorized):
            access.admit(REMOTE, wrong, now)
    assert access.knows(text)
    assert not access.knows(text[:-2] + "__")
    access.update([])
    with pytest.raises(Unauthorized, match="wrong"):
        access.admit(REMOTE, text, 1)


@pytest.mark.parametrize("text", ["read", "read,write", "delete , READ", "admin", "read,write,delete,admin"])
def test_permissions_read_back_what_they_spell(text: str) -> None:
    permissions = Permission.parse(text)
    assert Permission.parse(permissions.spelled()) == permissions
    assert (Permission.DELETE in permissions) is ("delete" in text or "admin" in text)


def test_a_principal_of_a_link_reads_one_file_and_nothing_else() -> None:
    principal = by_link(Digest("ab" * 32), 1_000)
    principal.require_reading(Digest("ab" * 32))
    with pytest.raises(Forbidden):
        principal.require_reading(Digest("cd" * 32))
    with pytest.raises(Forbidden):
        principal.require_no_link()
    for permission in (Permission.WRITE, Permission.DELETE, Permission.ADMIN):
        with pytest.raises(Forbidden):
            principal.require(permission)


def test_a_token_that_has_expired_keeps_programs_on_the_machine_out_all_the_same() -> None:
    _, record = new_token("anna", Permission.READ, 1000, expires_at=2000)
    with pytest.raises(Unauthorized):
        Access(Anonymous.LOOPBACK, [record]).admit(LOCAL, None, 5000)
    assert Access(Anonymous.LOOPBACK, []).admit(LOCAL, None, 5000).sees_all
