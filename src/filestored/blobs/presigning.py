"""Addresses under which a bucket gives one object to whoever has them, for a while, without asking who it is."""

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from filestored.blobs.bucket.connecting import ObjectStore

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNATURE = "X-Amz-Signature"


def presign(store: "ObjectStore", key: str, seconds: float, headers: Mapping[str, str]) -> tuple[str, bool]:
    """Return an address that answers GET with an object, and whether its answers carry the headers asked for.

    ``headers`` is of ``content-type``, ``content-disposition`` and ``cache-control``. Only S3 can be asked for them,
    and only where the key it is asked with is that of the environment: the query that asks is signed too, which obstore
    does not do. May ask for credentials, and so block. Raises obstore's errors.
    """
    import obstore

    url = str(obstore.sign(store, "GET", key, timedelta(seconds=seconds)))
    secret = secret_of(url, os.environ)
    if secret is None:
        return url, False
    return sign_again(url, secret, {f"response-{name}": value for name, value in headers.items()}), True


def presign_removals(store: "ObjectStore", keys: Sequence[str], seconds: float) -> list[str]:
    """Return an address for each object at which one DELETE removes it; nothing where the credentials cannot sign.

    May ask for credentials, and so block.
    """
    import obstore
    from obstore.exceptions import BaseError

    try:
        return [str(url) for url in obstore.sign(store, "DELETE", list(keys), timedelta(seconds=seconds))]
    except (BaseError, ValueError):
        return []


def secret_of(url: str, env: Mapping[str, str]) -> str | None:
    """Return the secret that signed an address, where it is that of the environment."""
    query = dict(parse_qsl(urlsplit(url).query))
    key = query.get("X-Amz-Credential", "").partition("/")[0]
    return env.get("AWS_SECRET_ACCESS_KEY") if key and key == env.get("AWS_ACCESS_KEY_ID") else None


def sign_again(url: str, secret: str, added: Mapping[str, str]) -> str:
    """Return a signed address of S3 with more in its query (AWS Signature Version 4, "Authenticating Requests: Using
    Query Parameters"): all else stays, its life too.
    """
    parts = urlsplit(url)
    query = {name: value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != _SIGNATURE}
    fields = sorted((_escaped(name), _escaped(value)) for name, value in {**query, **added}.items())
    canonical = "&".join(f"{name}={value}" for name, value in fields)
    request = "\n".join(["GET", parts.path, canonical, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    scope = query["X-Amz-Credential"].split("/", 1)[1]
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, query["X-Amz-Date"], scope, digest])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{canonical}&{_SIGNATURE}={signature}"


def _escaped(text: str) -> str:
    return quote(text, safe="-_.~")
