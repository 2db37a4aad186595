"""How a bucket is reached, from what the settings and the usual variables say."""

import pytest

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.connecting import READ, connect, endpoint_of
from filestored.errors import StartError

VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
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
