"""A file at its own address (contract 3.2) and its download (3.5)."""

import base64
import hashlib
import os
import re
import time
from email.utils import formatdate, parsedate_to_datetime

import httpx
import pytest

from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until


@pytest.fixture
def body() -> bytes:
    return os.urandom(1000)


@pytest.fixture
def digest(client: httpx.Client, body: bytes) -> str:
    return client.post("/?name=отчёт.pdf", content=body).text


def test_get_and_head_describe_the_file(client: httpx.Client, digest: str, body: bytes) -> None:
    got, headed = client.get(f"/{digest}"), client.head(f"/{digest}")
    assert got.content == body
    assert headed.content == b""
    for answer in (got, headed, client.get(f"/{digest}")):
        headers = answer.headers
        assert answer.status_code == 200
        assert headers["content-length"] == "1000"
        assert headers["etag"] == f'"{digest}"'
        assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"
        assert headers["accept-ranges"] == "bytes"
        assert headers["cache-control"] == "private, max-age=31536000, immutable"
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["content-type"] == "application/pdf"
        disposition = headers["content-disposition"]
        assert disposition.startswith("attachment")
        assert "filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.pdf" in disposition
        assert abs(parsedate_to_datetime(headers["last-modified"]).timestamp() - time.time()) < 60
        assert "sunset" not in headers


def test_any_file_name_may_follow_the_hash(client: httpx.Client, digest: str, body: bytes) -> None:
    answer = client.get(f"/{digest}/kitten.jpg")
    assert answer.content == body
    assert "kitten.jpg" in answer.headers["content-disposition"]
    assert client.get(f"/{digest}/").content == body
    hostile = client.get(f"/{digest}/%22%0d%0aX-Evil:%201")
    assert hostile.status_code == 200
    assert "x-evil" not in hostile.headers


@pytest.mark.parametrize(
    ("name", "media_type", "kind"),
    [
        ("a.png", "image/png", "inline"), ("a.txt", "text/plain", "inline"), ("a.mp4", "video/mp4", "inline"),
        ("a.svg", "image/svg+xml", "attachment"), ("a.html", "text/html", "attachment"), ("a.js", None, "attachment"),
    ],
)  # fmt: skip
def test_only_harmless_types_are_shown_inline(
    client: httpx.Client, name: str, media_type: str | None, kind: str
) -> None:
    digest = client.post("/", params={"name": name}, content=os.urandom(10)).text
    headers = client.get(f"/{digest}").headers
    assert headers["content-disposition"].startswith(kind)
    assert media_type is None or headers["content-type"].startswith(media_type)
    assert client.get(f"/{digest}?download").headers["content-disposition"].startswith("attachment")


def test_put_stores_only_what_has_the_hash(client: httpx.Client, body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    refused = client.put(f"/{digest}", content=body + b"x")
    assert refused.status_code == 422
    assert digest in refused.json()["detail"]
    assert hashlib.sha256(body + b"x").hexdigest() in refused.json()["detail"]
    assert client.get(f"/{digest}").status_code == 404
    created = client.put(f"/{digest}", content=body)
    assert (created.status_code, created.text) == (201, digest)
    assert client.put(f"/{digest.upper()}", content=body).status_code == 200
    assert client.get(f"/{digest}").content == body
    assert client.put(f"/{hashlib.md5(body).hexdigest()}", content=body).status_code == 422
    ranged = client.put(f"/{digest}", content=body, headers={"content-range": "bytes 0-999/2000"})
    assert ranged.status_code == 400


def test_delete_by_address(client: httpx.Client, digest: str) -> None:
    assert client.delete(f"/{digest}").status_code == 200
    assert client.delete(f"/{digest}").status_code == 404


@pytest.mark.parametrize("path", ["/nothing", "/abc", "/" + "g" * 64, "/" + "a" * 63, "/" + "a" * 64 + "/b/c", "//"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_unknown_paths_are_not_found(client: httpx.Client, path: str, method: str) -> None:
    assert client.request(method, httpx.URL(client.base_url, raw_path=path.encode())).status_code == 404


def test_known_paths_with_a_wrong_method_name_the_right_ones(client: httpx.Client, digest: str) -> None:
    answer = client.post(f"/{digest}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")
    assert client.put(f"/{digest}/name", content=b"").status_code == 405


def test_a_name_that_is_given_replaces_the_old_and_one_that_is_not_leaves_it(client: httpx.Client, body: bytes) -> None:
    accept = {"accept": "application/json"}
    assert client.post("/?name=a.txt", content=body, headers=accept).json()["name"] == "a.txt"
    digest = hashlib.sha256(body).hexdigest()
    assert "a.txt" in client.get(f"/{digest}").headers["content-disposition"]
    again = client.post("/", content=body, headers=accept).json()
    assert (again["name"], again["type"]) == ("a.txt", "text/plain")
    typed = {"content-type": "text/csv", "content-disposition": 'attachment; filename="..\\\\dir/b.csv"', **accept}
    changed = client.post("/", content=body, headers=typed).json()
    assert (changed["name"], changed["type"]) == ("b.csv", "text/csv")
    # every worker tells the new name at once
    for _ in range(10):
        with httpx.Client(base_url=client.base_url) as other:
            assert "b.csv" in other.get(f"/{digest}").headers["content-disposition"]


def test_a_file_that_expires_says_so_and_is_gone_afterwards(client: httpx.Client, body: bytes) -> None:
    digest = client.post("/?expires_in=2s", content=body).text
    answer = client.get(f"/{digest}")
    sunset = parsedate_to_datetime(answer.headers["sunset"]).timestamp()
    assert abs(sunset - time.time() - 2) < 2
    assert "immutable" not in answer.headers["cache-control"]
    deadline = time.monotonic() + 5
    while client.get(f"/{digest}").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.get(f"/{digest}").status_code == 404
    assert client.delete(f"/{digest}").status_code == 404


def test_the_longer_life_wins(client: httpx.Client, body: bytes) -> None:
    accept = {"accept": "application/json"}
    first = client.post("/?expires_in=1h", content=body, headers=accept).json()["expires_at"]
    assert client.post("/?expires_in=1m", content=body, headers=accept).json()["expires_at"] == first
    assert client.post("/?expires_in=2h", content=body, headers=accept).json()["expires_at"] > first
    assert client.post("/", content=body, headers=accept).json()["expires_at"] is None
    assert client.post("/?expires_in=1m", content=body, headers=accept).json()["expires_at"] is None


# ranges: RFC 9110, 14


@pytest.mark.parametrize("size", [1000, 200_000])
def test_single_ranges(client: httpx.Client, size: int) -> None:
    body = os.urandom(size)
    digest = client.post("/", content=body).text
    for header, start, stop in [
        ("bytes=0-99", 0, 100), ("bytes=500-", 500, size), ("bytes=-100", size - 100, size),
        ("bytes=0-99999999", 0, size), ("bytes=-99999999", 0, size), ("bytes=999-999", 999, 1000),
    ]:  # fmt: skip
        for _ in range(2):
            answer = client.get(f"/{digest}", headers={"range": header})
            assert answer.status_code == 206
            assert answer.content == body[start:stop]
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert answer.headers["etag"] == f'"{digest}"'


@pytest.mark.parametrize("size", [1000, 200_000])
def test_several_ranges_come_as_multipart(client: httpx.Client, size: int) -> None:
    body = os.urandom(size)
    digest = client.post("/?name=a.txt", content=body).text
    answer = client.get(f"/{digest}", headers={"range": "bytes=0-9, 100-199, -5"})
    assert answer.status_code == 206
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    assert int(answer.headers["content-length"]) == len(answer.content)
    parts = answer.content.split(b"--" + boundary.encode())
    assert parts[-1].strip() == b"--"
    spans = [(0, 10), (100, 200), (size - 5, size)]
    for part, (start, stop) in zip(parts[1:-1], spans, strict=True):
        head, _, content = part.partition(b"\r\n\r\n")
        assert content.removesuffix(b"\r\n") == body[start:stop]
        assert f"content-range: bytes {start}-{stop - 1}/{size}".encode() in head.lower()
        assert b"content-type: text/plain" in head.lower()


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_ranges_beyond_the_end_cannot_be_satisfied(client: httpx.Client, digest: str, header: str) -> None:
    answer = client.get(f"/{digest}", headers={"range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */1000"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=5-4",
        "bytes=a-b",
        "bytes",
        "lines=0-5",
        "bytes=--5",
        "bytes=0-999,0-999",
        ",".join(["bytes=0-0"] + ["1-1"] * 16),
    ],
)
def test_ranges_that_make_no_sense_or_ask_too_much_get_the_whole_file(
    client: httpx.Client, digest: str, body: bytes, header: str
) -> None:
    answer = client.get(f"/{digest}", headers={"range": header})
    assert (answer.status_code, answer.content) == (200, body)


def test_head_has_no_ranges(client: httpx.Client, digest: str) -> None:
    answer = client.head(f"/{digest}", headers={"range": "bytes=0-9"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, "1000")


def test_if_range(client: httpx.Client, digest: str, body: bytes) -> None:
    ranged = {"range": "bytes=0-9"}
    modified = client.head(f"/{digest}").headers["last-modified"]
    for value, status in [
        (f'"{digest}"', 206), (modified, 206), ('"other"', 200), (f'W/"{digest}"', 200),
        (formatdate(0, usegmt=True), 200),
    ]:  # fmt: skip
        assert client.get(f"/{digest}", headers={**ranged, "if-range": value}).status_code == status


# preconditions: RFC 9110, 13


def test_preconditions(client: httpx.Client, digest: str) -> None:
    modified = client.head(f"/{digest}").headers["last-modified"]
    old = formatdate(0, usegmt=True)
    future = formatdate(time.time() + 3600, usegmt=True)
    cases = [
        ({"if-none-match": f'"{digest}"'}, 304), ({"if-none-match": f'W/"{digest}"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": f'"x", "{digest}"'}, 304), ({"if-none-match": '"x"'}, 200),
        ({"if-modified-since": modified}, 304), ({"if-modified-since": future}, 304), ({"if-modified-since": old}, 200),
        ({"if-modified-since": "nonsense"}, 200), ({"if-none-match": '"x"', "if-modified-since": modified}, 200),
        ({"if-match": f'"{digest}"'}, 200), ({"if-match": "*"}, 200), ({"if-match": '"x"'}, 412),
        ({"if-match": f'W/"{digest}"'}, 412), ({"if-unmodified-since": old}, 412),
        ({"if-unmodified-since": modified}, 200),
        ({"if-none-match": f'"{digest}"', "range": "bytes=0-1"}, 304),
    ]  # fmt: skip
    for headers, status in cases:
        for method in ("GET", "HEAD"):
            answer = client.request(method, f"/{digest}", headers=headers)
            assert answer.status_code == status, headers
            if status == 304:
                assert answer.content == b""
                assert answer.headers["etag"] == f'"{digest}"'
                assert "cache-control" in answer.headers


def test_a_download_goes_on_when_its_file_is_deleted(client: httpx.Client) -> None:
    body = os.urandom(20 << 20)
    digest = client.post("/", content=body).text
    with client.stream("GET", f"/{digest}") as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        assert httpx.delete(f"{client.base_url}/{digest}").status_code == 200
        assert first + b"".join(pieces) == body


def test_a_link_in_the_store_is_never_followed(start_daemon: StartDaemon, daemon: Daemon) -> None:
    own = start_daemon("--workers", "1")
    secret = own.store.parent / "secret"
    secret.write_text("secret")
    name = "ab" + "0" * 62
    (own.store / "ab").mkdir()
    (own.store / "ab" / name).symlink_to(secret)
    outside = own.store.parent / "cd"
    outside.mkdir()
    (outside / ("cd" + "0" * 62)).write_text("secret")
    (own.store / "cd").symlink_to(outside)
    for digest in (name, "cd" + "0" * 62):
        assert httpx.get(f"{own.url}/{digest}").status_code == 404
        assert httpx.delete(f"{own.url}/{digest}").status_code == 404
    assert secret.exists()
    assert (outside / ("cd" + "0" * 62)).exists()


def test_a_blob_of_a_wrong_length_is_not_served_and_an_upload_heals_it(client: httpx.Client, daemon: Daemon) -> None:
    for size in (100, 100_000):
        body = os.urandom(size)
        digest = client.post("/", content=body).text
        blob = daemon.blob(digest)
        blob.chmod(0o644)
        blob.write_bytes(body[:-1])
        assert client.get(f"/{digest}").status_code == 404
        assert client.post("/", content=body).text == digest
        assert client.get(f"/{digest}").content == body


def test_a_download_that_nobody_takes_any_more_ends(daemon: Daemon, client: httpx.Client) -> None:
    digest = client.post("/", content=bytes(200 << 20)).text
    with client.stream("GET", f"/{digest}") as answer:
        next(answer.iter_raw())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = [line for line in daemon.read_log().splitlines() if f"GET /{digest}" in line]
        if lines:
            break
        time.sleep(0.05)
    sent = int(lines[0].rpartition("bytes=")[2].split()[0])
    assert sent < 200 << 20


def test_preconditions_guard_changes_too(client: httpx.Client, body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    assert client.put(f"/{digest}", content=body, headers={"if-match": "*"}).status_code == 412
    assert client.put(f"/{digest}", content=body, headers={"if-none-match": "*"}).status_code == 201
    assert client.put(f"/{digest}", content=body, headers={"if-none-match": "*"}).status_code == 412
    for address in (f"/{digest}", f"/?file_hash={digest}"):
        assert client.delete(address, headers={"if-match": '"other"'}).status_code == 412
    assert client.get(f"/{digest}").content == body
    conditions = {"if-match": f'"{digest}"', "if-modified-since": formatdate(time.time() + 60, usegmt=True)}
    assert client.delete(f"/{digest}", headers=conditions).status_code == 200


def test_put_stores_the_empty_file(client: httpx.Client) -> None:
    digest = hashlib.sha256(b"").hexdigest()
    client.delete(f"/{digest}")
    assert client.put(f"/{digest}", content=b"").status_code == 201
    assert client.put(f"/{'0' * 64}", content=b"").status_code == 422


def test_what_is_told_of_a_file_that_expires_is_right_at_each_moment(client: httpx.Client) -> None:
    digest = client.post("/", params={"expires_in": "40"}, content=os.urandom(50)).text

    def left() -> int:
        control = client.get(f"/{digest}").headers["cache-control"]
        return int(re.search(r"max-age=(\d+)", control)[1])  # type: ignore[index]

    first = left()
    assert wait_until(lambda: left() < first, seconds=5)
