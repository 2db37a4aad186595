"""Everything an operator chooses: one line a setting.

Flags, ``FILESTORED_*`` variables, keys of the TOML file, ``--help``, ``filestored config`` and the table in
``docs/configuration.md`` all come from the fields of :class:`Settings`.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from filestored.blobs.address import BucketAddress
from filestored.catalogue.address import Address, PostgresAddress, without_password
from filestored.errors import SettingsError
from filestored.kinds import (
    NONE,
    SQLITE,
    Backlog,
    Buffer,
    CatalogueUrl,
    Count,
    Delay,
    Endpoint,
    Flushing,
    Folder,
    Format,
    Grant,
    Hashing,
    Http2Use,
    Kind,
    Level,
    Naming,
    Networks,
    OptionalFile,
    OptionalSize,
    Origins,
    PathPrefix,
    PeerUrl,
    Place,
    Port,
    ReadableFile,
    Redirects,
    Region,
    Seconds,
    Size,
    Text,
    Workers,
)

PREFIX = "FILESTORED_"
"""What the name of every variable begins with."""

_COPY_VARIABLES = frozenset({"FILESTORED_FROM_TOKEN", "FILESTORED_TO_TOKEN"})
_CLIENT_VARIABLES = frozenset({"FILESTORED_URL", "FILESTORED_SERVER", "FILESTORED_TOKEN"} | _COPY_VARIABLES)


def _setting(default: str, meaning: str) -> Any:
    """Declare a setting; ``default`` is spelled as an operator would spell it."""
    return Field(default=default, description=meaning, validate_default=True)


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The settings in force: sizes in bytes, times in seconds, paths absolute. Made by :func:`load`."""

    host: Text = _setting("0.0.0.0", "address to listen on")  # noqa: S104
    port: Port = _setting("9000", "port to listen on; 0 picks a free one")
    store: Place = _setting("./store", "folder or bucket the files are stored in: s3://BUCKET/PREFIX, gs://… or az://…")
    spool: Folder = _setting("./spool", "folder for what is under way, where the store is a bucket")
    bucket_endpoint: Endpoint = _setting(NONE, "address of the bucket's engine; none is the provider's own")
    bucket_region: Region = _setting(NONE, "region of the bucket; none is that of the environment")
    bucket_path_style: Naming = _setting("auto", "whether the path names the bucket; auto where an endpoint is given")
    hash: Hashing = _setting("sha256", "hash function that names new files")
    workers: Workers = _setting("auto", "worker processes; auto is one a usable CPU, at most 4")
    log: Level = _setting("info", "least serious log lines to write; each request is one line at info")
    log_format: Format = _setting("text", "format of log lines")
    log_file: OptionalFile = _setting(NONE, "file to log to, rotated at 10MiB; none is standard error")
    listen: Backlog = _setting("1024", "length of the queue of clients waiting to connect; below 128 means 128")
    buffer: Buffer = _setting("256KiB", "bytes read or written at a time, from 4KiB to 16MiB")
    catalogue: CatalogueUrl = _setting(
        NONE, "sqlite:///PATH or postgresql://… of the catalogue; none keeps it inside the store"
    )
    anonymous: Grant = _setting("loopback", "what requests without a token may do")
    trusted_proxy: Networks = _setting(NONE, "addresses of proxies whose X-Forwarded-* headers are believed")
    cors_origin: Origins = _setting(NONE, "origins whose pages may use the server from a browser; * is all")
    durability: Flushing = _setting("full", "full makes an answered upload survive a power cut; relaxed does not")
    tls_cert: ReadableFile = _setting(NONE, "certificate chain (PEM); switches TLS on")
    tls_key: ReadableFile = _setting(NONE, "private key of the certificate (PEM, without a passphrase)")
    http2: Http2Use = _setting(
        "tls", "tls takes HTTP/2 over TLS only; always also without, at 12 KiB more for each idle connection"
    )
    cache_control: Text = _setting("private, max-age=31536000, immutable", "Cache-Control of downloads")
    redirect_downloads: Redirects = _setting(
        NONE,
        "yes sends downloads of more than 64KiB, or a size of more than that, to presigned addresses of the bucket",
    )
    accel_redirect: PathPrefix = _setting(
        NONE, "path of nginx that is the store's folder; for --trusted-proxy, nginx sends the files (X-Accel-Redirect)"
    )
    max_upload_size: OptionalSize = _setting(NONE, "largest upload taken")
    min_free_space: Size = _setting("64MiB", "space that uploads leave free on the disk")
    max_uploads: Count = _setting("512", "uploads under way at once")
    max_uploads_per_client: Count = _setting(NONE, "uploads under way at once from one address")
    header_timeout: Seconds = _setting("30s", "longest wait for the header of a request")
    body_timeout: Seconds = _setting("30s", "longest wait for the next byte of an upload")
    upload_expiry: Seconds = _setting("24h", "how long an unfinished resumable upload is kept after its last byte")
    send_timeout: Seconds = _setting("60s", "longest wait for a client to take the next byte")
    stop_delay: Delay = _setting("0s", "how long /readyz says that it stops, while all is served, before it does")
    peer_url: PeerUrl = _setting(
        "auto", "address for the other daemons of a cluster; auto is that by which the database is reached"
    )
    config: OptionalFile = _setting(NONE, "TOML file with settings, its keys named like the flags")

    @model_validator(mode="after")
    def _require_whole_certificate(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            absent = "--tls-key" if self.tls_key is None else "--tls-cert"
            raise ValueError(f"{absent} is not given, but --tls-cert and --tls-key belong together")
        return self

    @property
    def bucket(self) -> BucketAddress | None:
        """The bucket the files are stored in, and how it is reached; None where that is a folder."""
        if isinstance(self.store, Path):
            return None
        by_path = {"yes": True, "no": False}.get(self.bucket_path_style)
        return replace(self.store, endpoint=self.bucket_endpoint, region=self.bucket_region, path_style=by_path)

    @property
    def folder(self) -> Path:
        """The local folder: the store itself, or the spool of a bucket. A daemon on this machine is found by it.

        Whoever names a spool alone means that.
        """
        if isinstance(self.store, Path) and ("store" in self.model_fields_set or "spool" not in self.model_fields_set):
            return self.store
        return self.spool

    @property
    def catalogue_address(self) -> Address | None:
        """Where the catalogue is, if not inside the store."""
        if self.catalogue is None:
            return None
        if self.catalogue.startswith(SQLITE):
            return Path(self.catalogue.removeprefix(SQLITE))
        return PostgresAddress(self.catalogue)

    def spelled(self, name: str) -> str:
        """Return a setting's value as an operator would write it. A password may be in it."""
        value = getattr(self, name)
        return NONE if value is None else describe(name).kind.spell(value)

    def shown(self, name: str) -> str:
        """Return a setting's value as anybody may see it."""
        return without_password(self.spelled(name)) if describe(name).kind.has_secret else self.spelled(name)


class Description(NamedTuple):
    """What there is to say of a setting: the source of flags, help and documentation."""

    name: str
    default: str
    meaning: str
    kind: Kind

    @property
    def flag(self) -> str:
        """The long option: ``--max-uploads``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable: ``FILESTORED_MAX_UPLOADS``."""
        return PREFIX + self.name.upper()


def describe(name: str) -> Description:
    """Describe one setting, by the name of its field."""
    field = Settings.model_fields[name]
    kind = next(item for item in field.metadata if isinstance(item, Kind))
    return Description(name, field.default, field.description or "", kind)


def describe_all() -> list[Description]:
    """Describe every setting, in the order of their declaration."""
    return [describe(name) for name in Settings.model_fields]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from, and what the operator should be told.

    ``origins`` holds ``default``, ``flag``, ``variable FILESTORED_PORT`` or ``file /etc/filestored.toml``.
    """

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()


class _Given(NamedTuple):
    value: object
    origin: str
    place: str


def load(flags: Mapping[str, object], env: Mapping[str, str]) -> Loaded:
    """Read the settings: a flag goes before a variable, a variable before the file, the file before the default.

    ``flags`` has the names of fields; None means not given. An empty variable counts as not set. Raises
    SettingsError with one line that names the flag, variable or key, and what is allowed.
    """
    given = _gather(flags, env)
    settings = _validate(given)
    origins = {name: given[name].origin if name in given else "default" for name in Settings.model_fields}
    return Loaded(settings, origins, tuple(_unknown_variables(env)))


def load_what_is_right(flags: Mapping[str, object], env: Mapping[str, str]) -> tuple[Loaded, dict[str, str]]:
    """Return settings as :func:`load`, those that are wrong at their defaults; and what is wrong, by their names.

    The name is ``config`` for a settings file that cannot be read as a whole, and for a key there that is none.
    """
    wrong: dict[str, str] = {}
    if reason := _why_wrong(None, flags, env):
        if file_reason := _why_wrong((), flags, env):
            wrong["config"] = file_reason
            flags, env = {**flags, "config": None}, {**env, describe("config").variable: ""}
        certificate = ("tls_cert", "tls_key")
        for names in [certificate, *((name,) for name in Settings.model_fields if name not in certificate)]:
            if found := _why_wrong(names, flags, env):
                wrong |= dict.fromkeys(names, found)
        wrong = wrong or {"config": reason}
    right = [name for name in Settings.model_fields if name not in wrong]
    given = _gather(flags, env, only=right)
    origins = {name: given[name].origin if name in given else "default" for name in Settings.model_fields}
    return Loaded(_validate(given), origins, tuple(_unknown_variables(env))), wrong


def _why_wrong(names: Collection[str] | None, flags: Mapping[str, object], env: Mapping[str, str]) -> str:
    """Return what is wrong with some settings, or all; empty where nothing is."""
    try:
        _validate(_gather(flags, env, only=names))
    except SettingsError as error:
        return str(error)
    return ""


def find_store(flags: Mapping[str, object], env: Mapping[str, str]) -> Path:
    """Return the store's local folder alone, read like :func:`load` does.

    A mistake elsewhere must not keep a daemon from stopping.
    """
    return load_only(("store", "spool"), flags, env).folder


def load_only(names: Collection[str], flags: Mapping[str, object], env: Mapping[str, str]) -> Settings:
    """Return the settings with only some of them read, the others left at their defaults, wrong or not."""
    return _validate(_gather(flags, env, only=names))


def _gather(
    flags: Mapping[str, object], env: Mapping[str, str], only: Collection[str] | None = None
) -> dict[str, _Given]:
    """Return what was given for each setting, by the layer that goes first."""
    over: dict[str, _Given] = {}
    for setting in describe_all():
        name, variable = setting.name, setting.variable
        if flags.get(name) is not None:
            over[name] = _Given(flags[name], "flag", f"{setting.flag} {_shown(flags[name])}")
        elif env.get(variable):
            over[name] = _Given(env[variable], f"variable {variable}", f"{variable}={_shown(env[variable])}")
    config = _validate({"config": over["config"]}).config if "config" in over else None
    under = _read_file(config, over["config"], only) if config else {}
    given = {**under, **over}
    return {name: given[name] for name in given if only is None or name in only}


def _validate(given: Mapping[str, _Given]) -> Settings:
    try:
        return Settings.model_validate({name: item.value for name, item in given.items()})
    except ValidationError as error:
        fault = error.errors()[0]
        reason = str(fault.get("ctx", {}).get("error", fault["msg"]))
        name = str(fault["loc"][0]) if fault["loc"] else ""
        place = given[name].place if name in given else ""
        raise SettingsError(f"{place}: {reason}" if place else reason) from None


def _read_file(path: Path, named_by: _Given, only: Collection[str] | None) -> dict[str, _Given]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{named_by.place}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: it is not valid TOML: {error}") from None
    given: dict[str, _Given] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if only is not None and name not in only:
            continue
        if name == "config":
            raise SettingsError(f"{path}: there is no setting config in a settings file: it cannot name another one")
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: there is no setting {_shown(key)}{_nearest(name)}")
        if name in given:
            raise SettingsError(f"{path}: {_shown(key)} is given twice")
        given[name] = _Given(_beside(path, name, value), f"file {path}", f"{path}: {key} = {_shown(value)}")
    return given


def _beside(file: Path, name: str, value: object) -> object:
    """Make a path of the settings file relative to that file, so that it means the same from every folder."""
    if not describe(name).kind.is_path or not isinstance(value, str) or value == NONE:
        return value
    if value.startswith(SQLITE):
        return SQLITE + str(file.parent / Path(value.removeprefix(SQLITE)).expanduser())
    return value if "://" in value else str(file.parent / Path(value).expanduser())


def _nearest(name: str) -> str:
    near = get_close_matches(name, Settings.model_fields.keys() - {"config"}, 1)
    return f"; did you mean {near[0].replace('_', '-')}?" if near else ""


def _unknown_variables(env: Mapping[str, str]) -> Iterable[str]:
    known = _CLIENT_VARIABLES | {setting.variable for setting in describe_all()}
    for variable in sorted(env):
        if variable.startswith(PREFIX) and variable not in known:
            near = get_close_matches(variable, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"the variable {_shown(variable)} is not a setting and has no effect{hint}"


def _shown(value: object) -> str:
    text = value.value if isinstance(value, StrEnum) else without_password(str(value))
    return text if text.isprintable() and len(text) <= 200 else ascii(text[:200])
