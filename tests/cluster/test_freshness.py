"""What one daemon changes the others know within a second: tokens, names, deletes, ends.

The moments compared are when a change was answered, and when a request that is still answered by what was before it was
*sent*: a machine that is slow makes the first later, or the second earlier, and neither can fail a test.
"""

import time

import httpx
import pytest

from tests.api.tus_client import digest, some
from tests.cluster.conftest import Cluster
from tests.conftest import Daemon
from tests.processes import wait_until
from tests.tokens import bearer

SIZES = pytest.mark.parametrize("size", [1000, 1 << 20])


@SIZES
def test_a_file_that_another_daemon_deletes_is_gone_within_a_second(size: int, pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(size)
    with httpx.Client(base_url=one.url, timeout=60) as here, httpx.Client(base_url=other.url, timeout=60) as there:
        assert here.post("/", content=body, headers={"content-type": "text/plain"}).text == digest(body)
        for _ in range(5):
            # it is remembered now
            assert there.get(f"/{digest(body)}").content == body
        assert here.delete(f"/{digest(body)}").status_code == 200
        deleted = time.monotonic()
        while True:
            asked = time.monotonic()
            status = there.get(f"/{digest(body)}").status_code
            if status == 404:
                break
            assert (status, asked - deleted < 1.0) == (200, True)
        # and stays so
        assert there.get(f"/{digest(body)}").status_code == 404


@SIZES
def test_a_name_given_through_another_daemon_is_told_within_a_second(size: int, pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(size)
    with httpx.Client(base_url=one.url, timeout=60) as here, httpx.Client(base_url=other.url, timeout=60) as there:
        here.post("/?name=old.txt", content=body, headers={"content-type": "text/plain"})
        assert "old.txt" in there.get(f"/{digest(body)}").headers["content-disposition"]
        assert here.patch(f"/v1/files/{digest(body)}", json={"name": "new.txt"}).status_code == 200
        changed = time.monotonic()
        while True:
            asked = time.monotonic()
            if "new.txt" in there.get(f"/{digest(body)}").headers["content-disposition"]:
                break
            assert asked - changed < 1.0


def test_a_file_that_is_given_an_end_ends_on_every_daemon(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    one, other = two
    body = some(1000)
    with httpx.Client(base_url=one.url, timeout=60) as here, httpx.Client(base_url=other.url, timeout=60) as there:
        here.post("/", content=body, headers={"content-type": "text/plain"})
        assert there.get(f"/{digest(body)}").status_code == 200
        # whole seconds, and in the future also where it takes a while until it is read
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 11))
        assert here.patch(f"/v1/files/{digest(body)}", json={"expires_at": soon}).status_code == 200
        assert wait_until(lambda: there.get(f"/{digest(body)}").status_code == 404, seconds=60)
        assert here.get(f"/{digest(body)}").status_code == 404
        # one of the two removes the blob
        assert wait_until(lambda: cluster.bucket.blob(digest(body)) is None, seconds=60)


def test_what_is_stored_again_after_a_delete_is_served_again(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(1000)
    with httpx.Client(base_url=one.url, timeout=60) as here, httpx.Client(base_url=other.url, timeout=60) as there:
        for _ in range(3):
            assert here.post("/", content=body, headers={"content-type": "text/plain"}).status_code == 200
            assert wait_until(lambda: there.get(f"/{digest(body)}").status_code == 200)
            assert there.delete(f"/{digest(body)}").status_code == 200
            assert wait_until(lambda: here.get(f"/{digest(body)}").status_code == 404)


def test_tokens_made_and_revoked_elsewhere_act_within_a_second(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    body = some(1000)
    with httpx.Client(timeout=60) as client:
        first = cluster.token("first", "read,write,delete")
        for daemon in two:
            answer = client.post(daemon.url, content=body, headers={**bearer(first), "content-type": "text/plain"})
            assert answer.status_code == 200
            assert client.get(f"{daemon.url}/{digest(body)}", headers=bearer(first)).status_code == 200
        cluster.token("second", "read")
        cluster.revoke("first")
        revoked = time.monotonic()
        for daemon in two:
            while True:
                asked = time.monotonic()
                status = client.get(f"{daemon.url}/{digest(body)}", headers=bearer(first)).status_code
                if status == 401:
                    break
                assert (status, asked - revoked < 1.0) == (200, True)


def test_a_link_is_good_at_every_daemon(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(1000)
    httpx.post(one.url, content=body, headers={"content-type": "text/plain"})
    url = httpx.URL(httpx.post(f"{one.url}/v1/files/{digest(body)}/link", json={"expires_in": "1h"}).json()["url"])
    assert httpx.get(f"{other.url}{url.raw_path.decode()}").content == body


def test_a_download_under_way_ends_as_it_should_where_the_file_is_deleted_elsewhere(
    pair: tuple[Daemon, Daemon],
) -> None:
    one, other = pair
    body = some(8 << 20)
    httpx.post(one.url, content=body, headers={"content-type": "text/plain"}, timeout=60)
    with httpx.stream("GET", f"{other.url}/{digest(body)}", timeout=60) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw(65536)
        got = next(pieces)
        assert httpx.delete(f"{one.url}/{digest(body)}").status_code == 200
        try:
            for piece in pieces:
                got += piece
        except httpx.RemoteProtocolError:
            # cut off where the bucket had no more: never whole with wrong bytes
            assert len(got) < len(body)
    assert body.startswith(got)
