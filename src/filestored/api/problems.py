"""Every error a client sees: ``application/problem+json`` (RFC 9457), written in this one place."""

import json

from filestored.api.exchange import Headers
from filestored.errors import RequestError

CONTENT_TYPE = (b"content-type", b"application/problem+json")


def problem(error: RequestError) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the answer that tells a client of an error."""
    body = {
        "type": f"urn:filestored:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.members,
    }
    headers = [
        CONTENT_TYPE,
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *error.headers,
    ]
    return error.status, headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
