"""The root (contract 3.1): three methods, nothing else."""

import base64
import hashlib
import os
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.conftest import Daemon, StartDaemon


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def unique(size: int = 100) -> bytes:
    return os.urandom(size)


def test_post_answers_the_hash_and_nothing_else(client: httpx.Client) -> None:
    body = unique()
    answer = client.post("/", content=body)
    assert answer.status_code == 200
    assert answer.text == sha256(body)
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("size", [1, 4096, 65536, 65537, 1 << 20, 5 << 20])
def test_what_is_posted_is_what_is_got(client: httpx.Client, size: int) -> None:
    body = unique(size)
    digest = client.post("/", content=body).text
    answer = client.get("/", params={"file_hash": digest})
    assert (answer.status_code, answer.content) == (200, body)


def test_a_blob_lies_where_its_hash_says_read_only(client: httpx.Client, daemon: Daemon) -> None:
    body = unique()
    digest = client.post("/", content=body).text
    assert daemon.blob(digest).read_bytes() == body
    assert daemon.blob(digest).stat().st_mode & 0o777 == 0o444


def test_a_chunked_body_is_stored(client: httpx.Client) -> None:
    pieces = [unique(10_000) for _ in range(30)]
    assert client.post("/", content=iter(pieces)).text == sha256(b"".join(pieces))


def test_curls_own_content_type_means_raw_bytes(client: httpx.Client) -> None:
    body = b"a=1&b=2" + unique(4).hex().encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    digest = client.post("/", content=body, headers=headers).text
    assert digest == sha256(body)
    assert client.get(f"/{digest}").headers["content-type"] == "application/octet-stream"


def test_json_where_accept_asks_for_it(client: httpx.Client) -> None:
    body = unique()
    answer = client.post("/?name=a.txt", content=body, headers={"accept": "application/json"})
    assert answer.status_code == 200
    file = answer.json()
    assert file["hash"] == sha256(body)
    assert (file["algorithm"], file["size"], file["name"], file["type"]) == ("sha256", 100, "a.txt", "text/plain")
    assert (file["owner"], file["expires_at"]) == ("anonymous", None)
    assert file["created_at"].endswith("Z")
    assert client.get(file["url"]).content == body


def test_a_form_with_one_file(client: httpx.Client) -> None:
    body = unique()
    answer = client.post("/", files={"whatever": ("photo.png", body, "image/png")})
    assert (answer.status_code, answer.text) == (200, sha256(body))
    assert client.get(f"/{answer.text}").headers["content-type"] == "image/png"


def test_a_form_with_several_files_answers_one_hash_a_line(client: httpx.Client) -> None:
    bodies = [unique() for _ in range(3)]
    files = [("f", (f"{number}.bin", body)) for number, body in enumerate(bodies)]
    assert client.post("/", files=files).text == "\n".join(map(sha256, bodies))
    listed = client.post("/", files=files, headers={"accept": "application/json"}).json()
    assert [file["hash"] for file in listed] == [sha256(body) for body in bodies]


def test_a_form_without_a_file_is_refused(client: httpx.Client) -> None:
    answer = client.post("/", files={"only": (None, "text")})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_text_fields_of_a_form_say_name_and_life_even_after_the_file(client: httpx.Client) -> None:
    body = unique()
    boundary = "bbb"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'.encode()
        + body
        + f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nreal.txt'.encode()
        + f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="expires_in"\r\n\r\n1h'.encode()
        + f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="other"\r\n\r\nignored'.encode()
        + f"\r\n--{boundary}--\r\n".encode()
    )
    headers = {"content-type": f"multipart/form-data; boundary={boundary}", "accept": "application/json"}
    file = client.post("/", content=form, headers=headers).json()
    assert (file["hash"], file["name"]) == (sha256(body), "real.txt")
    assert file["expires_at"] is not None


def test_an_empty_file_needs_a_type_or_a_form(client: httpx.Client, daemon: Daemon) -> None:
    assert client.post("/", headers={"content-type": "text/plain"}, content=b"").text == sha256(b"")
    assert client.post("/", files={"f": ("empty", b"")}).text == sha256(b"")
    with RawConnection(daemon.address) as raw:
        assert raw.request("POST", "/", "Content-Length: 0")[0] == 400
        assert raw.request("POST", "/")[0] == 400


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_not_allowed(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST, DELETE"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400), ("?file_hash=", 400), ("?other=1", 400),
        ("?file_hash=xyz", 404), ("?file_hash=../../etc/passwd", 404), ("?file_hash=" + "a" * 64, 404),
        ("?file_hash=" + "a" * 63, 404), ("?file_hash=%00", 404), ("?file_hash=" + "é" * 64, 404),
        ("?file_hash=" + "٣" * 64, 404), ("?file_hash=" + "a" * 5000, 404),
    ],
)  # fmt: skip
def test_a_hash_that_is_missing_or_of_no_file(client: httpx.Client, method: str, query: str, status: int) -> None:
    answer = client.request(method, "/" + query)
    assert answer.status_code == status
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]


def test_a_hash_is_accepted_in_either_case(client: httpx.Client) -> None:
    body = unique()
    digest = client.post("/", content=body).text.upper()
    assert client.get(f"/?file_hash={digest}").content == body
    assert client.get(f"/{digest}").content == body
    assert client.delete(f"/?file_hash={digest}").status_code == 200


def test_delete_removes_the_file_and_the_second_finds_nothing(client: httpx.Client, daemon: Daemon) -> None:
    digest = client.post("/", content=unique()).text
    assert client.get(f"/{digest}").status_code == 200
    assert client.delete(f"/?file_hash={digest}").status_code == 200
    assert client.get(f"/{digest}").status_code == 404
    assert client.delete(f"/?file_hash={digest}").status_code == 404
    assert not daemon.blob(digest).exists()


def test_the_same_bytes_twice_are_stored_once(client: httpx.Client, daemon: Daemon) -> None:
    body = unique()
    first = client.post("/", content=body).text
    inode = daemon.blob(first).stat().st_ino
    assert client.post("/", content=body).text == first
    assert daemon.blob(first).stat().st_ino == inode


def _digests(body: bytes) -> list[tuple[str, str]]:
    def b64(name: str) -> str:
        return base64.b64encode(hashlib.new(name, body).digest()).decode()

    return [
        ("repr-digest", f"sha-256=:{b64('sha256')}:"),
        ("content-digest", f"sha-512=:{b64('sha512')}:"),
        ("content-digest", f"unknown=:AAAA:, md5=:{b64('md5')}:"),
        ("content-md5", b64("md5")),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("size", [100, 300_000])
def test_an_announced_digest_is_checked(client: httpx.Client, number: int, size: int) -> None:
    body = unique(size)
    header, value = _digests(body)[number]
    assert client.post("/", content=body, headers={header: value}).status_code == 200
    other = unique(size)
    answer = client.post("/", content=other, headers={header: value})
    assert answer.status_code == 422
    assert client.get(f"/{sha256(other)}").status_code == 404


def test_file_hash_of_an_upload_is_checked_in_any_algorithm(client: httpx.Client) -> None:
    body = unique()
    for name in ("sha256", "md5", "sha1", "sha512"):
        digest = hashlib.new(name, body).hexdigest()
        assert client.post(f"/?file_hash={digest}", content=body).status_code == 200
        answer = client.post(f"/?file_hash={digest}", content=b"x" + body)
        assert answer.status_code == 422
        assert digest in answer.json()["detail"]
    assert client.post("/?file_hash=xyz", content=body).status_code == 400
    assert client.post("/", content=body, headers={"content-md5": "!"}).status_code == 400


def test_digests_of_a_form_cover_the_body_and_those_of_a_part_the_part(client: httpx.Client) -> None:
    body = unique()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()

    def form(content_md5: str) -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\nContent-MD5: {content_md5}\r\n\r\n'
        return head.encode() + body + b"\r\n--b--\r\n"

    whole = base64.b64encode(hashlib.sha256(form(md5)).digest()).decode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    digest = {"content-digest": f"sha-256=:{whole}:"}
    assert client.post("/", content=form(md5), headers={**headers, **digest}).status_code == 200
    assert client.post("/", content=form(md5).replace(b'"x"', b'"y"'), headers={**headers, **digest}).status_code == 422
    wrong = base64.b64encode(hashlib.md5(b"").digest()).decode()
    assert client.post("/", content=form(wrong), headers=headers).status_code == 422


@pytest.mark.parametrize("life", ["0", "-1", "soon", "1y", "", "9999999999999d", "1e3"])
def test_a_life_that_makes_no_sense_is_refused(client: httpx.Client, life: str) -> None:
    assert client.post(f"/?expires_in={life}", content=unique()).status_code == 400


def test_all_algorithms_name_files(start_daemon: StartDaemon) -> None:
    import blake3

    body = unique()
    expected = {name: hashlib.new(name, body).hexdigest() for name in ("sha256", "md5", "sha1", "sha512")}
    expected["blake3"] = blake3.blake3(body).hexdigest()
    for name, digest in expected.items():
        daemon = start_daemon("--hash", name, "--workers", "1")
        assert httpx.post(daemon.url, content=body).text == digest
        assert httpx.get(f"{daemon.url}/{digest}").content == body
        assert ("repr-digest" in httpx.head(f"{daemon.url}/{digest}").headers) is (name in ("sha256", "sha512"))
        daemon.kill()


def test_a_store_of_the_first_program_is_served_and_deleted_from(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "old"
    bodies = [unique() for _ in range(5)]
    for body in bodies:
        digest = hashlib.md5(body).hexdigest()
        (store / digest[:2]).mkdir(parents=True, exist_ok=True)
        (store / digest[:2] / digest).write_bytes(body)
    daemon = start_daemon("--workers", "1", store=store)
    for body in bodies:
        digest = hashlib.md5(body).hexdigest()
        assert httpx.get(f"{daemon.url}/?file_hash={digest}").content == body
        assert httpx.delete(f"{daemon.url}/?file_hash={digest}").status_code == 200
        assert httpx.get(f"{daemon.url}/?file_hash={digest}").status_code == 404
        assert not daemon.blob(digest).exists()
    assert httpx.post(daemon.url, content=bodies[0]).text == sha256(bodies[0])
