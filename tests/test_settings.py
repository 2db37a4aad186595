"""Layers, origins and faults of the settings."""

import pickle
import re
from pathlib import Path

import pytest

from filestored.access import Anonymous
from filestored.blobs.address import BucketAddress
from filestored.digest import Algorithm
from filestored.errors import SettingsError
from filestored.settings import describe_all, find_store, load

ROOT = Path(__file__).parent.parent


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(tmp_path: Path) -> None:
    file = _write(tmp_path / "f.toml", 'port = 1\nlisten = 1\nlog = "debug"\n')
    env = {"FILESTORED_PORT": "2", "FILESTORED_LISTEN": "2", "FILESTORED_CONFIG": file}
    loaded = load({"port": "3", "host": None}, env)
    settings = loaded.settings
    assert (settings.port, settings.listen, settings.log, settings.host) == (3, 2, "debug", "0.0.0.0")
    assert {name: loaded.origins[name] for name in ("port", "listen", "log", "host")} == {
        "port": "flag", "listen": "variable FILESTORED_LISTEN", "log": f"file {file}", "host": "default",
    }  # fmt: skip


def test_every_default_is_what_an_operator_could_have_written() -> None:
    written = {setting.name: setting.default for setting in describe_all()}
    assert load(written, {}).settings == load({}, {}).settings


def test_every_value_is_spelled_so_that_it_reads_back_the_same(tmp_path: Path) -> None:
    pem = _write(tmp_path / "x.pem", "")
    given = {
        "host": "::1", "port": "0", "store": "s3://bucket/a/b", "spool": "else", "bucket_endpoint": "http://[::1]:9000",
        "bucket_region": "eu-west-1", "bucket_path_style": "no", "hash": "md5", "workers": "3", "log": "trace",
        "log_format": "json", "log_file": "x.log", "listen": "7", "buffer": "1MiB", "catalogue": "sqlite:///a/b.db",
        "anonymous": "none", "durability": "relaxed", "tls_cert": pem, "tls_key": pem, "cache_control": "no-store",
        "max_upload_size": "1.5GB", "min_free_space": "0", "max_uploads": "none", "max_uploads_per_client": "4",
        "header_timeout": "0.5", "body_timeout": "90", "upload_expiry": "7d", "send_timeout": "1h",
        "http2": "always", "trusted_proxy": "10.0.0.0/8,::1", "cors_origin": "https://a.example,http://localhost:3000",
        "redirect_downloads": "1MiB", "accel_redirect": "/stored",
        "stop_delay": "15s", "peer_url": "https://[2001:db8::1]:9000", "config": _write(tmp_path / "f.toml", ""),
    }  # fmt: skip
    settings = load(given, {}).settings
    assert set(given) == {setting.name for setting in describe_all()}
    assert load({name: settings.spelled(name) for name in given}, {}).settings == settings
    assert load({}, {}).settings.model_dump() != settings.model_dump()
    assert not [name for name in given if getattr(settings, name) == getattr(load({}, {}).settings, name)]


def test_values_have_the_units_the_code_counts_in() -> None:
    settings = load({"buffer": "1MiB", "send_timeout": "2m", "hash": "BLAKE3", "anonymous": "read"}, {}).settings
    assert (settings.buffer, settings.send_timeout) == (1 << 20, 120.0)
    assert (settings.hash, settings.anonymous) == (Algorithm.BLAKE3, Anonymous.READ)
    assert (settings.max_upload_size, settings.min_free_space, settings.max_uploads) == (None, 64 << 20, 512)


def test_the_file_takes_dashes_and_underscores_and_numbers(tmp_path: Path) -> None:
    file = _write(tmp_path / "f.toml", "max-uploads = 7\nbody_timeout = 1.5\nbuffer = 8192\n")
    settings = load({"config": file}, {}).settings
    assert (settings.max_uploads, settings.body_timeout, settings.buffer) == (7, 1.5, 8192)


def test_paths_are_absolute_and_those_of_the_file_begin_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "here").mkdir()
    file = _write(tmp_path / "etc" / "f.toml", 'store = "files"\ncatalogue = "sqlite:///names.db"\nlog-file = "none"\n')
    monkeypatch.chdir(tmp_path / "here")
    beside = load({"config": file}, {}).settings
    assert beside.store == tmp_path / "etc" / "files"
    assert beside.catalogue_address == tmp_path / "etc" / "names.db"
    assert beside.log_file is None
    assert load({"store": "../x"}, {}).settings.store == tmp_path / "x"
    assert load({}, {}).settings.store == tmp_path / "here" / "store"


def test_addresses_that_are_in_order_are_taken() -> None:
    for endpoint in (
        "http://127.0.0.1:10000/devstoreaccount1",
        "https://s3.example",
        "http://[::1]:1",
        "http://a_b:65535",
    ):
        assert load({"bucket_endpoint": endpoint}, {}).settings.bucket_endpoint == endpoint
    for url in ("http://host", "https://[2001:db8::1]:9000", "http://192.0.2.1:1", "http://xn--e1afmkfd.example:80"):
        assert load({"peer_url": url}, {}).settings.peer_url == url


@pytest.mark.parametrize("text", ["0.0", "0", '"0s"', '"0"'])
def test_no_delay_is_spelled_in_every_way(tmp_path: Path, text: str) -> None:
    file = _write(tmp_path / "f.toml", f"stop-delay = {text}\n")
    assert load({"config": file}, {}).settings.stop_delay == 0.0


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = load({"port": "1", "hash": "sha1"}, {}).settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({}, {"FILESTORED_PORT": ""}).origins["port"] == "default"


def test_an_unknown_variable_is_a_warning_and_those_of_the_client_are_known() -> None:
    env = {"FILESTORED_HSOT": "x", "FILESTORED_TOKEN": "x", "FILESTORED_URL": "x", "OTHER": "x"}
    (warning,) = load({}, env).warnings
    assert "FILESTORED_HSOT" in warning
    assert "FILESTORED_HOST?" in warning


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", "65536", "from 0 to 65535"),
        ("port", "-1", "from 0 to 65535"),
        ("port", "١", "from 0 to 65535"),
        ("port", "", "from 0 to 65535"),
        ("workers", "0", "from 1 to 64, or auto"),
        ("log", "loud", "trace, debug, info"),
        ("hash", "crc32", "sha256, md5"),
        ("buffer", "1KiB", "from 4KiB to 16MiB"),
        ("buffer", "lots", "size"),
        ("max_upload_size", "-1", "none"),
        ("body_timeout", "0", "more than 0"),
        ("send_timeout", "soon", "units s, m, h, d, w"),
        ("store", "ftp://host/x", "a local folder or a bucket"),
        ("store", "s3://", "s3://BUCKET/PREFIX"),
        ("store", "s3:/bucket", "s3://BUCKET/PREFIX"),
        ("store", "S3://bucket", "s3://BUCKET/PREFIX"),
        ("store", "s3://user:secret@host/x", "s3://BUCKET/PREFIX"),
        ("store", "gs://bucket/a//b", "single slashes"),
        ("store", "az://container/../b", "single slashes"),
        ("store", "s3://bucket/x?versions", "without ?"),
        ("spool", "s3://bucket/x", "a local folder"),
        ("bucket_endpoint", "host:9000", "http://HOST:PORT"),
        ("bucket_endpoint", "http://127.0.0.1:99999", "http://HOST:PORT"),
        ("bucket_endpoint", "http://host:0", "from 1 to 65535"),
        ("bucket_endpoint", "http://host:", "from 1 to 65535"),
        ("bucket_endpoint", "http://:::", "http://HOST:PORT"),
        ("bucket_endpoint", "http://", "http://HOST:PORT"),
        ("bucket_endpoint", "http://[x]:1/a", "http://HOST:PORT"),
        ("bucket_endpoint", "http://[::1]:1/a?b=c#d", "plain path"),
        ("bucket_endpoint", "http://h:1/u:secretpw@", "plain path"),
        ("bucket_endpoint", "http://u:pw@h", "plain path"),
        ("bucket_endpoint", "http://1.2.3.400:1", "http://HOST:PORT"),
        ("bucket_endpoint", "http://xn--zzzzzzz99999999:1", "http://HOST:PORT"),
        ("bucket_region", "a\nb", "visible ASCII"),
        ("bucket_region", "a b c", "visible ASCII"),
        ("peer_url", "http://host:99999", "http://HOST:PORT"),
        ("peer_url", "http://[::::]:1", "http://HOST:PORT"),
        ("peer_url", "http://...:80", "http://HOST:PORT"),
        ("peer_url", "http://0.0.0.0:80", "of this machine alone"),
        ("peer_url", "http://[::]:80", "of this machine alone"),
        ("peer_url", "http://host:80/x", "of this machine alone"),
        ("peer_url", "host:80", "http://HOST:PORT"),
        ("accel_redirect", "/a/../b", "a path such as /stored"),
        ("accel_redirect", "/a/./b", "a path such as /stored"),
        ("bucket_path_style", "maybe", "auto, yes, no"),
        ("catalogue", "postgresql+psycopg://x/y", "postgresql://USER"),
        ("catalogue", "names.db", "sqlite:///PATH"),
        ("cache_control", "a\nb", "visible ASCII"),
        ("cache_control", "привет", "visible ASCII"),
        ("tls_cert", "/no/such/file", "can be read"),
        ("config", "/no/such/file", "No such file"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_flag_or_variable_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    for given in ({"flags": {name: value}, "env": {}}, {"flags": {}, "env": {f"FILESTORED_{name.upper()}": value}}):
        if not value and given["env"]:
            continue
        with pytest.raises(SettingsError) as caught:
            load(given["flags"], given["env"])
        text = str(caught.value)
        assert allowed in text
        assert text.isprintable()
        assert text.startswith(f"--{name.replace('_', '-')} " if given["flags"] else f"FILESTORED_{name.upper()}=")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prot = 1", "did you mean port?"),
        ("max_uplods = 1", "did you mean max-uploads?"),
        ("config = 'x'", "no setting config"),
        ("[server]\nport = 1", "no setting server"),
        ("port = true", "from 0 to 65535"),
        ("port = [1]", "from 0 to 65535"),
        ("max-uploads = 1\nmax_uploads = 2", "given twice"),
        ("port = ", "not valid TOML"),
        ("buffer = 1.5", "size"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_the_file(tmp_path: Path, text: str, reason: str) -> None:
    file = _write(tmp_path / "f.toml", text)
    with pytest.raises(SettingsError) as caught:
        load({"config": file}, {})
    assert str(caught.value).startswith(file)
    assert reason in str(caught.value)


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    pem = _write(tmp_path / "x.pem", "")
    with pytest.raises(SettingsError, match="--tls-key is not given"):
        load({"tls_cert": pem}, {})
    with pytest.raises(SettingsError, match="--tls-cert is not given"):
        load({"tls_key": pem}, {})


def test_the_store_is_found_whatever_else_is_wrong(tmp_path: Path) -> None:
    file = _write(tmp_path / "f.toml", 'store = "files"\nport = "wrong"\nnonsense = 1\n')
    assert find_store({"config": file}, {"FILESTORED_LOG": "wrong"}) == tmp_path / "files"


def test_a_bucket_is_known_with_how_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"store": "s3://bucket/a/", "bucket_endpoint": "http://host:1/", "bucket_region": "x"}
    settings = load(flags, {}).settings
    assert settings.bucket == BucketAddress("s3", "bucket", "a", "http://host:1", "x", None)
    assert (str(settings.bucket), settings.folder) == ("s3://bucket/a", tmp_path / "spool")
    assert load({"store": "x"}, {}).settings.bucket is None
    for path_style, by_path in (("yes", True), ("no", False)):
        bucket = load({"store": "az://bucket", "bucket_path_style": path_style}, {}).settings.bucket
        assert bucket is not None
        assert bucket.path_style is by_path


def test_the_local_folder_is_the_store_or_a_buckets_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_store({}, {}) == tmp_path / "store"
    assert find_store({"store": "gs://bucket"}, {}) == tmp_path / "spool"
    assert find_store({"store": "gs://bucket", "spool": "x"}, {}) == tmp_path / "x"
    assert find_store({"spool": "x"}, {}) == tmp_path / "x"
    assert find_store({"store": "files", "spool": "x"}, {}) == tmp_path / "files"
    assert find_store({}, {"FILESTORED_STORE": "s3://bucket", "FILESTORED_SPOOL": "y"}) == tmp_path / "y"


def test_the_documentation_has_every_setting_as_it_is() -> None:
    rows = [
        f"| `{s.flag}` | `{s.variable}` | `{s.default}` | {s.meaning.replace('|', chr(92) + '|')} |"
        for s in describe_all()
    ]
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert re.findall(r"^\| `--.*\|$", text, re.MULTILINE) == rows
