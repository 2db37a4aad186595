"""Resumable uploads over HTTP: tus 1.0.0 and its extensions, and what clients get wrong."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.api.tus_client import CHUNK, Tus, digest, encoded, some
from tests.care import call, execute
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token, revoke_token

MIB = 1 << 20


@pytest.fixture
def tus(client: httpx.Client) -> Tus:
    return Tus(client)


def unfinished(daemon: Daemon) -> list[str]:
    """Return the names in the folder of uploads under way."""
    return sorted(path.name for path in (daemon.store / ".filestored" / "uploads").iterdir())


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def checksum(body: bytes, algorithm: str = "sha1") -> str:
    return f"{algorithm} {b64encode(hashlib.new(algorithm, body).digest()).decode()}"


# what is said beforehand


def test_options_says_what_is_possible(tus: Tus) -> None:
    for path in ("/v1/uploads", "/v1/uploads/" + "0" * 32):
        answer = tus.client.options(path)
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert set(answer.headers["tus-extension"].split(",")) == {
            "creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination",
            "concatenation",
        }  # fmt: skip
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,md5"
        assert "tus-max-size" not in answer.headers


@pytest.mark.parametrize("version", [{}, {"Tus-Resumable": "0.2.2"}])
def test_without_the_right_version_it_is_412(tus: Tus, version: dict[str, str]) -> None:
    path = tus.begin(5)
    for method, target in (("POST", "/v1/uploads"), ("HEAD", path), ("PATCH", path), ("DELETE", path)):
        answer = tus.client.request(method, target, headers={"Upload-Length": "5", "Upload-Offset": "0", **version})
        assert answer.status_code == 412
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-resumable"] == "1.0.0"
    assert tus.offset(path) == 0


# from beginning to end


def test_an_upload_in_pieces_becomes_a_file(tus: Tus) -> None:
    body = some(3_000_000)
    answer = tus.create(len(body), Upload_Metadata=encoded(filename="моя.png", filetype="image/png"))
    path = answer.headers["location"]
    assert answer.status_code == 201
    assert answer.headers["upload-offset"] == "0"
    assert "upload-expires" in answer.headers
    assert "filestored-hash" not in answer.headers
    for start in range(0, len(body), 1_000_000):
        answer = tus.patch(path, start, body[start : start + 1_000_000])
        assert answer.status_code == 204
        assert int(answer.headers["upload-offset"]) == start + 1_000_000
        assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["filestored-hash"] == digest(body)
    head = tus.head(path)
    assert head.headers["filestored-hash"] == digest(body)
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(body))
    file = tus.client.get(f"/v1/files/{digest(body)}").json()
    assert (file["name"], file["type"], file["size"]) == ("моя.png", "image/png", len(body))
    assert tus.client.get("/" + digest(body)).content == body


def test_every_answer_speaks_the_protocol(tus: Tus) -> None:
    path = tus.begin(5)
    for answer in (
        tus.create(1), tus.head(path), tus.patch(path, 3), tus.patch(path, 0, b"abc"), tus.head(path + "0"),
        tus.ask("DELETE", path),
    ):  # fmt: skip
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert answer.headers["cache-control"] == "no-store"


def test_the_first_bytes_may_come_with_the_beginning(tus: Tus) -> None:
    body = some(200_000)
    answer = tus.create(len(body), body[:50_000])
    assert answer.status_code == 201
    assert answer.headers["upload-offset"] == "50000"
    last = tus.patch(answer.headers["location"], 50_000, body[50_000:])
    assert last.headers["filestored-hash"] == digest(body)
    whole = tus.create(len(body), body)
    assert (whole.status_code, whole.headers["filestored-hash"]) == (201, digest(body))


def test_an_empty_file_is_complete_as_soon_as_it_is_begun(tus: Tus) -> None:
    answer = tus.create(0, Upload_Metadata=encoded(filename="empty"))
    assert answer.headers["filestored-hash"] == digest(b"")
    assert tus.head(answer.headers["location"]).headers["filestored-hash"] == digest(b"")


def test_the_length_may_be_told_later(tus: Tus) -> None:
    body = some(1000)
    path = tus.begin(None)
    head = tus.head(path)
    assert head.headers["upload-defer-length"] == "1"
    assert "upload-length" not in head.headers
    assert tus.patch(path, 0, body[:600]).headers["upload-offset"] == "600"
    assert tus.patch(path, 600, b"", Upload_Length=599).status_code == 400
    answer = tus.patch(path, 600, body[600:], Upload_Length=1000)
    assert answer.headers["filestored-hash"] == digest(body)
    # with nothing but the length an upload is complete, too
    path = tus.begin(None)
    tus.patch(path, 0, body)
    assert tus.patch(path, 1000, b"", Upload_Length=1000).headers["filestored-hash"] == digest(body)


def test_metadata_may_be_empty_and_comes_back_as_it_was(tus: Tus) -> None:
    assert "upload-metadata" not in tus.head(tus.begin(1, Upload_Metadata="")).headers
    said = encoded(filename="a.txt", colour="blue") + ",flag"
    assert tus.head(tus.begin(1, Upload_Metadata=said)).headers["upload-metadata"] == said


def test_metadata_says_name_type_life_and_hash(tus: Tus) -> None:
    body = some(100)
    path = tus.begin(100, Upload_Metadata=encoded(name="x/../y.md", type="text/plain", expires_in="1h"))
    tus.patch(path, 0, body)
    answer = tus.client.get("/" + digest(body))
    assert "sunset" in answer.headers
    assert tus.client.get(f"/v1/files/{digest(body)}").json()["name"] == "y.md"


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha512"])
def test_the_hash_in_the_metadata_is_demanded(tus: Tus, daemon: Daemon, algorithm: str) -> None:
    body = some(5000)
    right = hashlib.new(algorithm, body).hexdigest()
    path = tus.begin(5000, body[:2000], Upload_Metadata=encoded(hash=right))
    assert tus.patch(path, 2000, body[2000:]).headers["filestored-hash"] == digest(body)
    path = tus.begin(5000, Upload_Metadata=encoded(hash=right.upper()))
    wrong = tus.patch(path, 0, body[::-1])
    assert wrong.status_code == 422
    assert right in wrong.json()["detail"]
    assert tus.head(path).status_code == 404
    assert tus.client.head("/" + digest(body[::-1])).status_code == 404
    assert id_of(path) not in unfinished(daemon)


def test_content_that_is_stored_already_is_stored_once(tus: Tus) -> None:
    body = some(2000)
    tus.client.post("/", content=body)
    path = tus.begin(2000, Upload_Metadata=encoded(filename="second"))
    assert tus.patch(path, 0, body).headers["filestored-hash"] == digest(body)
    assert tus.client.get(f"/v1/files/{digest(body)}").json()["name"] == "second"


def test_an_upload_is_ended_by_delete_and_a_file_that_came_of_it_stays(tus: Tus, daemon: Daemon) -> None:
    path = tus.begin(10, b"12345")
    assert id_of(path) in unfinished(daemon)
    assert tus.ask("DELETE", path).status_code == 204
    assert id_of(path) not in unfinished(daemon)
    for answer in (tus.head(path), tus.patch(path, 5, b"67890"), tus.ask("DELETE", path)):
        assert answer.status_code == 404
    body = some(10)
    path = tus.begin(10, body)
    assert tus.ask("DELETE", path).status_code == 204
    assert tus.client.get("/" + digest(body)).content == body


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_the_method_may_be_named_in_a_header(tus: Tus, method: str) -> None:
    path = tus.begin(3)
    answer = tus.ask("POST", path, b"abc", X_HTTP_Method_Override=method, Upload_Offset=0, Content_Type=CHUNK)
    assert answer.status_code == 204
    assert tus.head(path).status_code == (200 if method == "PATCH" else 404)
    assert tus.ask("POST", path).status_code == 405


# what is wrong


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Upload_Length": "-1"}, {"Upload_Length": "x"}, {"Upload_Length": "1.5"}, {"Upload_Length": "9" * 30},
        {"Upload_Length": 5, "Upload_Defer_Length": 1}, {"Upload_Defer_Length": 2}, {"Upload_Length": "+5"},
        {"Upload_Length": 5, "Upload_Metadata": "name ?"}, {"Upload_Length": 5, "Upload_Metadata": "a YQ==,a YQ=="},
        {"Upload_Length": 5, "Upload_Metadata": ","}, {"Upload_Length": 5, "Upload_Metadata": encoded(hash="xyz")},
        {"Upload_Length": 5, "Upload_Metadata": encoded(expires_in="-1")},
        {"Upload_Length": 5, "Upload_Metadata": encoded(filetype="no/n/sense")},
        {"Upload_Length": 5, "Upload_Metadata": "a " + "QQ" * 5000}, {"Upload_Length": 5, "Upload_Concat": "half"},
        {"Upload_Concat": "final;"}, {"Upload_Concat": "final;/etc/passwd"},
        {"Upload_Concat": "final;/v1/uploads/../../x"}, {"Upload_Length": 5, "Upload_Concat": "final;/v1/uploads/0"},
    ],
)  # fmt: skip
def test_a_beginning_that_makes_no_sense_is_400(tus: Tus, headers: dict[str, str | int]) -> None:
    answer = tus.ask("POST", "/v1/uploads", **headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"]


def test_a_wrong_offset_is_409_and_says_the_right_one(tus: Tus) -> None:
    path = tus.begin(10, b"123")
    for offset in (0, 2, 4, 10, 11):
        answer = tus.patch(path, offset, b"x")
        assert answer.status_code == 409
        assert answer.headers["upload-offset"] == "3"
    for nonsense in ("-1", "x", ""):
        assert tus.patch(path, nonsense, b"x").status_code == 400
    assert tus.ask("PATCH", path, b"x", Content_Type=CHUNK).status_code == 400
    assert tus.offset(path) == 3


def test_another_media_type_is_415(tus: Tus) -> None:
    path = tus.begin(3)
    assert tus.ask("PATCH", path, b"abc", Upload_Offset=0, Content_Type="text/plain").status_code == 415
    assert tus.ask("PATCH", path, b"abc", Upload_Offset=0).status_code == 415
    assert tus.ask("POST", "/v1/uploads", b"abc", Upload_Length=3, Content_Type="text/plain").status_code == 415
    assert tus.offset(path) == 0


def test_more_than_the_length_is_413_and_nothing_is_lost(tus: Tus) -> None:
    body = some(10)
    path = tus.begin(10, body[:4])
    assert tus.patch(path, 4, body[4:] + b"more").status_code == 413
    assert tus.offset(path) == 4
    assert tus.patch(path, 4, body[4:]).headers["filestored-hash"] == digest(body)
    assert tus.patch(path, 10, b"more").status_code == 413
    assert tus.patch(path, 10).status_code == 204
    assert tus.patch(path, 4).status_code == 409


def test_a_chunked_body_of_more_than_the_length_is_413(tus: Tus, daemon: Daemon) -> None:
    path = tus.begin(100_000)
    with RawConnection(daemon.address) as connection:
        chunk = b"186a1\r\n" + b"x" * 100_001 + b"\r\n0\r\n\r\n"
        head = ["Tus-Resumable: 1.0.0", "Upload-Offset: 0", f"Content-Type: {CHUNK}", "Transfer-Encoding: chunked"]
        status, _, _ = connection.request("PATCH", path, *head, body=chunk)
    assert status == 413
    assert tus.head(path).headers.get("filestored-hash") is None


@pytest.mark.parametrize("name", ["0" * 32, "x", "..", "%2e%2e%2fformat.json", "A" * 32, "0" * 31])
def test_what_is_no_upload_is_404(tus: Tus, daemon: Daemon, name: str) -> None:
    for answer in (
        tus.head(f"/v1/uploads/{name}"), tus.patch(f"/v1/uploads/{name}", 0, b"x"),
        tus.ask("DELETE", f"/v1/uploads/{name}"),
    ):  # fmt: skip
        assert answer.status_code == 404
    assert name not in unfinished(daemon)


def test_get_and_put_are_405(tus: Tus) -> None:
    path = tus.begin(3)
    for method, target in (("GET", path), ("PUT", path), ("GET", "/v1/uploads"), ("DELETE", "/v1/uploads")):
        answer = tus.ask(method, target)
        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"]


# checksums


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_body_that_is_what_its_checksum_says_is_taken(tus: Tus, algorithm: str) -> None:
    body = some(300_000)
    path = tus.begin(len(body), body[:100_000], Upload_Checksum=checksum(body[:100_000], algorithm))
    answer = tus.patch(path, 100_000, body[100_000:], Upload_Checksum=checksum(body[100_000:], algorithm))
    assert answer.headers["filestored-hash"] == digest(body)


def test_a_body_that_is_not_is_460_and_none_of_it_is_kept(tus: Tus) -> None:
    body = some(5 * MIB)
    path = tus.begin(len(body), body[:MIB])
    wrong = tus.patch(path, MIB, body[MIB:][::-1], Upload_Checksum=checksum(body[MIB:]))
    assert wrong.status_code == 460
    assert tus.offset(path) == MIB
    answer = tus.patch(path, MIB, body[MIB:], Upload_Checksum=checksum(body[MIB:]))
    assert answer.headers["filestored-hash"] == digest(body)


@pytest.mark.parametrize("value", ["crc32 AAAA", "sha1", "sha1 AAAA", "sha256 ?", "", "SHA1 " + "A" * 27])
def test_a_checksum_that_makes_no_sense_is_400(tus: Tus, value: str) -> None:
    path = tus.begin(3)
    assert tus.patch(path, 0, b"abc", Upload_Checksum=value).status_code == 400
    assert tus.offset(path) == 0


def test_a_checked_body_that_breaks_off_is_not_kept(tus: Tus, daemon: Daemon) -> None:
    path = tus.begin(10)
    break_off(daemon, path, 0, b"12345", 10, f"Upload-Checksum: {checksum(b'1234567890')}")
    assert tus.offset(path) == 0


# parts


def part(tus: Tus, body: bytes, **headers: str) -> str:
    return tus.begin(len(body), body, Upload_Concat="partial", **headers)


def join(tus: Tus, *paths: str, **headers: str) -> httpx.Response:
    return tus.ask("POST", "/v1/uploads", Upload_Concat="final;" + " ".join(paths), **headers)


def test_parts_are_joined_in_their_order(tus: Tus, daemon: Daemon) -> None:
    bodies = [some(100_000), some(1), b"", some(2 * MIB)]
    paths = [part(tus, body) for body in bodies]
    assert tus.head(paths[0]).headers["upload-concat"] == "partial"
    assert "filestored-hash" not in tus.head(paths[0]).headers
    absolute = [f"{daemon.url}{paths[0]}", *paths[1:]]
    answer = join(tus, *absolute, Upload_Metadata=encoded(filename="joined.bin"))
    whole = b"".join(bodies)
    assert answer.status_code == 201
    assert answer.headers["filestored-hash"] == digest(whole)
    head = tus.head(answer.headers["location"])
    assert head.headers["upload-concat"] == "final;" + " ".join(absolute)
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(whole))
    assert tus.client.get("/" + digest(whole)).content == whole
    assert tus.client.get(f"/v1/files/{digest(whole)}").json()["name"] == "joined.bin"
    assert not {id_of(path) for path in paths} & set(unfinished(daemon))
    assert tus.client.head("/" + digest(bodies[0])).status_code == 404
    assert tus.patch(answer.headers["location"], len(whole), b"x").status_code == 403
    # the answer may have been lost
    again = join(tus, *absolute)
    assert again.headers["location"] == answer.headers["location"]
    assert join(tus, *reversed(absolute)).status_code == 400


def test_a_part_may_be_there_twice(tus: Tus) -> None:
    body = some(1000)
    path = part(tus, body)
    assert join(tus, path, path).headers["filestored-hash"] == digest(body + body)


def test_what_is_not_whole_or_no_part_is_not_joined(tus: Tus) -> None:
    whole = part(tus, b"abc")
    half = tus.begin(10, b"12345", Upload_Concat="partial")
    file = tus.begin(3, some(3))
    for other in (half, file):
        answer = join(tus, whole, other)
        assert answer.status_code == 400
        assert id_of(other) in answer.json()["detail"]
    assert join(tus, whole, "/v1/uploads/" + "0" * 32).status_code == 404
    assert join(tus, whole, Upload_Length="3").status_code == 400
    assert tus.offset(half) == 5
    assert tus.patch(half, 5, b"67890").status_code == 204
    assert join(tus, whole, half).headers["filestored-hash"] == digest(b"abc1234567890")


def test_the_hash_of_joined_parts_is_demanded_and_the_parts_stay(tus: Tus) -> None:
    paths = [part(tus, b"one"), part(tus, b"two")]
    wrong = join(tus, *paths, Upload_Metadata=encoded(hash=digest(b"twoone")))
    assert wrong.status_code == 422
    right = join(tus, *paths, Upload_Metadata=encoded(hash=hashlib.md5(b"onetwo").hexdigest()))
    assert right.headers["filestored-hash"] == digest(b"onetwo")


# breaking off, and two at once


def patch_head(path: str, offset: int, length: int, *more: str) -> bytes:
    lines = [
        f"PATCH {path} HTTP/1.1", "Host: localhost", "Tus-Resumable: 1.0.0", f"Upload-Offset: {offset}",
        f"Content-Type: {CHUNK}", f"Content-Length: {length}", *more, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def break_off(daemon: Daemon, path: str, offset: int, body: bytes, announced: int, *more: str) -> None:
    """Send part of a body and close the connection."""
    with RawConnection(daemon.address) as connection:
        connection.send(patch_head(path, offset, announced, *more) + body)
        time.sleep(0.1)


@pytest.mark.parametrize("sent", [1, 60_000, 5 * MIB + 17])
def test_what_a_broken_body_brought_is_kept(tus: Tus, daemon: Daemon, sent: int) -> None:
    body = some(6 * MIB)
    path = tus.begin(len(body))
    break_off(daemon, path, 0, body[:sent], len(body))
    assert wait_until(lambda: tus.offset(path) == sent)
    assert tus.patch(path, sent, body[sent:]).headers["filestored-hash"] == digest(body)


def test_a_whole_body_is_stored_though_its_client_does_not_wait(tus: Tus, daemon: Daemon) -> None:
    body = some(100_000)
    path = tus.begin(len(body))
    break_off(daemon, path, 0, body, len(body))
    assert wait_until(lambda: tus.head(path).headers.get("filestored-hash") == digest(body))


def test_a_second_writer_is_locked_out_while_the_first_lives(tus: Tus, daemon: Daemon) -> None:
    body = some(1000)
    path = tus.begin(1000)
    with RawConnection(daemon.address) as first:
        first.send(patch_head(path, 0, 1000) + body[:300])
        time.sleep(0.3)
        assert tus.patch(path, 0, body).status_code == 423
        assert tus.ask("DELETE", path).status_code == 423
        assert tus.offset(path) == 0
        first.send(body[300:])
        status, headers, _ = first.answer()
    assert (status, headers["filestored-hash"]) == (204, digest(body))


def test_who_comes_back_takes_over_as_soon_as_the_old_connection_is_dead(tus: Tus, daemon: Daemon) -> None:
    body = some(400_000)
    path = tus.begin(len(body))
    for _ in range(5):
        offset = tus.offset(path)
        first = RawConnection(daemon.address)
        first.send(patch_head(path, offset, len(body) - offset) + body[offset : offset + 50_000])
        time.sleep(0.1)
        first.socket.close()
        began = time.monotonic()
        assert tus.offset(path) == offset + 50_000
        assert time.monotonic() - began < 0.5
    answer = tus.patch(path, 250_000, body[250_000:])
    assert (answer.status_code, answer.headers["filestored-hash"]) == (204, digest(body))


def test_a_silent_writer_gives_way_to_one_that_asks(tus: Tus, daemon: Daemon) -> None:
    body = some(1000)
    path = tus.begin(1000)
    with RawConnection(daemon.address, 30) as first:
        first.send(patch_head(path, 0, 1000) + body[:300])
        # not before the first one writes: otherwise it would be the one that comes too late
        assert wait_until(lambda: tus.patch(path, 999, b"x").status_code == 423)
        assert wait_until(lambda: tus.patch(path, 0, body).status_code == 409, seconds=25)
        assert first.answer()[0] == 408
    assert tus.patch(path, 300, body[300:]).headers["filestored-hash"] == digest(body)


def test_a_body_that_stops_coming_is_408_and_what_came_is_kept(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--body-timeout", "0.5s", "--workers", "1")
    with httpx.Client(base_url=daemon.url) as client, RawConnection(daemon.address) as connection:
        tus = Tus(client)
        path = tus.begin(1000)
        connection.send(patch_head(path, 0, 1000) + b"x" * 300)
        status, _, body = connection.answer()
        assert status == 408
        assert b"300 bytes" in body
        assert tus.offset(path) == 300


# restarts and crashes


@pytest.fixture
def own(start_daemon: StartDaemon) -> Iterator[tuple[Daemon, Callable[[], Tus]]]:
    """A daemon of one's own, and what makes a client of it as it is now."""
    daemon = start_daemon("--workers", "2")
    clients: list[httpx.Client] = []

    def connect() -> Tus:
        clients.append(httpx.Client(base_url=daemon.url, timeout=30))
        return Tus(clients[-1])

    yield daemon, connect
    for client in clients:
        client.close()


def test_an_upload_goes_on_after_a_restart(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    body = some(3 * MIB)
    path = connect().begin(len(body), body[:MIB])
    daemon.stop()
    daemon.start()
    tus = connect()
    assert tus.offset(path) == MIB
    assert tus.patch(path, MIB, body[MIB:]).headers["filestored-hash"] == digest(body)


def test_a_kill_takes_back_little_of_a_large_body(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    body = some(90 * MIB)
    path = connect().begin(len(body))
    with RawConnection(daemon.address) as connection:
        connection.send(patch_head(path, 0, len(body)) + body[: 80 * MIB])
        time.sleep(0.5)
        daemon.kill()
    daemon.start()
    tus = connect()
    offset = tus.offset(path)
    assert 32 * MIB <= offset <= 80 * MIB
    assert tus.patch(path, offset, body[offset:]).headers["filestored-hash"] == digest(body)
    assert unfinished(daemon) == []


def test_bytes_behind_what_was_flushed_do_not_count(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    body = some(1000)
    path = connect().begin(1000, body[:400])
    daemon.kill()
    with (daemon.store / ".filestored" / "uploads" / id_of(path)).open("ab") as file:
        file.write(b"what a power cut left")
    daemon.start()
    tus = connect()
    assert tus.offset(path) == 400
    assert tus.patch(path, 400, body[400:]).headers["filestored-hash"] == digest(body)


def test_an_upload_whose_bytes_are_lost_is_404_for_good(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    tus = connect()
    path = tus.begin(1000, b"x" * 400)
    (daemon.store / ".filestored" / "uploads" / id_of(path)).write_bytes(b"x" * 399)
    assert tus.patch(path, 400, b"x" * 600).status_code == 404
    assert tus.head(path).status_code == 404


def test_a_start_removes_what_no_upload_needs(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    path = connect().begin(10, b"12345")
    daemon.stop()
    folder = daemon.store / ".filestored" / "uploads"
    for name in ("0" * 32, id_of(path) + ".copy"):
        (folder / name).write_bytes(b"left over")
    daemon.start()
    assert unfinished(daemon) == [id_of(path)]


def test_an_upload_never_changes_a_blob_that_it_became(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    """As a crash leaves it between publishing the bytes and noting that in the catalogue."""
    daemon, connect = own
    body = some(1000)
    path = connect().begin(1000, body[:900])
    daemon.kill()
    bytes_ = daemon.store / ".filestored" / "uploads" / id_of(path)
    with bytes_.open("ab") as file:
        file.write(body[900:])
    bytes_.chmod(0o444)
    blob = daemon.blob(digest(body))
    blob.parent.mkdir(exist_ok=True)
    blob.hardlink_to(bytes_)
    daemon.start()
    tus = connect()
    assert tus.offset(path) == 900
    other = body[:900] + some(100)
    assert tus.patch(path, 900, other[900:]).headers["filestored-hash"] == digest(other)
    assert blob.read_bytes() == body
    assert daemon.blob(digest(other)).read_bytes() == other


def test_another_worker_goes_on_and_the_hash_is_right(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    body = some(40 * 50_000)
    path = connect().begin(len(body))
    for start in range(0, len(body), 50_000):
        answer = connect().patch(path, start, body[start : start + 50_000])
        assert answer.status_code == 204
    assert answer.headers["filestored-hash"] == digest(body)
    log = daemon.read_log()
    assert len({line.split("id=")[1][:4] for line in log.splitlines() if "PATCH" in line}) == 2


# owners, limits, time


def test_an_upload_is_its_owners(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "owned"
    tokens = {name: make_token(store, name, rights) for name, rights in (
        ("ann", "write"), ("bob", "read,write,delete"), ("root", "admin"), ("reader", "read"),
    )}  # fmt: skip
    daemon = start_daemon("--anonymous", "none", store=store)
    with httpx.Client(base_url=daemon.url, headers=bearer(tokens["ann"])) as client:
        ann = Tus(client)
        path = ann.begin(5, b"ab", Upload_Concat="partial")
        for name in ("bob", "root"):
            with httpx.Client(base_url=daemon.url, headers=bearer(tokens[name])) as other:
                foreign = Tus(other)
                assert foreign.head(path).status_code == 404
                assert foreign.patch(path, 2, b"cde").status_code == 404
                assert foreign.ask("DELETE", path).status_code == 404
                mine = part(foreign, b"mine")
                assert join(foreign, mine, path).status_code == 404
        with httpx.Client(base_url=daemon.url, headers=bearer(tokens["reader"])) as other:
            assert Tus(other).create(5).status_code == 403
            assert Tus(other).head(path).status_code == 403
        with httpx.Client(base_url=daemon.url) as other:
            assert Tus(other).head(path).status_code == 401
            assert other.options("/v1/uploads").status_code == 204
        assert ann.patch(path, 2, b"cde").status_code == 204
        body = some(10)
        assert ann.create(10, body).headers["filestored-hash"] == digest(body)


def test_a_quota_holds_for_what_is_under_way_too(start_daemon: StartDaemon, tmp_path: Path) -> None:
    token = make_token(tmp_path / "quota", "ann", "read,write,delete", quota=1000)
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "quota")
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as client:
        tus = Tus(client)
        assert tus.create(1001).status_code == 413
        first, second = tus.begin(700), tus.begin(700)
        assert tus.patch(first, 0, some(600)).status_code == 204
        assert tus.patch(second, 0, some(500)).status_code == 413
        assert tus.patch(second, 0, some(400)).status_code == 204
        assert tus.patch(first, 600, some(100)).status_code == 413
        assert tus.ask("DELETE", second).status_code == 204
        assert tus.patch(first, 600, some(100)).status_code == 204
        assert tus.create(301).status_code == 413
        deferred = tus.begin(None)
        assert tus.patch(deferred, 0, some(301)).status_code == 413
        assert tus.patch(deferred, 0, some(300), Upload_Length=300).status_code == 204


def test_the_largest_upload_is_said_and_demanded(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--max-upload-size", "1000", "--workers", "1")
    with httpx.Client(base_url=daemon.url) as client:
        tus = Tus(client)
        assert client.options("/v1/uploads").headers["tus-max-size"] == "1000"
        assert tus.create(1001).status_code == 413
        path = tus.begin(None)
        assert tus.patch(path, 0, b"x" * 1001).status_code == 413
        assert tus.patch(path, 0, b"x" * 600).status_code == 204
        assert tus.patch(path, 600, b"x" * 401).status_code == 413
        assert tus.patch(path, 600, b"", Upload_Length=1001).status_code == 413
        parts = [part(tus, b"x" * 600), part(tus, b"y" * 600)]
        assert join(tus, *parts).status_code == 413


def test_space_is_left_free(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--min-free-space", "1000TiB", "--workers", "1")
    with httpx.Client(base_url=daemon.url) as client:
        assert Tus(client).create(10).status_code == 507


def test_an_upload_that_nobody_goes_on_with_is_given_up(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--upload-expiry", "1s", "--workers", "2")
    with httpx.Client(base_url=daemon.url) as client:
        tus = Tus(client)
        body = some(10)
        complete, path = tus.begin(10, body), tus.begin(10, b"12345")
        assert tus.head(path).headers["upload-expires"].endswith(" GMT")
        time.sleep(1.1)
        assert tus.head(path).status_code == 404
        assert tus.patch(path, 5, b"67890").status_code == 404
        assert wait_until(lambda: unfinished(daemon) == [] and not execute(daemon.store, "SELECT id FROM uploads"))
        assert tus.head(complete).status_code == 404
        assert client.get("/" + digest(body)).content == body


def test_an_upload_lives_on_from_its_last_byte(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--upload-expiry", "2s", "--workers", "1")
    with httpx.Client(base_url=daemon.url) as client:
        tus = Tus(client)
        path = tus.begin(5)
        for offset in range(4):
            time.sleep(0.8)
            assert tus.patch(path, offset, b"x").status_code == 204
        assert tus.patch(path, 4, b"x").headers["filestored-hash"] == digest(b"xxxxx")


def test_gc_removes_abandoned_uploads(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    tus = connect()
    kept, gone = tus.begin(10, b"12345"), tus.begin(10, b"123456")
    daemon.stop()
    execute(daemon.store, "UPDATE uploads SET expires_at = 1 WHERE id = ?", id_of(gone))
    ended = call(daemon.store, "gc", "--json")
    assert ended.status == 0, ended.errors
    (said,) = ended.json()
    assert (said["uploads"], said["freed_bytes"]) == (1, 6)
    assert unfinished(daemon) == [id_of(kept)]
    daemon.start()
    assert connect().offset(kept) == 5


def test_metrics_count_what_is_under_way(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    _, connect = own
    tus = connect()
    tus.begin(10, b"12345")
    tus.begin(3, some(3))
    text = tus.client.get("/metrics").text
    assert "filestored_unfinished_uploads 1.0" in text
    assert "filestored_unfinished_upload_bytes 5.0" in text
    assert 'route="/v1/uploads"' in text


def test_a_page_of_an_allowed_origin_sees_what_it_needs(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--cors-origin", "https://app.example", "--workers", "1")
    origin = {"Origin": "https://app.example"}
    with httpx.Client(base_url=daemon.url, headers=origin) as client:
        asked = client.options(
            "/v1/uploads",
            headers={
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": "tus-resumable,upload-offset,content-type",
            },
        )
        assert asked.status_code == 204
        assert "PATCH" in asked.headers["access-control-allow-methods"]
        answer = Tus(client).create(5)
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"location", "upload-offset", "upload-length", "upload-expires", "filestored-hash", "tus-resumable",
                "tus-version", "tus-extension", "tus-max-size", "upload-metadata"} <= exposed  # fmt: skip


# what takes no room, and no time


def room_taken(daemon: Daemon) -> int:
    """Return how many bytes lie in the folders of uploads under way and of staged bytes."""
    private = daemon.store / ".filestored"
    return sum(path.stat().st_size for folder in ("uploads", "tmp") for path in (private / folder).iterdir())


def test_what_is_refused_takes_no_room(start_daemon: StartDaemon, tmp_path: Path) -> None:
    token = make_token(tmp_path / "room", "ann", "read,write", quota=4 * MIB)
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "room")
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as client:
        tus = Tus(client)
        for _ in range(3):
            assert tus.patch(tus.begin(None), 0, some(3 * MIB), Upload_Checksum=checksum(b"other")).status_code == 460
        assert wait_until(lambda: room_taken(daemon) == 0)
        part_ = tus.begin(MIB, some(MIB), Upload_Concat="partial")
        assert join(tus, *[part_] * 5).status_code == 413
        assert room_taken(daemon) == MIB


def test_what_a_crash_left_behind_the_offset_is_cut_off_at_start(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    path = connect().begin(1000, b"x" * 400)
    daemon.kill()
    with (daemon.store / ".filestored" / "uploads" / id_of(path)).open("ab") as file:
        file.write(bytes(MIB))
    daemon.start()
    assert room_taken(daemon) == 400


def test_a_beginning_that_fails_leaves_nothing_that_nobody_can_name(tus: Tus, daemon: Daemon) -> None:
    before = execute(daemon.store, "SELECT count(*) FROM uploads")
    assert tus.create(10, b"12345", Upload_Checksum=checksum(b"other")).status_code == 460
    assert tus.create(5, b"123456").status_code == 413
    assert execute(daemon.store, "SELECT count(*) FROM uploads") == before


def test_parts_that_are_being_joined_are_locked_and_end_as_one_file(tus: Tus, daemon: Daemon) -> None:
    bodies = [some(30 * MIB), some(30 * MIB)]
    paths = [part(tus, body) for body in bodies]
    with ThreadPoolExecutor(3) as threads, httpx.Client(base_url=daemon.url, timeout=60) as client:
        answers = list(threads.map(lambda _: join(Tus(client), *paths), range(3)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 201
    assert set(statuses) <= {201, 423}
    assert len({answer.headers["location"] for answer in answers if answer.status_code == 201}) == 1
    assert join(tus, *paths).headers["filestored-hash"] == digest(b"".join(bodies))


def test_a_stop_keeps_what_is_on_its_way_and_does_not_wait_for_the_rest(
    own: tuple[Daemon, Callable[[], Tus]],
) -> None:
    daemon, connect = own
    body = some(1000)
    path = connect().begin(1000)
    with RawConnection(daemon.address) as connection:
        connection.send(patch_head(path, 0, 1000) + body[:300])
        time.sleep(0.3)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 10
        status, headers, said = connection.answer()
        assert (status, headers["retry-after"]) == (503, "2")
        assert b"300 bytes" in said
    daemon.start()
    tus = connect()
    assert tus.offset(path) == 300
    assert tus.patch(path, 300, body[300:]).headers["filestored-hash"] == digest(body)


def test_an_upload_is_no_more_complete_when_its_file_is_deleted(tus: Tus) -> None:
    body = some(100)
    path = tus.begin(100, body)
    assert tus.head(path).headers["filestored-hash"] == digest(body)
    assert tus.client.delete("/" + digest(body)).status_code == 200
    assert tus.head(path).status_code == 404
    tus.client.post("/", content=body)
    assert tus.head(path).headers["filestored-hash"] == digest(body)


def test_a_token_that_is_revoked_meanwhile_adds_nothing(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "revoked"
    token = make_token(store, "ann", "read,write")
    daemon = start_daemon("--anonymous", "none", "--workers", "1", store=store)
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as client:
        path = Tus(client).begin(100 * MIB)
        with RawConnection(daemon.address, 30) as connection:
            connection.send(patch_head(path, 0, 100 * MIB, f"Authorization: Bearer {token}") + bytes(MIB))
            revoke_token(store, "ann")
            time.sleep(1.5)
            connection.send(bytes(60 * MIB))
            assert connection.answer()[0] == 401
    assert execute(store, "SELECT flushed FROM uploads") == [(0,)]
    assert wait_until(lambda: room_taken(daemon) == 0)


def test_an_upload_whose_bytes_are_too_few_is_404_for_head_too(own: tuple[Daemon, Callable[[], Tus]]) -> None:
    daemon, connect = own
    tus = connect()
    path = tus.begin(1000, b"x" * 400)
    (daemon.store / ".filestored" / "uploads" / id_of(path)).write_bytes(b"x" * 399)
    assert tus.head(path).status_code == 404
    assert not execute(daemon.store, "SELECT id FROM uploads")


def test_counting_what_is_under_way_does_not_walk_through_what_is_complete(tus: Tus, daemon: Daemon) -> None:
    tus.begin(1, b"x")
    for whose in ("owner = 'a' AND ", ""):
        query = f"SELECT count(*), sum(flushed) FROM uploads WHERE {whose}digest IS NULL AND joined_as IS NULL"
        plan = execute(daemon.store, f"EXPLAIN QUERY PLAN {query}")
        assert "INDEX ix_uploads_owner" in str(plan)
