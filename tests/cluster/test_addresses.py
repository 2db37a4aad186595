"""Where the other daemons are told to reach this one."""

import pytest

from filestored.catalogue.address import PostgresAddress
from filestored.cluster.address import find_url, host_and_port


@pytest.mark.parametrize("host", ["", "127.0.0.1", "/run/postgresql", "[::1]", "localhost"])
def test_a_database_on_this_machine_is_reached_by_its_own_address(host: str) -> None:
    url = f"postgresql://u:p@{host.replace('/', '%2F')}:5433/files"
    shown = find_url("http", "0.0.0.0", 9000, PostgresAddress(url))
    assert shown in ("http://127.0.0.1:9000", "http://[::1]:9000")


def test_one_address_that_is_listened_on_is_the_one() -> None:
    catalogue = PostgresAddress("postgresql://u@127.0.0.1/files")
    assert find_url("https", "192.0.2.4", 443, catalogue) == "https://192.0.2.4:443"
    assert find_url("http", "2001:db8::1", 9000, catalogue) == "http://[2001:db8::1]:9000"


def test_of_several_servers_the_first_counts_and_a_name_nobody_knows_is_no_failure() -> None:
    several = PostgresAddress("postgresql://u@127.0.0.1:5432,192.0.2.9:5432/files")
    assert find_url("http", "0.0.0.0", 1, several) == "http://127.0.0.1:1"
    unknown = PostgresAddress("postgresql://u@no-such-host.invalid/files")
    assert find_url("http", "::", 1, unknown) == "http://127.0.0.1:1"


def test_an_address_has_its_parts() -> None:
    assert host_and_port("http://127.0.0.1:9000") == ("127.0.0.1", 9000, False)
    assert host_and_port("https://[2001:db8::1]") == ("2001:db8::1", 443, True)
