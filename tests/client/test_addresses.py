"""Which server an address means, and that no token goes to another than the one it is for."""

from pathlib import Path

import pytest

from filestored.client.addresses import Connection, find_connection, split_address

DIGEST = "ab" * 32


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose configuration knows two servers."""
    (tmp_path / "filestored").mkdir()
    file = tmp_path / "filestored" / "servers.toml"
    file.touch(mode=0o600)
    (tmp_path / "ca.pem").write_text("a certificate")
    file.write_text(
        f"""
        [servers.home]
        url = "https://home.example:9443/files"
        token = "homes-token"
        ca_file = "{tmp_path}/ca.pem"

        [servers.open]
        url = "http://open.example"
        """
    )
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("files.example", "https://files.example"),
        ("files.example:9000", "https://files.example:9000"),
        ("localhost:9000", "http://localhost:9000"),
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("10.0.0.1:9000", "https://10.0.0.1:9000"),
        ("localhost.example", "https://localhost.example"),
        ("127.0.0.1.example", "https://127.0.0.1.example"),
    ],
)
def test_other_machines_are_reached_by_https(env: dict[str, str], host: str, url: str) -> None:
    assert find_connection(host=host, env=env) == Connection(url, None, True)
    assert find_connection(host=host, secure=True, env=env).url == url.replace("http://", "https://")
    assert find_connection(host=host, secure=False, env=env).url == url.replace("https://", "http://")


def test_a_server_of_the_configuration_has_its_token_and_certificates(env: dict[str, str], tmp_path: Path) -> None:
    home = Connection("https://home.example:9443/files", "homes-token", f"{tmp_path}/ca.pem")
    assert find_connection(host="home", env=env) == home
    assert find_connection(server="home", env=env) == home
    assert find_connection(host="home", token="other", verify=False, env=env) == Connection(home.url, "other", False)
    # an address is not a name
    assert find_connection(host="home.example:9443", env=env).token is None


def test_nothing_given_means_what_the_commands_ask(env: dict[str, str]) -> None:
    assert find_connection(env=env).url == "http://localhost:9000"
    assert find_connection(env={**env, "FILESTORED_URL": "https://files.example"}).url == "https://files.example"
    assert find_connection(env={**env, "FILESTORED_SERVER": "home"}).token == "homes-token"


@pytest.mark.parametrize(
    ("variables", "host", "is_sent"),
    [
        ({"FILESTORED_URL": "https://files.example"}, "files.example", True),
        ({"FILESTORED_URL": "https://files.example"}, "FILES.example:443", True),
        ({"FILESTORED_URL": "https://files.example"}, "files.example:444", False),
        ({"FILESTORED_URL": "http://files.example"}, "files.example", False),
        ({"FILESTORED_URL": "https://files.example"}, "other.example", False),
        ({"FILESTORED_URL": "https://files.example"}, "open", False),
        ({"FILESTORED_URL": "https://files.example"}, "localhost:9000", False),
        ({"FILESTORED_SERVER": "open"}, "open", True),
        ({"FILESTORED_SERVER": "open"}, "other.example", False),
        ({"FILESTORED_SERVER": "open"}, "localhost:9000", False),
        ({}, "localhost:9000", True),
        ({}, "localhost:9001", False),
        ({}, "files.example", False),
        ({}, "open", False),
        ({}, None, True),
    ],
)
def test_a_token_of_the_environment_goes_only_to_the_server_of_the_environment(
    env: dict[str, str], variables: dict[str, str], host: str | None, is_sent: bool
) -> None:
    found = find_connection(host=host, env={**env, **variables, "FILESTORED_TOKEN": "secret"})
    assert found.token == ("secret" if is_sent else None)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(find_connection(host="files.example", token="secret", env={}))


def test_an_address_and_an_option_must_not_contradict_each_other(env: dict[str, str]) -> None:
    assert find_connection(host="files.example:80", server="http://FILES.example:80/store", env=env).url == (
        "http://FILES.example:80/store"
    )
    for server in ("https://other.example", "home", "http://files.example"):
        with pytest.raises(ValueError, match=r"names files\.example:80"):
            find_connection(host="files.example:80", server=server, env=env)


@pytest.mark.parametrize("host", ["files.example:port", "[::1", "a b", "files.example?x", "x:99999"])
def test_a_host_that_cannot_be_one_is_told(env: dict[str, str], host: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        find_connection(host=host, env=env)


def test_a_configuration_that_is_wrong_is_told(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "filestored" / "servers.toml").write_text("servers = 5")
    with pytest.raises(ValueError, match=r"servers\.toml"):
        find_connection(host="files.example", env=env)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (f"filestored://files.example:9000/{DIGEST}/a/b.csv", ("files.example:9000", f"{DIGEST}/a/b.csv")),
        (f"filestored:///{DIGEST}", ("", DIGEST)),
        (f"filestored://{DIGEST}", ("", DIGEST)),
        (f"filestored://{DIGEST}/b.csv", ("", f"{DIGEST}/b.csv")),
        ("filestored://home", ("home", "")),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, str]) -> None:
    assert split_address(address) == parts


def test_a_token_in_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="option 'token'"):
        split_address(f"filestored://me:secret@files.example/{DIGEST}")
