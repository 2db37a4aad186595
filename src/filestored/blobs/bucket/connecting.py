"""Connections to a bucket: the same one by several clocks, since some requests must not wait as long as others."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.faults import VARIABLES
from filestored.errors import StartError
from filestored.webaddress import split_address

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    ObjectStore = S3Store | GCSStore | AzureStore

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SENT = {
    "s3": (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ),
    "gs": (),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_CLIENT_ID",
        "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
    ),
}  # fmt: skip
_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CONNECT_SECONDS = 3.0
# a number of retries that time bounds: ten of them may be over within two seconds
_RETRIES = 1000


class Clock(NamedTuple):
    """How long one request may take, and until when a failed one is sent again, both in seconds from the beginning.

    ``request`` None lets it take as long as bytes come.
    """

    request: float | None
    retries: float


LOOK = Clock(3.0, 0.9)
"""For looking at blobs inside a transaction: 3.9 s in all."""

READ = Clock(8.0, 6.0)
"""For what a client waits for that has no answer yet: 14 s in all."""

STREAM = Clock(None, 6.0)
"""For bodies that clients take at their own speed."""

WRITE = Clock(25.0, 10.0)
"""For what puts: 35 s in all for each part of a body."""

REMOVE = Clock(12.0, 0.0)
"""For removing: sent once, so that nothing of it happens after its answer."""

_STALLED_SECONDS = 10.0


def connect(address: BucketAddress, clock: Clock) -> "ObjectStore":
    """Return a connection to a bucket; nothing is asked yet. Raises StartError where what is given cannot be right."""
    from obstore import store
    from obstore.exceptions import BaseError

    _require_sound(address, os.environ)
    endpoint = endpoint_of(address, os.environ)
    options: dict[str, Any] = {
        "client_options": _client_options(clock, may_be_plain=(endpoint or "").startswith("http://")),
        "retry_config": _retries(clock),
    }
    try:
        if address.scheme == "s3":
            return store.S3Store(address.bucket, **_s3(address, endpoint), **options)
        if address.scheme == "gs":
            return store.GCSStore(address.bucket, **(options | ({"base_url": endpoint} if endpoint else {})))
        return store.AzureStore(address.bucket, **(options | ({"endpoint": endpoint} if endpoint else {})))
    except (BaseError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).partition(" error: ")
        hint = f"look at {VARIABLES[address.scheme]}"
        raise StartError(f"the bucket {address} cannot be used: {reason[2] or reason[0]}; {hint}") from error


def _require_sound(address: BucketAddress, env: Mapping[str, str]) -> None:
    """Raise StartError where a variable has what no request may have: the library would end the program.

    A line's end most of all, which is encoded with the rest where somebody leaves ``-n`` out.
    """
    for name in _SENT[address.scheme]:
        if env.get(name) and not _VISIBLE.fullmatch(env[name]):
            raise StartError(f"{name} must be visible ASCII characters without spaces; is there a line's end in it?")
    for name in _ENDPOINTS[address.scheme]:
        if address.endpoint is None and env.get(name):
            try:
                split_address(env[name])
            except ValueError as error:
                reason = ascii(str(error))[1:-1]
                raise StartError(f"{name} must be http://HOST:PORT or https://HOST:PORT: {reason}") from None


def endpoint_of(address: BucketAddress, env: Mapping[str, str]) -> str | None:
    """Return where the engine is, by the settings or the usual variables; None for the provider's own address."""
    return address.endpoint or next((env[name] for name in _ENDPOINTS[address.scheme] if env.get(name)), None)


def _s3(address: BucketAddress, endpoint: str | None) -> dict[str, Any]:
    """Return how a bucket of S3 is reached."""
    # a certificate for *.host does not cover a name with dots before it
    by_path = (endpoint is not None or "." in address.bucket) if address.path_style is None else address.path_style
    if endpoint is not None and not by_path:
        parts = urlsplit(endpoint)
        endpoint = f"{parts.scheme}://{address.bucket}.{parts.netloc}{parts.path}"
    region = address.region or next((os.environ[name] for name in _REGIONS if os.environ.get(name)), None)
    given = {"endpoint": endpoint, "region": region}
    return {
        # one object a request: what a request for many has removed cannot be told where its answer is lost
        "disable_bulk_delete": True,
        "virtual_hosted_style_request": not by_path,
        **{name: value for name, value in given.items() if value},
    }


def _client_options(clock: Clock, *, may_be_plain: bool) -> dict[str, Any]:
    options = {"allow_http": may_be_plain, "connect_timeout": _seconds(min(_CONNECT_SECONDS, clock.request or 99.0))}
    if clock.request is None:
        return {**options, "timeout": timedelta(days=7), "read_timeout": _seconds(_STALLED_SECONDS)}
    return {**options, "timeout": _seconds(clock.request)}


def _retries(clock: Clock) -> dict[str, Any]:
    backoff = {"init_backoff": _seconds(0.1), "max_backoff": _seconds(2.0), "base": 2}
    return {
        "max_retries": _RETRIES if clock.retries else 0, "retry_timeout": _seconds(clock.retries), "backoff": backoff
    }  # fmt: skip


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
