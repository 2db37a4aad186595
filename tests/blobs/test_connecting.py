"""How a bucket is reached, from what the settings and the usual variables say."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.connecting import READ, connect, endpoint_of
from filestored.errors import StartError

VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *KEYS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "endpoint", "by_path"),
    [
        (BucketAddress("s3", "bucket"), None, False),
        (BucketAddress("s3", "with.dots"), None, True),
        (BucketAddress("s3", "bucket", path_style=True), None, True),
        (BucketAddress("s3", "bucket", endpoint="http://host:1"), "http://host:1", True),
        (BucketAddress("s3", "bucket", endpoint="https://host/x", path_style=False), "https://bucket.host/x", False),
    ],
)
def test_a_bucket_is_in_the_path_or_in_the_hosts_name(
    address: BucketAddress, endpoint: str | None, by_path: bool
) -> None:
    config = dict(connect(address, READ).config)
    assert config.get("endpoint") == endpoint
    assert config["virtual_hosted_style_request"] is not by_path


def test_the_settings_go_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    address = BucketAddress("s3", "bucket")
    assert endpoint_of(address, {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}) == "http://b"
    assert endpoint_of(address, {"AWS_ENDPOINT_URL": "http://a"}) == "http://a"
    assert endpoint_of(BucketAddress("gs", "bucket"), {"AWS_ENDPOINT_URL": "http://a"}) is None
    given = BucketAddress("s3", "bucket", endpoint="http://c", region="r")
    assert endpoint_of(given, {"AWS_ENDPOINT_URL": "http://a"}) == "http://c"
    monkeypatch.setenv("AWS_REGION", "other")
    assert dict(connect(given, READ).config)["region"] == "r"
    assert dict(connect(address, READ).config)["region"] == "other"


@pytest.mark.parametrize(("endpoint", "is_plain"), [("http://host:1", True), ("https://host:1", False)])
def test_only_an_endpoint_that_says_so_is_asked_without_encryption(endpoint: str, is_plain: bool) -> None:
    options = dict(connect(BucketAddress("s3", "bucket", endpoint=endpoint), READ).client_options or {})
    assert str(options["allow_http"]).lower() == str(is_plain).lower()


def test_an_account_that_is_not_named_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StartError, match="look at AZURE_STORAGE_ACCOUNT_NAME"):
        connect(BucketAddress("az", "container"), READ)


@pytest.mark.parametrize("scheme", ["s3", "az"])
@pytest.mark.parametrize("text", ["nonsense", "http://:::", "http://host:99999", "http://u:pw@host", "http://host:1\n"])
def test_a_variable_that_is_no_address_is_one_line(scheme: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT"}[scheme]
    monkeypatch.setenv(name, text)
    with pytest.raises(StartError, match=f"{name} must be http://HOST:PORT") as caught:
        connect(BucketAddress(scheme, "bucket"), READ)
    assert str(caught.value).isprintable()
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("name", [*KEYS, "AWS_REGION", "AWS_DEFAULT_REGION"])
@pytest.mark.parametrize("text", ["test\n", "us\neast", "a b", "\u043a"])
def test_a_variable_that_no_request_may_carry_is_one_line(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(StartError, match=f"{name} must be visible ASCII") as caught:
        connect(BucketAddress("s3", "bucket"), READ)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("flags", "env", "status"),
    [
        (["--bucket-endpoint", "http://127.0.0.1:99999"], {}, 2),
        ([], {"AWS_ENDPOINT_URL": "nonsense"}, 1),
        (["--bucket-endpoint", "http://127.0.0.1:1"], {"AWS_ACCESS_KEY_ID": "test:tester\n"}, 1),
    ],
)
def test_a_daemon_says_so_in_one_line(tmp_path: Path, flags: list[str], env: dict[str, str], status: int) -> None:
    spool = str(tmp_path / "spool")
    command = [sys.executable, "-m", "filestored", "run", "--store", "s3://bucket/x", "--spool", spool]
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r", **env}
    ended = subprocess.run(
        [*command, "--port", "0", *flags], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )
    assert ended.returncode == status, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "panic" not in ended.stderr


def test_a_start_ends_at_once_though_the_bucket_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = "http://{}:{}".format(*silent.getsockname())
        command = [
            sys.executable,
            "-m",
            "filestored",
            "run",
            "--store",
            "s3://bucket/x",
            "--spool",
            str(tmp_path / "s"),
        ]
        variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r"}
        with subprocess.Popen(
            [*command, "--port", "0", "--bucket-endpoint", endpoint],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **variables},
        ) as daemon:  # fmt: skip
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                daemon.terminate()
                _, said = daemon.communicate(timeout=60)
    # who had waited for the bucket would have said that it does not answer
    assert (daemon.returncode, said) == (0, "")
