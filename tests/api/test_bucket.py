"""A daemon whose files lie in a bucket answers as one whose files lie on a disk."""

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from filestored.client import Client
from tests.blobs.requests import Counter
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.s3 import Bucket, S3Server

SMALL = b"a small body"
LARGE = os.urandom(1 << 20) * 33
MISSING = "0" * 64


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def flags_of(bucket: Bucket, spool: Path) -> list[str]:
    return ["--store", bucket.url, "--spool", str(spool), "--workers", "1"]


@pytest.fixture
def running(bucket: Bucket, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """A daemon on a bucket."""
    spool = tmp_path / "spool"
    return start_daemon(*flags_of(bucket, spool), store=spool, env=bucket.env)


@pytest.fixture
def client(running: Daemon) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_file_is_stored_answered_listed_and_deleted(
    running: Daemon, client: httpx.Client, bucket: Bucket, body: bytes
) -> None:
    digest = digest_of(body)
    assert client.post("/", content=body, headers={"content-type": "application/octet-stream"}).text == digest
    assert bucket.blob(digest) == body
    for _ in range(2):
        answer = client.get(f"/{digest}")
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["content-length"] == str(len(body))
    head = client.head(f"/{digest}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(body)))
    assert client.get(f"/{digest}", headers={"if-none-match": f'"{digest}"'}).status_code == 304
    assert client.get(f"/{digest}", headers={"if-match": '"other"'}).status_code == 412
    assert [file["hash"] for file in client.get("/v1/files").json()["files"]] == [digest]
    assert client.request("DELETE", f"/{digest}").status_code == 200
    assert client.get(f"/{digest}").status_code == 404
    assert wait_until(lambda: bucket.blob(digest) is None, seconds=20)
    assert running.leftovers() == []


def test_ranges_of_a_large_file(client: httpx.Client) -> None:
    digest = client.post("/", content=LARGE).text
    size = len(LARGE)
    for asked, start, stop in (
        ("0-0", 0, 1), ("5-9", 5, 10), (f"1000000-{size}", 1_000_000, size), ("-7", size - 7, size),
    ):  # fmt: skip
        answer = client.get(f"/{digest}", headers={"range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, LARGE[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    answer = client.get(f"/{digest}", headers={"range": "bytes=5-9,100000-300000"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert len(answer.content) == int(answer.headers["content-length"])
    assert LARGE[5:10] in answer.content
    assert LARGE[100_000:300_001] in answer.content
    assert client.get(f"/{digest}", headers={"range": f"bytes={size}-"}).status_code == 416


def test_a_blob_of_another_length_is_not_served(client: httpx.Client, bucket: Bucket) -> None:
    for body, damaged in ((SMALL, SMALL[:-1]), (b"other", b"x" * 100_000), (LARGE, LARGE[:-1])):
        digest = digest_of(body)
        client.post("/", content=body)
        bucket.server.put(bucket.name, f"files/{digest[:2]}/{digest}", damaged)
        assert client.get(f"/{digest}").status_code == 404
        # storing it again makes it whole
        assert client.post("/", content=body).status_code == 200
        assert client.get(f"/{digest}").content == body


def test_a_blob_that_was_lost_is_missing_to_whoever_asks_for_a_few_and_put_heals_it(
    running: Daemon, client: httpx.Client, bucket: Bucket
) -> None:
    body = os.urandom(100)
    digest = client.post("/", content=body).text
    assert client.post("/v1/files/missing", json={"hashes": [digest]}).json() == {"missing": []}
    bucket.server.delete(bucket.name, f"files/{digest[:2]}/{digest}")
    for own in (False, True):
        asked = {"hashes": [digest], "own": own}
        assert client.post("/v1/files/missing", json=asked).json() == {"missing": [digest]}
    with Client(running.url) as files:
        assert files.put(body, name="healed").hash == digest
    assert bucket.blob(digest) == body


def test_the_time_that_is_told_of_a_file_is_the_one_conditions_go_by(client: httpx.Client) -> None:
    for body in (SMALL, LARGE):
        # what its server says of a new object is rounded up, and lies in the future for as long
        path = f"/{client.post('/', content=body).text}"
        told = client.head(path).headers["last-modified"]
        assert client.get(path, headers={"if-modified-since": told}).status_code == 304
        assert client.head(path, headers={"if-unmodified-since": told}).status_code == 200
        assert client.get(path, headers={"if-range": told, "range": "bytes=0-3"}).status_code == 206


def test_what_is_not_stored_is_not_found(client: httpx.Client) -> None:
    assert client.get(f"/{MISSING}").status_code == 404
    assert client.head(f"/{MISSING}").status_code == 404
    assert client.request("DELETE", f"/{MISSING}").status_code == 404


def test_everything_is_there_after_a_restart_with_another_spool_of_the_same_catalogue(
    bucket: Bucket, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    catalogue = f"sqlite:///{tmp_path}/catalogue.sqlite3"
    for number in range(2):
        spool = tmp_path / f"spool{number}"
        flags = [*flags_of(bucket, spool), "--catalogue", catalogue]
        daemon = start_daemon(*flags, store=spool, env=bucket.env)
        httpx.post(daemon.url, content=b"body %d" % number).raise_for_status()
        for body in [b"body %d" % each for each in range(number + 1)]:
            assert httpx.get(f"{daemon.url}/{digest_of(body)}").content == body
        assert daemon.stop() == 0, daemon.read_log()


def test_a_download_goes_on_over_connections_that_break_and_ends_short_where_the_bucket_stays_away(
    bucket: Bucket, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    digest = digest_of(LARGE)
    host, _, port = bucket.server.endpoint.removeprefix("http://").partition(":")
    with Proxy((host, int(port))) as proxy:
        spool = tmp_path / "spool"
        env = {**bucket.env, "AWS_ENDPOINT_URL": proxy.url}
        daemon = start_daemon(*flags_of(bucket, spool), store=spool, env=env)
        httpx.post(daemon.url, content=LARGE, timeout=60).raise_for_status()
        pieces = []
        with httpx.stream("GET", f"{daemon.url}/{digest}", timeout=60) as answer:
            for number, piece in enumerate(answer.iter_raw(1 << 20)):
                pieces.append(piece)
                if number % 8 == 0:
                    proxy.cut()
        assert b"".join(pieces) == LARGE
        with socket.create_connection(daemon.address, timeout=60) as connection:
            connection.sendall(f"GET /{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = len(connection.recv(1 << 16))
            proxy.vanish()
            while piece := connection.recv(1 << 20):
                received += len(piece)
        assert received < len(LARGE)
        # a file that is not remembered: nobody knows by now
        answer = httpx.get(f"{daemon.url}/{MISSING}", timeout=60)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert httpx.post(daemon.url, content=b"new", timeout=60).status_code == 503
        proxy.come_back()
        assert wait_until(lambda: httpx.get(f"{daemon.url}/{digest}", timeout=60).content == LARGE, seconds=60)


def test_while_the_bucket_does_not_answer_nothing_hangs_and_nothing_is_said_to_be_missing(
    own_s3: S3Server, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    bucket = Bucket(own_s3)
    spool = tmp_path / "spool"
    daemon = start_daemon(*flags_of(bucket, spool), store=spool, env=bucket.env)
    digest = httpx.post(daemon.url, content=LARGE, timeout=60).text
    small = httpx.post(daemon.url, content=b"not asked for yet").text
    with own_s3.frozen():
        for path in (f"/{digest}", f"/{small}", f"/{MISSING}"):
            answer = httpx.get(daemon.url + path, timeout=60)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        # what the catalogue knows is told as ever
        assert len(httpx.get(f"{daemon.url}/v1/files").json()["files"]) == 2
        answer = httpx.get(f"{daemon.url}/readyz", timeout=60)
        assert (answer.status_code, answer.json()["fault"]) == (503, "store")
    assert wait_until(lambda: httpx.get(f"{daemon.url}/readyz", timeout=60).status_code == 200, seconds=60)
    assert "the store answers again" in daemon.read_log()
    assert wait_until(lambda: httpx.get(f"{daemon.url}/{small}", timeout=60).content == b"not asked for yet")
    assert httpx.get(f"{daemon.url}/{digest}", timeout=60).content == LARGE


def test_nobody_knows_how_much_is_free_in_a_bucket(client: httpx.Client) -> None:
    assert client.get("/v1/stats").json()["free"] is None
    metrics = client.get("/metrics").text
    assert "# HELP filestored_free_bytes Bytes free on the disk of the store, or of the spool." in metrics
    with Client(str(client.base_url)) as files:
        assert files.stats().free is None


@pytest.fixture
def counter(bucket: Bucket) -> Iterator[Counter]:
    made = Counter(bucket.server.endpoint)
    yield made
    made.close()


@pytest.fixture
def counted(counter: Counter, bucket: Bucket, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """A daemon whose requests to its bucket are counted."""
    spool = tmp_path / "counted"
    return start_daemon(*flags_of(bucket, spool), store=spool, env={**bucket.env, "AWS_ENDPOINT_URL": counter.url})


def test_a_small_download_costs_one_request_and_the_next_one_none(counted: Daemon, counter: Counter) -> None:
    digest = httpx.post(counted.url, content=SMALL).text
    for expected in (["GET"], []):
        with counter.counting() as requests:
            assert httpx.get(f"{counted.url}/{digest}").content == SMALL
        assert [request.partition(" ")[0] for request in requests if digest in request] == expected


def test_what_is_missing_is_told_without_asking_for_each_blob_that_the_catalogue_names(
    counted: Daemon, counter: Counter
) -> None:
    stored = [httpx.post(counted.url, content=b"%d" % number).text for number in range(5)]
    unknown = [digest_of(b"unknown %d" % number) for number in range(50)]
    with counter.counting() as requests:
        answer = httpx.post(f"{counted.url}/v1/files/missing", json={"hashes": stored + unknown})
    assert answer.json()["missing"] == unknown
    assert not [request for request in requests if any(digest in request for digest in stored)]
