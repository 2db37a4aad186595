"""The servers a user knows by name: ``servers.toml``.

::

    default = "home"

    [servers.home]
    url = "https://files.example"
    token_file = "/home/anna/.config/filestored/home.token"

Which server is asked, and what token it is sent, is decided by :func:`choose` and nowhere else.
"""

import fcntl
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filestored.client.errors import shown
from filestored.errors import SettingsError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

DEFAULT_URL = "http://localhost:9000"
"""The server that is asked where nothing names another."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,4096}", re.ASCII)
_KEYS = ("url", "token", "token_file", "ca_file")
_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Server:
    """A server with a name: its address, its token or the file that has it, and whom its certificate is trusted of."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None

    def read_token(self) -> str | None:
        """Return its token, None where it has none. Raises SettingsError where its file cannot be read."""
        return read_token(self.token_file) if self.token_file is not None else self.token


@dataclass(frozen=True, slots=True)
class Servers:
    """All servers with a name, by name; ``default`` is the one that is asked where nothing names another."""

    path: Path
    default: str | None
    by_name: Mapping[str, Server]
    warning: str | None = None

    def find(self, name: str) -> Server:
        """Return a server. Raises SettingsError where there is none of that name."""
        if name in self.by_name:
            return self.by_name[name]
        near = get_close_matches(name, self.by_name, 1)
        hint = f"did you mean {near[0]}?" if near else "see `filestored server list`"
        raise SettingsError(f"there is no server {shown(name[:100])}; {hint}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The server that is asked, and what it is sent; ``warning`` is for the user, where there is any."""

    url: str
    token: str | None = field(repr=False)
    ca_file: Path | None
    warning: str | None = None


def servers_file(env: Mapping[str, str]) -> Path:
    """Return where the configuration is: in ``$XDG_CONFIG_HOME``, which counts if absolute, or ``~/.config``."""
    given = env.get("XDG_CONFIG_HOME", "")
    home = given if given.startswith("/") else os.path.expanduser("~/.config")
    return Path(home) / "filestored" / "servers.toml"


def choose(
    env: Mapping[str, str],
    *,
    url: str | None = None,
    server: str | None = None,
    token: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
) -> Choice:
    """Decide which server is asked and with what token; what is not given is None. Raises SettingsError.

    The server: ``url``, else ``server``, else FILESTORED_URL, else FILESTORED_SERVER, else the default of the
    configuration, else http://localhost:9000.

    The token is the one given here, whatever the server; else that of the configuration, for the server of that name
    alone; else FILESTORED_TOKEN. The last goes only to the server that the variables name; where they name none, only
    to one that has no name. So no token ever reaches a server that it was not meant for.
    """
    if token is not None and token_file is not None:
        raise SettingsError("--token and --token-file are both given; one is enough")
    if url is not None and server is not None:
        raise SettingsError("--url and --server are both given; one is enough")
    given = read_token(token_file) if token_file is not None else token
    if given is not None:
        given = require_token(given, "--token")
    place = _find_place(env, url, server)
    chosen = given or (place.server.read_token() if place.server else None)
    variable = env.get("FILESTORED_TOKEN") or None
    warning = place.warning
    if chosen is None and variable is not None:
        if place.takes_variable:
            chosen = require_token(variable, "FILESTORED_TOKEN")
        else:
            warning = f"FILESTORED_TOKEN is not sent to {place.what}, which the variables do not name; use --token"
    trusted = ca_file or (place.server.ca_file if place.server else None)
    if trusted is not None and not os.access(trusted, os.R_OK):
        raise SettingsError(f"{shown(str(trusted))}: the certificates cannot be read")
    return Choice(place.url, chosen, trusted, warning)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to ask: what the user calls it, and whether FILESTORED_TOKEN is meant for it."""

    url: str
    what: str
    takes_variable: bool
    server: Server | None = None
    warning: str | None = None


def _find_place(env: Mapping[str, str], url: str | None, server: str | None) -> _Place:
    env_url, env_server = env.get("FILESTORED_URL") or None, env.get("FILESTORED_SERVER") or None
    if url is not None:
        address = require_url(url, "--url")
        if env_url is not None:
            return _Place(address, address, _is_same_server(address, env_url))
        return _Place(address, address, env_server is None)
    if server is not None:
        return _named(env, server, is_of_variables=env_url is None and server == env_server)
    if env_url is not None:
        address = require_url(env_url, "FILESTORED_URL")
        return _Place(address, address, takes_variable=True)
    if env_server is not None:
        return _named(env, env_server, is_of_variables=True)
    servers = read_servers(servers_file(env))
    if servers.default is not None:
        return _named(env, servers.default, is_of_variables=False)
    return _Place(DEFAULT_URL, DEFAULT_URL, takes_variable=True)


def _named(env: Mapping[str, str], name: str, *, is_of_variables: bool) -> _Place:
    servers = read_servers(servers_file(env))
    server = servers.find(name)
    return _Place(server.url, f"the server {name}", is_of_variables, server, servers.warning)


def _is_same_server(one: str, other: str) -> bool:
    """Tell whether two addresses are of one server: the same scheme, host and port (RFC 6454, 4)."""
    ports = {"http": 80, "https": 443}
    try:
        first, second = (
            (url.scheme, url.hostname, url.port or ports.get(url.scheme)) for url in map(urlsplit, (one, other))
        )
    except ValueError:
        return False
    return first == second


def require_url(url: str, said_by: str) -> str:
    """Return the address of a server without a slash at its end. Raises SettingsError where it is none.

    One with a password in it is refused, since addresses are shown, logged and passed on.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise SettingsError(f"{said_by} {shown(url[:200])}: it must be an address such as https://files.example")
    if parts.username is not None:
        raise SettingsError(f"{said_by}: the address has a user name or password in it; give a token with --token-file")
    return url.rstrip("/")


def require_token(token: str, said_by: str) -> str:
    """Return a token. Raises SettingsError, without the token, where it cannot be one."""
    if not _TOKEN.fullmatch(token):
        raise SettingsError(f"{said_by}: this is no token: a token is one word of visible ASCII characters")
    return token


def read_token(path: Path) -> str:
    """Return the token in a file. Raises SettingsError where it cannot be read or holds none."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            text = file.read(8192).decode("ascii", "replace").strip()
    except OSError as error:
        raise SettingsError(f"the token's file {shown(str(path))}: {error.strerror or error}") from None
    return require_token(text, f"the token's file {shown(str(path))}")


def require_name(name: str) -> str:
    """Return a server's name. Raises SettingsError where it cannot be one."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{shown(name[:100])}: a server's name has 1 to 64 of the characters A-Z a-z 0-9 _ - "
            "and begins with a letter or digit"
        )
    return name


def read_servers(path: Path) -> Servers:
    """Read the configuration; a file that is not there names no server. Raises SettingsError where it is wrong."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            table = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return Servers(path, None, {})
    except OSError as error:
        raise SettingsError(f"{shown(str(path))}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{shown(str(path))}: it is not valid TOML: {shown(str(error))}") from None
    return _judge(path, table, mode)


def _judge(path: Path, table: Mapping[str, Any], mode: int) -> Servers:
    _require_keys(path, "", table, ("default", "servers"))
    sections = table.get("servers", {})
    if not isinstance(sections, dict):
        raise SettingsError(f"{shown(str(path))}: servers must be tables: [servers.NAME]")
    by_name = {name: _judge_server(path, name, section) for name, section in sections.items()}
    default = table.get("default")
    if default is not None and (not isinstance(default, str) or default not in by_name):
        raise SettingsError(f"{shown(str(path))}: there is no server {shown(str(default)[:100])}, which default names")
    has_token = any(server.token for server in by_name.values())
    warning = None
    if has_token and mode & _READABLE_BY_OTHERS:
        warning = f"others can read the tokens in {shown(str(path))}: chmod 600 it"
    return Servers(path, default, by_name, warning)


def _judge_server(path: Path, name: str, section: object) -> Server:
    place = f"{shown(str(path))}: [servers.{shown(name[:100])}]"
    require_name(name)
    if not isinstance(section, dict) or not all(isinstance(value, str) for value in section.values()):
        raise SettingsError(f"{place} must be a table of texts: url, token, token_file, ca_file")
    _require_keys(path, f"servers.{name}.", section, _KEYS)
    if "url" not in section:
        raise SettingsError(f"{place} has no url")
    if "token" in section and "token_file" in section:
        raise SettingsError(f"{place} has both token and token_file; one is enough")
    token = section.get("token")
    return Server(
        name,
        require_url(section["url"], f"{place} url"),
        None if token is None else require_token(token, f"{place} token"),
        _beside(path, section.get("token_file")),
        _beside(path, section.get("ca_file")),
    )


def _require_keys(path: Path, before: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{shown(str(path))}: there is no setting {shown((before + key)[:100])}{hint}")


def _beside(file: Path, value: str | None) -> Path | None:
    """Make a path of the configuration relative to it, so that it means the same from every folder."""
    return None if value is None else file.parent / os.path.expanduser(value)


def add_server(path: Path, server: Server, *, is_default: bool) -> None:
    """Add a server, or put it in place of the one with its name. Raises SettingsError."""
    import tomlkit

    said = {
        "url": server.url,
        "token": server.token,
        "token_file": None if server.token_file is None else str(server.token_file),
        "ca_file": None if server.ca_file is None else str(server.ca_file),
    }

    def change(document: "TOMLDocument") -> None:
        if is_default:
            document["default"] = server.name
        if "servers" not in document:
            document["servers"] = tomlkit.table(is_super_table=True)
        if server.name not in document["servers"]:
            document["servers"][server.name] = tomlkit.table()
        section = document["servers"][server.name]
        for key, value in said.items():
            # in its place, so that the comments beside it stay
            if value is not None:
                section[key] = value
            elif key in section:
                del section[key]

    _rewrite(path, change)


def remove_server(path: Path, name: str) -> None:
    """Forget a server, and that it was the default. Raises SettingsError where there is none of that name."""

    def change(document: "TOMLDocument") -> None:
        read_servers(path).find(name)
        del document["servers"][name]
        if document.get("default") == name:
            del document["default"]

    _rewrite(path, change)


def set_default(path: Path, name: str) -> None:
    """Have a server asked where nothing names another. Raises SettingsError where there is none of that name."""

    def change(document: "TOMLDocument") -> None:
        read_servers(path).find(name)
        document["default"] = name

    _rewrite(path, change)


def _rewrite(path: Path, change: Callable[["TOMLDocument"], None]) -> None:
    """Change the file at once and whole, its comments kept; only its owner may read it."""
    import tomlkit

    read_servers(path)
    # a file that is a link to another place stays one
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
            change(document)
            _replace(path, tomlkit.dumps(document))
    except OSError as error:
        raise SettingsError(f"{shown(str(path))}: {error.strerror or error}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other commands from changing the file meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    # mkstemp makes files that only their owner may read
    handle, name = tempfile.mkstemp(prefix=".servers.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
