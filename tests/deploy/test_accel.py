"""``--accel-redirect`` with a real nginx, as in deploy/nginx-accel.conf: the daemon says who may read, nginx sends."""

import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Daemon, StartDaemon
from tests.deploy.proxies import DEPLOY, nginx
from tests.tokens import make_token

BODY = os.urandom(300_000)
SETTINGS = "events {}\nhttp {\ndefault_type application/x-unknown;\naccess_log off;\n%s}\n"
FLAGS = ("--trusted-proxy", "127.0.0.1", "--accel-redirect", "/stored")


@pytest.fixture
def sped_up(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(*FLAGS, "--anonymous", "read")


@pytest.fixture
def token(sped_up: Daemon) -> str:
    return make_token(sped_up.store, "ann", "read,write,delete")


@pytest.fixture
def front(tmp_path: Path, sped_up: Daemon) -> Iterator[httpx.Client]:
    """A client that goes through nginx."""
    with nginx(tmp_path / "nginx", settings_for(sped_up)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def settings_for(daemon: Daemon) -> str:
    """Return a whole nginx.conf, with a daemon's address and store in the place of those written there."""
    settings = (DEPLOY / "nginx-accel.conf").read_text()
    address = daemon.url.removeprefix("http://")
    for written, own in (("127.0.0.1:9000", address), ("/srv/filestored", str(daemon.store))):
        assert written in settings
        settings = settings.replace(written, own)
    return SETTINGS % settings


def store(front: httpx.Client, token: str, body: bytes = BODY, **said: str) -> str:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    if "name" in said:
        headers["Content-Type"] = mimetypes.guess_type(said["name"])[0] or headers["Content-Type"]
    answer = front.post("/", content=body, params=said, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def is_by_nginx(answer: httpx.Response, daemon: Daemon) -> bool:
    """Tell whether nginx has read the file: it calls itself the server then, and names the daemon's word nowhere."""
    assert "x-accel-redirect" not in answer.headers
    return answer.headers.get("server", "").startswith("nginx") and "date" in answer.headers


def test_an_answer_of_nginx_says_what_one_of_the_daemon_says(front: httpx.Client, sped_up: Daemon, token: str) -> None:
    digest = store(front, token, name="Отчёт 1.txt", expires_in="7d")
    through, direct = front.get(f"/{digest}"), httpx.get(f"{sped_up.url}/{digest}")
    assert through.content == direct.content == BODY
    ignored = {"server", "date", "connection", "cache-control"}
    assert {k: v for k, v in direct.headers.items() if k not in ignored} == {
        k: v for k, v in through.headers.items() if k not in ignored
    }
    assert through.headers["content-type"].startswith("text/plain")
    assert "sandbox" in through.headers["content-security-policy"]
    # a second may pass between the two
    assert through.headers["cache-control"].startswith("private, max-age=")
    assert is_by_nginx(through, sped_up)


def test_the_daemon_sends_no_byte_of_it(front: httpx.Client, sped_up: Daemon, token: str) -> None:
    digest = store(front, token)
    before = sent_bytes(sped_up, token)
    assert front.get(f"/{digest}").content == BODY
    assert front.get(f"/?file_hash={digest}").content == BODY
    assert sent_bytes(sped_up, token) - before < len(BODY)
    # whoever comes by another way gets the bytes, not the name of a file
    answer = httpx.get(f"{sped_up.url}/{digest}")
    assert answer.content == BODY
    assert "x-accel-redirect" not in answer.headers


def sent_bytes(daemon: Daemon, token: str) -> float:
    text = httpx.get(f"{daemon.url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
    lines = [line for line in text.splitlines() if line.startswith("filestored_sent_bytes_total")]
    assert lines, text
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_ranges(front: httpx.Client, token: str) -> None:
    digest = store(front, token)
    one = front.get(f"/{digest}", headers={"Range": "bytes=1000-200999"})
    assert (one.status_code, one.headers["content-range"]) == (206, f"bytes 1000-200999/{len(BODY)}")
    assert one.content == BODY[1000:201000]
    assert one.headers["etag"] == f'"{digest}"'
    last = front.get(f"/{digest}", headers={"Range": "bytes=-70000"})
    assert last.content == BODY[-70000:]
    several = front.get(f"/{digest}", headers={"Range": "bytes=0-9,100000-180000"})
    assert several.status_code == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert BODY[100000:180001] in several.content
    assert front.get(f"/{digest}", headers={"Range": f"bytes={len(BODY)}-"}).status_code == 416
    # the condition is about the daemon's tag
    for tag, status in ((f'"{digest}"', 206), ('"other"', 200)):
        answer = front.get(f"/{digest}", headers={"Range": "bytes=0-99999", "If-Range": tag})
        assert answer.status_code == status
        assert answer.content == (BODY[:100000] if status == 206 else BODY)


def test_conditions(front: httpx.Client, token: str) -> None:
    digest = store(front, token)
    modified = front.head(f"/{digest}").headers["last-modified"]
    asked = {
        "If-None-Match": (f'"{digest}"', 304), "If-Match": (f'"{digest}"', 200), "If-Modified-Since": (modified, 304),
        "If-Unmodified-Since": (modified, 200),
    }  # fmt: skip
    for name, (value, status) in asked.items():
        assert front.get(f"/{digest}", headers={name: value}).status_code == status, name
    assert front.get(f"/{digest}", headers={"If-Match": '"other"'}).status_code == 412
    assert front.get(f"/{digest}", headers={"If-None-Match": '"other"'}).content == BODY


def test_names_and_heads(front: httpx.Client, token: str) -> None:
    digest = store(front, token, name="a b.pdf")
    named = front.get(f"/{digest}/other.pdf")
    assert named.headers["content-disposition"] == 'attachment; filename="other.pdf"'
    assert named.headers["content-type"] == "application/pdf"
    head = front.head(f"/{digest}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))


def test_small_and_empty_files(front: httpx.Client, token: str) -> None:
    for body in (b"", b"small", os.urandom(64 * 1024), os.urandom(64 * 1024 + 1)):
        digest = store(front, token, body, name="x.bin")
        assert front.get(f"/{digest}").content == body


def test_who_may_not_read_gets_nothing(tmp_path: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*FLAGS, "--anonymous", "none")
    token = make_token(daemon.store, "ann", "read,write,delete")
    with nginx(tmp_path / "nginx", settings_for(daemon)) as url, httpx.Client(base_url=url) as front:
        digest = store(front, token)
        assert front.get(f"/{digest}").status_code == 401
        own = {"Authorization": f"Bearer {token}"}
        assert front.get(f"/{digest}", headers=own).content == BODY
        link = front.post(f"/v1/files/{digest}/link", headers=own, json={"expires_in": "1h"}).json()["url"]
        assert link.startswith(url)
        assert front.get(link).content == BODY
        assert front.get(f"{link}x").status_code == 403
        # the place itself is shut
        assert front.get(f"/stored/{digest[:2]}/{digest}", headers=own).status_code == 404
        assert front.get("/stored/.filestored/catalogue.sqlite3", headers=own).status_code == 404
        assert front.delete(f"/{digest}", headers=own).status_code == 200
        assert front.get(f"/{digest}", headers=own).status_code == 404


def test_a_client_that_comes_directly_is_sent_the_bytes(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--trusted-proxy", "192.0.2.7", "--accel-redirect", "/stored", "--anonymous", "full")
    digest = httpx.post(daemon.url, content=BODY).text
    answer = httpx.get(f"{daemon.url}/{digest}", headers={"X-Forwarded-For": "192.0.2.7"})
    assert answer.content == BODY
    assert "x-accel-redirect" not in answer.headers
