"""A tus 1.0.0 client as plain as can be: each method is one request, whatever comes of it."""

import os
from base64 import b64encode
from hashlib import sha256

import httpx

CHUNK = "application/offset+octet-stream"


def encoded(**values: str | bytes) -> str:
    """Return ``Upload-Metadata``."""
    raw = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}
    return ",".join(f"{key} {b64encode(value).decode()}" for key, value in raw.items())


def digest(body: bytes) -> str:
    """Return the hash that the store names a body by."""
    return sha256(body).hexdigest()


def some(size: int) -> bytes:
    """Return bytes that are stored nowhere yet."""
    return os.urandom(size)


class Tus:
    """Speaks to one server."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str | int) -> httpx.Response:
        """Send a request with ``Tus-Resumable`` and the headers given, their names with underscores."""
        named = {"Tus-Resumable": "1.0.0"} | {key.replace("_", "-"): str(value) for key, value in headers.items()}
        return self.client.request(method, path, content=body, headers=named)

    def create(self, length: int | None, body: bytes | None = None, /, **headers: str | int) -> httpx.Response:
        """Begin an upload."""
        size: dict[str, str | int] = {"Upload_Defer_Length": 1} if length is None else {"Upload_Length": length}
        if body is not None:
            size["Content_Type"] = CHUNK
        return self.ask("POST", "/v1/uploads", body, **size, **headers)

    def begin(self, length: int | None, body: bytes | None = None, /, **headers: str | int) -> str:
        """Begin an upload and return its address."""
        answer = self.create(length, body, **headers)
        assert answer.status_code == 201, answer.text
        return str(answer.headers["location"])

    def patch(self, path: str, offset: int | str, body: bytes = b"", /, **headers: str | int) -> httpx.Response:
        """Go on with an upload."""
        return self.ask("PATCH", path, body, Content_Type=CHUNK, Upload_Offset=offset, **headers)

    def head(self, path: str) -> httpx.Response:
        """Ask how far an upload has come."""
        return self.ask("HEAD", path)

    def offset(self, path: str) -> int:
        """Return how far an upload has come."""
        answer = self.head(path)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["upload-offset"])
