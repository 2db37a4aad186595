"""``--redirect-downloads``: who may have a file is said here, and then the bucket sends it."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from filestored.access import Permission, new_token
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.client import Client
from filestored.digest import Digest
from filestored.signing import KEY_NOTE, Signer
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.s3 import Bucket
from tests.tokens import bearer

BODY = os.urandom(300_000)
PAGE = b"<script>alert(1)</script>" * 4000


@pytest.fixture
def start(tmp_path: Path, start_daemon: StartDaemon, bucket: Bucket) -> StartDaemon:
    """Start daemons on a bucket; the store that a test names is the spool."""

    def start(*flags: str) -> Daemon:
        return start_daemon(
            "--store", bucket.url, "--spool", str(tmp_path / "spool"), *flags, store=tmp_path / "spool", env=bucket.env
        )

    return start


@pytest.fixture
def redirecting(start: StartDaemon) -> Daemon:
    return start("--redirect-downloads", "--anonymous", "full")


def store(daemon: Daemon, body: bytes = BODY, **said: str) -> str:
    answer = httpx.post(daemon.url, content=body, params=said, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_download_is_sent_to_the_bucket_with_its_name_and_type(redirecting: Daemon, bucket: Bucket) -> None:
    digest = store(redirecting, name="Отчёт 1.txt")
    for address in (f"/{digest}", f"/?file_hash={digest}", f"/{digest}/other.txt"):
        answer = httpx.get(redirecting.url + address, timeout=60)
        assert (answer.status_code, answer.content) == (307, b""), answer.text
        assert answer.headers["cache-control"] == "no-store"
        place = f"{bucket.server.endpoint}/{bucket.name}/files/{digest[:2]}/{digest}?"
        assert answer.headers["location"].startswith(place)
    followed = httpx.get(f"{redirecting.url}/{digest}/другой.txt", follow_redirects=True, timeout=60)
    assert followed.content == BODY
    assert followed.headers["content-type"].startswith("text/plain")
    assert "filename*=UTF-8''%D0%B4" in followed.headers["content-disposition"]
    assert followed.headers["content-disposition"].startswith("inline")


def test_what_could_act_as_a_page_is_saved_there_too(redirecting: Daemon) -> None:
    digest = store(redirecting, PAGE, name="evil.html")
    followed = httpx.get(f"{redirecting.url}/{digest}", follow_redirects=True, timeout=60)
    assert followed.headers["content-disposition"] == 'attachment; filename="evil.html"'
    text = store(redirecting, name="a.txt")
    forced = httpx.get(f"{redirecting.url}/{text}?download", follow_redirects=True, timeout=60)
    assert forced.headers["content-disposition"].startswith("attachment")


def test_ranges_go_with_it(redirecting: Daemon) -> None:
    digest = store(redirecting)
    answer = httpx.get(
        f"{redirecting.url}/{digest}", headers={"Range": "bytes=1000-1999"}, follow_redirects=True, timeout=60
    )
    assert answer.history[0].status_code == 307
    assert (answer.status_code, answer.content) == (206, BODY[1000:2000])
    # the bucket may not know several, and a range that is not there needs no way around
    several = httpx.get(f"{redirecting.url}/{digest}", headers={"Range": "bytes=0-1,5-6"}, timeout=60)
    assert several.status_code == 206
    assert httpx.get(f"{redirecting.url}/{digest}", headers={"Range": "bytes=300000-"}, timeout=60).status_code == 416


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"x"'}, {"If-Match": "*"}, {"If-Range": '"x"', "Range": "bytes=0-9"},
        {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": "no-cors"}, {"Origin": "https://other.example"},
        {"Accept": "image/avif,image/webp,*/*"},
    ],
    ids=str,
)  # fmt: skip
def test_conditions_and_what_a_page_loads_are_answered_here(redirecting: Daemon, headers: dict[str, str]) -> None:
    digest = store(redirecting)
    answer = httpx.get(f"{redirecting.url}/{digest}", headers=headers, timeout=60)
    assert (answer.status_code, answer.content) == (200, BODY)


def test_heads_and_small_files_are_answered_here(redirecting: Daemon) -> None:
    digest, small = store(redirecting), store(redirecting, b"small")
    head = httpx.head(f"{redirecting.url}/{digest}", timeout=60)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))
    assert httpx.get(f"{redirecting.url}/{small}", timeout=60).content == b"small"
    assert httpx.get(f"{redirecting.url}/{digest}", headers={"Sec-Fetch-Mode": "navigate"}).status_code == 307


def test_the_size_from_which_on_it_is_worth_it_is_a_setting(start: StartDaemon) -> None:
    daemon = start("--redirect-downloads=300KB", "--anonymous", "full")
    assert httpx.get(f"{daemon.url}/{store(daemon)}", timeout=60).status_code == 200
    assert httpx.get(f"{daemon.url}/{store(daemon, BODY + b'1')}", timeout=60).status_code == 307


def test_nobody_is_sent_to_what_he_may_not_read_nor_to_what_is_gone(start: StartDaemon, bucket: Bucket) -> None:
    daemon = start("--redirect-downloads", "--anonymous", "none")
    command = [sys.executable, "-m", "filestored", "token", "create", "ann", "--permissions", "read,write,delete"]
    made = subprocess.run(
        [*command, "--spool", daemon.store],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **bucket.env},
    )
    token = bearer(made.stdout.strip())
    digest = httpx.post(daemon.url, content=BODY, headers=token, timeout=60).text
    assert httpx.get(f"{daemon.url}/{digest}").status_code == 401
    answer = httpx.get(f"{daemon.url}/{digest}", headers=token)
    assert answer.status_code == 307
    link = httpx.post(f"{daemon.url}/v1/files/{digest}/link", headers=token, json={"expires_in": "1h"}).json()["url"]
    assert httpx.get(link, follow_redirects=True, timeout=60).content == BODY
    tampered = answer.headers["location"].replace("attachment", "inline")
    assert tampered != answer.headers["location"]
    assert httpx.get(tampered).status_code == 403
    assert httpx.delete(f"{daemon.url}/{digest}", headers=token, timeout=60).status_code == 200
    assert httpx.get(f"{daemon.url}/{digest}", headers=token).status_code == 404


def test_an_address_ends_with_the_file(redirecting: Daemon) -> None:
    digest = store(redirecting, expires_in="20s")
    location = httpx.URL(httpx.get(f"{redirecting.url}/{digest}", timeout=60).headers["location"])
    assert int(location.params["X-Amz-Expires"]) <= 20
    lasting = httpx.URL(httpx.get(f"{redirecting.url}/{store(redirecting, PAGE)}", timeout=60).headers["location"])
    assert int(lasting.params["X-Amz-Expires"]) == 60


def test_an_address_ends_with_the_link_or_the_token_that_let_in(start: StartDaemon, bucket: Bucket) -> None:
    daemon = start("--redirect-downloads", "--anonymous", "full")
    digest = store(daemon)

    def life(path: str, headers: dict[str, str] | None = None) -> int:
        answer = httpx.get(f"{daemon.url}{path}", headers=headers, timeout=60)
        assert answer.status_code == 307, answer.text
        return int(httpx.URL(answer.headers["location"]).params["X-Amz-Expires"])

    with contextlib.closing(Catalogue(daemon.store / ".filestored" / "catalogue.sqlite3", durable=False)) as catalogue:
        text, record = new_token("ann", Permission.READ, now_milliseconds(), expires_at=now_milliseconds() + 30_000)
        signer = Signer(catalogue.note(KEY_NOTE) or "")
        with catalogue.transaction() as transaction:
            assert transaction.add_token(record)
    link = signer.link_path(Digest(digest), None, int(time.time()) + 20)
    assert life(link) <= 20
    assert life(signer.link_path(Digest(digest), None, int(time.time()) + 3600)) == 60
    assert wait_until(lambda: httpx.get(f"{daemon.url}/v1/caller", headers=bearer(text)).status_code == 200)
    assert life(f"/{digest}", bearer(text)) <= 30


def test_the_client_follows(redirecting: Daemon, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    with Client(redirecting.url) as client:
        stored = client.put(tmp_path / "large")
        client.get(stored.hash, tmp_path / "copy")
        assert client.read(stored.hash, 1000, 200_000) == (tmp_path / "large").read_bytes()[1000:200_000]
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--redirect-downloads"], "--redirect-downloads needs a bucket"),
        (["--accel-redirect", "/x"], "--accel-redirect needs --trusted-proxy"),
        (["--accel-redirect", "x"], "it must be a path such as /stored"),
        (["--redirect-downloads=perhaps"], "or yes or no"),
    ],
)
def test_a_way_that_there_is_not_is_one_clear_line(tmp_path: Path, flags: list[str], told: str) -> None:
    command = [sys.executable, "-m", "filestored", "run", "--store", str(tmp_path / "store"), "--port", "0", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_no_means_no(start: StartDaemon) -> None:
    daemon = start("--redirect-downloads=no", "--anonymous", "full")
    assert httpx.get(f"{daemon.url}/{store(daemon)}", timeout=60).content == BODY
