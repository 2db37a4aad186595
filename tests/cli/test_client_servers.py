"""``server``, and which server is asked with what token."""

import json
import stat
from pathlib import Path

import pytest

from tests.cli.calling import Shell
from tests.cli.test_client_transfers import require_one_line
from tests.client.test_filesystem import make_certificate
from tests.conftest import Daemon, StartDaemon
from tests.tokens import make_token


@pytest.fixture
def user(tmp_path: Path) -> Shell:
    """A user without any configuration."""
    return Shell("", tmp_path)


def servers_toml(user: Shell) -> Path:
    return user.folder / ".config" / "filestored" / "servers.toml"


def test_servers_are_added_listed_chosen_and_removed(user: Shell) -> None:
    assert user.done("server", "list") == ""
    user.done("server", "add", "home", "https://files.example/", "--default")
    user.done("server", "add", "work", "http://10.0.0.1:9000/files", "--token-file", "-", stdin=b"tok-en\n")
    assert user.done("server", "list").splitlines() == [
        "* home  https://files.example  without a token",
        "  work  http://10.0.0.1:9000/files  with a token",
    ]
    assert user.done("server", "default") == "home\n"
    user.done("server", "default", "work")
    said = [json.loads(line) for line in user.done("server", "list", "--json").splitlines()]
    assert said[1] == {"name": "work", "url": "http://10.0.0.1:9000/files", "default": True, "token": True}
    user.done("server", "remove", "work")
    assert user.run("server", "default").status == 2
    assert user.done("server", "list") == "  home  https://files.example  without a token\n"


def test_the_file_is_for_its_owner_alone_and_keeps_what_a_hand_wrote(user: Shell) -> None:
    user.done("server", "add", "home", "https://files.example", "--token-file", "-", stdin=b"tok-en")
    file = servers_toml(user)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.write_text("# mine\n" + file.read_text() + "# the end\n")
    user.done("server", "add", "work", "https://work.example", "--default")
    user.done("server", "add", "home", "https://moved.example")
    text = file.read_text()
    assert "# mine\n" in text
    assert "# the end\n" in text
    assert "tok-en" not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["servers.toml"]


def test_a_file_that_is_a_link_stays_one(user: Shell) -> None:
    kept = user.folder / "dotfiles" / "servers.toml"
    kept.parent.mkdir()
    kept.write_text("# shared\n")
    servers_toml(user).parent.mkdir(parents=True)
    servers_toml(user).symlink_to(kept)
    user.done("server", "add", "home", "https://files.example")
    assert servers_toml(user).is_symlink()
    assert kept.read_text().startswith("# shared\n")
    assert "files.example" in kept.read_text()


def test_the_configuration_lies_where_xdg_says(user: Shell) -> None:
    env = {"XDG_CONFIG_HOME": str(user.folder / "else where")}
    user.done("server", "add", "home", "https://files.example", env=env)
    assert (user.folder / "else where" / "filestored" / "servers.toml").exists()
    assert not servers_toml(user).exists()
    # one that is not absolute does not count
    user.done("server", "add", "home", "https://files.example", env={"XDG_CONFIG_HOME": "relative"})
    assert servers_toml(user).exists()


def test_a_file_that_others_can_read_is_warned_of_where_it_has_tokens(user: Shell) -> None:
    user.done("server", "add", "home", "http://127.0.0.1:1", "--token-file", "-", stdin=b"tok-en")
    servers_toml(user).chmod(0o644)
    ended = user.run("server", "list")
    assert ended.status == 0
    require_one_line(ended.said)
    assert "chmod 600" in ended.said
    assert "chmod 600" in user.run("ls", "--server", "home").said
    servers_toml(user).chmod(0o600)
    assert user.run("server", "list").said == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[servers.home]\n", "no url"),
        ('[servers.home]\nurl = "ftp://x"\n', "ftp://x"),
        ("[servers.home]\nurl = 5\n", "texts"),
        ('[servers.home]\nurl = "http://x"\ntokn = "a"\n', "did you mean token?"),
        ('[servers.home]\nurl = "http://x"\ntoken = "a b"\n', "no token"),
        ('[servers.home]\nurl = "http://x"\ntoken = "a"\ntoken_file = "b"\n', "one is enough"),
        ('[servers."a b"]\nurl = "http://x"\n', "name"),
        ('[servers."\\u001b[31m"]\nurl = "http://x"\n', "name"),
        ('default = "nobody"\n', "nobody"),
        ('defualt = "home"\n', "did you mean default?"),
        ("servers = 5\n", "tables"),
        ("[[[", "TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_status_2(user: Shell, text: str, said: str) -> None:
    servers_toml(user).parent.mkdir(parents=True)
    servers_toml(user).write_text(text)
    for words in (["server", "list"], ["ls", "--server", "home"], ["server", "add", "new", "http://x"]):
        ended = user.run(*words)
        assert (ended.status, ended.output) == (2, "")
        require_one_line(ended.said)
        assert said in ended.said
        assert ended.said[:-1].isprintable()
    assert servers_toml(user).read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a b", "http://x"], "name"),
        (["add", "../x", "http://x"], "name"),
        (["add", "-x", "http://x"], "-x"),
        (["add", "a", "x"], "URL x"),
        (["add", "a", "http://user:secret@x"], "password"),
        (["add", "a", "http://x?q"], "URL"),
        (["add", "a", "http://x", "--token-file", "/no/such"], "/no/such"),
        (["remove", "nobody"], "nobody"),
        (["default", "nobody"], "nobody"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(user: Shell, words: list[str], said: str) -> None:
    ended = user.run("server", *words)
    assert (ended.status, ended.output) == (2, "")
    require_one_line(ended.said)
    assert said in ended.said
    assert "secret" not in ended.said
    assert not servers_toml(user).exists()


def test_a_name_that_is_nearly_right_is_hinted_at(user: Shell) -> None:
    user.done("server", "add", "home", "http://127.0.0.1:1")
    assert "did you mean home?" in user.run("ls", "--server", "hom").said


class Known:
    """Two servers with names, each with a token of its own that the other does not know."""

    def __init__(self, start_daemon: StartDaemon, folder: Path) -> None:
        self.tokens = {name: make_token(folder / name, name, "read,write") for name in ("one", "two")}
        self.daemons = {name: start_daemon("--workers", "1", store=folder / name) for name in ("one", "two")}
        self.user = Shell("", folder / "home")
        self.user.folder.mkdir()

    def daemon(self, name: str) -> Daemon:
        return self.daemons[name]

    def add(self, name: str, *more: str, token: str | None) -> None:
        words = [] if token is None else ["--token-file", "-"]
        self.user.done("server", "add", name, self.daemons[name].url, *more, *words, stdin=(token or "").encode())


@pytest.fixture
def known(start_daemon: StartDaemon, tmp_path: Path) -> Known:
    return Known(start_daemon, tmp_path)


def test_the_server_is_chosen_by_flag_then_variable_then_configuration(known: Known) -> None:
    known.add("one", "--default", token=known.tokens["one"])
    known.add("two", token=known.tokens["two"])
    known.user.done("put", "-", "--name", "in-one", stdin=b"1")
    known.user.done("put", "-", "--name", "in-two", "--server", "two", stdin=b"2")
    one, two = known.daemon("one").url, known.daemon("two").url

    def asked(*words: str, **env: str) -> str:
        return known.user.done("ls", *words, env={f"FILESTORED_{key}": value for key, value in env.items()}).split(
            "\t"
        )[-1]

    assert asked() == "in-one\n"
    assert asked(SERVER="two") == "in-two\n"
    assert asked(URL=one, TOKEN=known.tokens["one"], SERVER="two") == "in-one\n"
    assert asked("--server", "two", URL=one, TOKEN=known.tokens["one"]) == "in-two\n"
    assert asked("--url", two, "--token", known.tokens["two"], SERVER="one") == "in-two\n"
    token_file = known.user.folder / "token"
    token_file.write_text(known.tokens["two"] + "\n")
    assert asked("--url", two, "--token-file", str(token_file)) == "in-two\n"
    assert asked("--url", two, TOKEN=known.tokens["two"]) == "in-two\n"
    assert asked("--url", two + "/", URL=two, TOKEN=known.tokens["two"]) == "in-two\n"
    ended = known.user.run("ls", "--url", one, "--server", "two")
    assert ended.status == 2


def test_a_token_is_never_sent_to_another_server(known: Known) -> None:
    known.add("one", "--default", token=None)
    known.add("two", token=known.tokens["two"])
    one, two, mine = known.daemon("one").url, known.daemon("two").url, known.tokens["one"]
    for words, env in (
        # by name, and the variables do not name it
        (["--server", "one"], {"TOKEN": mine}),
        ([], {"TOKEN": mine}),
        (["--server", "one"], {"TOKEN": mine, "SERVER": "two"}),
        (["--server", "one"], {"TOKEN": mine, "URL": one}),
        # the variables name another
        (["--url", one], {"TOKEN": mine, "URL": two}),
        (["--url", one], {"TOKEN": mine, "SERVER": "two"}),
        # that of the configuration goes by its name alone
        (["--url", two], {}),
        ([], {"URL": two}),
    ):
        ended = known.user.run("ls", *words, env={f"FILESTORED_{key}": value for key, value in env.items()})
        assert ended.status == 4, (words, env)
        lines = ended.said.splitlines()
        assert ("FILESTORED_TOKEN is not sent" in lines[0]) == ("TOKEN" in env)
        assert all(token not in ended.said for token in known.tokens.values())
    # the right one to the same server does work
    assert known.user.run("ls", env={"FILESTORED_SERVER": "one", "FILESTORED_TOKEN": mine}).status == 0
    assert known.user.run("ls", "--server", "one", "--token", mine).status == 0


def test_a_token_file_is_read_when_it_is_needed_and_relative_to_the_configuration(known: Known) -> None:
    file = known.user.folder / "two.token"
    file.write_text(known.tokens["two"])
    known.user.done("server", "add", "two", known.daemon("two").url, "--token-file", "two.token")
    assert str(file) in servers_toml(known.user).read_text()
    assert known.user.run("ls", "--server", "two").status == 0
    servers_toml(known.user).write_text(servers_toml(known.user).read_text().replace(str(file), "beside.token"))
    file.rename(servers_toml(known.user).parent / "beside.token")
    assert known.user.run("ls", "--server", "two").status == 0
    (servers_toml(known.user).parent / "beside.token").unlink()
    ended = known.user.run("ls", "--server", "two")
    assert ended.status == 2
    require_one_line(ended.said)


def test_a_certificate_of_ones_own_is_trusted_only_where_that_is_said(start_daemon: StartDaemon, user: Shell) -> None:
    certificate, key = make_certificate(user.folder)
    url = start_daemon("--workers", "1", "--tls-cert", str(certificate), "--tls-key", str(key)).url
    url = url.replace("127.0.0.1", "localhost")
    ended = user.run("ls", "--url", url)
    assert ended.status == 5
    require_one_line(ended.said)
    assert "certificate is not trusted" in ended.said
    assert user.done("ls", "--url", url, "--ca-file", certificate) == ""
    user.done("server", "add", "own", url, "--ca-file", certificate.name, "--default")
    assert user.done("put", "-", stdin=b"x") == user.done("put", "-", "--server", "own", stdin=b"x")
    (user.folder / "no.pem").write_text("no certificate")
    ended = user.run("ls", "--url", url, "--ca-file", "no.pem")
    assert ended.status == 7
    require_one_line(ended.said)
