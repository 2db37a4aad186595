"""The JSON API: files as objects, listings, changes, what is missing, sums; and every parameter given wrongly."""

import json
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.bad_days.consistency import sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token, revoke_token


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[str, httpx.Client]]]:
    """A daemon with two workers, and clients of two owners and of an admin."""
    store = tmp_path_factory.mktemp("owners") / "store"
    kinds = {"anna": "read,write,delete", "boris": "read,write,delete", "root": "admin", "reader": "read"}
    tokens = {name: make_token(store, name, kind) for name, kind in kinds.items()}
    daemon = Daemon(store, "--workers", "2").start()
    clients = {name: httpx.Client(base_url=daemon.url, headers=bearer(token)) for name, token in tokens.items()}
    yield daemon, clients
    for client in clients.values():
        client.close()
    assert daemon.stop() == 0


Owners = tuple[Daemon, dict[str, httpx.Client]]


@pytest.fixture
def anna(owners: Owners) -> httpx.Client:
    return owners[1]["anna"]


@pytest.fixture
def boris(owners: Owners) -> httpx.Client:
    return owners[1]["boris"]


@pytest.fixture
def root(owners: Owners) -> httpx.Client:
    return owners[1]["root"]


def names_of(client: httpx.Client, **query: object) -> list[str]:
    """Return the names on all pages."""
    found: list[str] = []
    cursor = None
    while True:
        page = client.get("/v1/files", params={**query, **({"cursor": cursor} if cursor else {})}).json()  # type: ignore[dict-item]
        found += [file["name"] for file in page["files"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_an_upload_answers_a_file_object_201_when_new_for_its_owner(anna: httpx.Client, boris: httpx.Client) -> None:
    body = os.urandom(50)
    first = anna.post("/v1/files", params={"name": "a.png", "expires_in": "1h"}, content=body)
    assert first.status_code == 201
    assert first.headers["location"] == f"/{sha256(body)}"
    file = first.json()
    assert list(file) == [
        "hash", "algorithm", "size", "name", "type", "owner", "created_at", "expires_at", "url",
    ]  # fmt: skip
    assert (file["hash"], file["algorithm"], file["size"]) == (sha256(body), "sha256", 50)
    assert (file["name"], file["type"], file["owner"]) == ("a.png", "image/png", "anna")
    life = datetime.fromisoformat(file["expires_at"]) - datetime.fromisoformat(file["created_at"])
    assert abs(life - timedelta(hours=1)) < timedelta(seconds=2)
    assert httpx.get(file["url"], headers=anna.headers).content == body
    assert anna.post("/v1/files", content=body).status_code == 200
    assert boris.post("/v1/files", content=body).status_code == 201
    form = anna.post("/v1/files", files=[("a", ("x", b"1")), ("b", ("y", b"2"))])
    assert [file["name"] for file in form.json()] == ["x", "y"]


def test_a_file_object_is_shown_to_its_owner_and_to_an_admin(
    anna: httpx.Client, boris: httpx.Client, root: httpx.Client
) -> None:
    digest = anna.post("/v1/files", params={"name": "mine"}, content=os.urandom(20)).json()["hash"]
    assert anna.get(f"/v1/files/{digest}").json()["name"] == "mine"
    assert anna.get(f"/v1/files/{digest.upper()}").json()["hash"] == digest
    assert boris.get(f"/v1/files/{digest}").status_code == 404
    assert boris.get(f"/{digest}").status_code == 200
    assert root.get(f"/v1/files/{digest}").json()["owner"] == "anna"
    for path in (
        "/v1/files/xyz",
        "/v1/files/..%2F..%2Fetc%2Fpasswd",
        f"/v1/files/{digest[:-1]}",
        f"/v1/files/{digest}/",
    ):
        assert root.get(path).status_code == 404, path


def test_deleting_takes_the_callers_own_file_and_an_admin_everybodys(owners: Owners) -> None:
    daemon, clients = owners
    anna, boris, root = clients["anna"], clients["boris"], clients["root"]
    body = os.urandom(20)
    for client in (anna, boris):
        digest = client.post("/v1/files", content=body).json()["hash"]
    assert anna.delete(f"/v1/files/{digest}").status_code == 200
    assert anna.delete(f"/v1/files/{digest}").status_code == 404
    assert anna.get(f"/v1/files/{digest}").status_code == 404
    assert boris.get(f"/{digest}").content == body
    anna.post("/", content=body)
    assert root.delete(f"/{digest}").status_code == 200
    assert boris.get(f"/{digest}").status_code == 404
    assert not daemon.blob(digest).exists()


def test_a_change_is_of_the_callers_own_file_and_seen_at_once(
    anna: httpx.Client, boris: httpx.Client, root: httpx.Client
) -> None:
    body = os.urandom(20)
    for client in (boris, anna):
        digest = client.post("/v1/files", params={"name": "old.txt"}, content=body).json()["hash"]
    path, end = f"/v1/files/{digest}", (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for _ in range(4):
        assert "old.txt" in anna.get(f"/{digest}").headers["content-disposition"]
    changed = anna.patch(path, json={"name": "../новое имя.png", "type": None, "expires_at": end}).json()
    assert (changed["name"], changed["type"]) == ("новое имя.png", "image/png")
    assert datetime.fromisoformat(changed["expires_at"]).timestamp() == pytest.approx(
        datetime.fromisoformat(end).timestamp(), abs=0.002
    )
    for _ in range(4):
        head = anna.head(f"/{digest}").headers
        assert "%D0%BD" in head["content-disposition"]
        assert head["content-type"] == "image/png"
        assert "sunset" in head
    assert boris.get(path).json()["name"] == "old.txt"
    assert anna.patch(path, json={"name": None, "expires_at": None}).json()["name"] is None
    assert anna.get(path).json()["expires_at"] is None
    assert root.patch(path, json={"type": "text/html"}).json()["type"] == "text/html"
    assert root.delete(path).status_code == 200
    assert anna.patch(path, json={"name": "x"}).status_code == 404


@pytest.mark.parametrize(
    "patch",
    [
        b"", b"{}", b"[]", b"null", b"nonsense", b'{"name": 5}', b'{"nmae": "x"}', b'{"type": "nonsense"}',
        b'{"expires_at": "tomorrow"}', b'{"expires_at": "2020-01-01T00:00:00Z"}',
        b'{"expires_at": "2099-01-01T00:00:00"}',
        b'{"expires_at": true}', b'{"expires_at": "99999-01-01T00:00:00Z"}', b'{"expires_at": 1e300}',
        b'{"name": "\xff"}', b"[" * 16_000, b'{"a":' * 3000, b'{"name": "a", "name": ',
        b'{"type": "a/b\\r\\nx: y"}',
        b'{"expires_at": "9999-12-31T23:59:59-23:59"}', b'{"expires_at": -1e18}', b'{"name": {"a": []}}',
    ],
)  # fmt: skip
def test_a_patch_that_makes_no_sense_is_400_and_changes_nothing(anna: httpx.Client, patch: bytes) -> None:
    made = anna.post("/v1/files", params={"name": "same"}, content=b"same").json()
    answer = anna.patch(f"/v1/files/{made['hash']}", content=patch)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.json()["detail"]) > 10
    assert anna.get(f"/v1/files/{made['hash']}").json() == made


@pytest.mark.parametrize(
    "name",
    ["\x00\x1b", "a" * 10_000, "..", "/", "\\", " ", "a\u202eb"],
)
def test_whatever_name_is_given_a_clean_one_is_kept(anna: httpx.Client, name: str) -> None:
    digest = anna.post("/v1/files", content=os.urandom(9)).json()["hash"]
    kept = anna.patch(f"/v1/files/{digest}", json={"name": name}).json()["name"]
    assert kept is None or (kept.isprintable() and len(kept.encode()) <= 255 and "/" not in kept and "\\" not in kept)


# listings


@pytest.fixture(scope="module")
def shelf(owners: Owners) -> Iterator[tuple[httpx.Client, list[dict[str, object]]]]:
    """An owner with 25 files of many names, types and sizes."""
    daemon, _ = owners
    token = make_token(daemon.store, "shelf", "read,write")
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as client:
        made = []
        for number in range(25):
            name = f"{['report', 'Отчёт', 'photo'][number % 3]}-{number:02d}.{['pdf', 'txt', 'jpg'][number % 3]}"
            made.append(
                client.post("/v1/files", params={"name": name}, content=b"%02d" % number * (number % 5 + 1)).json()
            )
        yield client, made


@pytest.mark.parametrize("limit", [1, 7, 25, 1000])
@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-name", "size", "-size", None])
def test_pages_give_every_file_once_in_order(
    shelf: tuple[httpx.Client, list[dict[str, object]]], sort: str | None, limit: int
) -> None:
    client, made = shelf
    names = names_of(client, limit=limit, **({"sort": sort} if sort else {}))
    assert sorted(names) == sorted(str(file["name"]) for file in made)
    key = (sort or "-created_at").lstrip("-")
    by_name = {file["name"]: file for file in made}
    values = [str(by_name[name][key]).casefold() if key == "name" else by_name[name][key] for name in names]
    assert values == sorted(values, reverse=(sort or "-").startswith("-"))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("query", "matching"),
    [
        ({"name": "report"}, "report"), ({"name": "REPORT"}, "report"), ({"name": "отчёт"}, "Отчёт"),
        ({"name": "*-1"}, "-1"), ({"name": "*"}, ""), ({"name": ""}, ""), ({"name": "ort"}, None),
        ({"name": "rep*-0*.pdf"}, "report-0"), ({"type": "image/"}, "photo"), ({"type": "image/jpeg"}, "photo"),
        ({"type": "*/pdf"}, "report"), ({"type": "image", "name": "report"}, None), ({"name": "[r]*"}, None),
        ({"name": "%"}, None), ({"name": "_eport"}, None), ({"name": "photo-02.jpg*"}, "photo-02.jpg"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sort", ["name", "-name", "-created_at"])
def test_name_and_type_match_from_the_beginning_and_a_star_anything(
    shelf: tuple[httpx.Client, list[dict[str, object]]], query: dict[str, str], matching: str | None, sort: str
) -> None:
    client, made = shelf
    expected = [] if matching is None else [file["name"] for file in made if matching in str(file["name"])]
    assert sorted(names_of(client, sort=sort, limit=4, **query)) == sorted(map(str, expected))


def test_a_listing_shows_own_files_and_all_to_an_admin(owners: Owners) -> None:
    _, clients = owners
    for name in ("anna", "boris"):
        clients[name].post("/v1/files", params={"name": f"zz-of-{name}"}, content=name.encode())
        assert names_of(clients[name], name="zz-of-") == [f"zz-of-{name}"]
    for sort in ("name", "-created_at", "size"):
        assert sorted(names_of(clients["root"], name="zz-of-", sort=sort, limit=1)) == ["zz-of-anna", "zz-of-boris"]
    assert names_of(clients["reader"]) == []


def test_an_expired_file_is_neither_listed_nor_shown_nor_counted_as_stored(anna: httpx.Client) -> None:
    made = anna.post("/v1/files", params={"name": "brief", "expires_in": "1"}, content=os.urandom(9)).json()
    assert wait_until(lambda: anna.get(f"/v1/files/{made['hash']}").status_code == 404, seconds=5)
    assert names_of(anna, name="brief") == []
    assert anna.post("/v1/files/missing", json={"hashes": [made["hash"]]}).json() == {"missing": [made["hash"]]}


def test_files_that_come_and_go_between_pages_disturb_no_other(anna: httpx.Client) -> None:
    names = [f"paging-{number:02d}" for number in range(12)]
    made = {name: anna.post("/v1/files", params={"name": name}, content=name.encode()).json()["hash"] for name in names}
    first = anna.get("/v1/files", params={"name": "paging-", "sort": "name", "limit": 5}).json()
    last_seen = first["files"][-1]["hash"]
    anna.delete(f"/{last_seen}")
    anna.delete(f"/{made['paging-07']}")
    anna.post("/v1/files", params={"name": "paging-00a"}, content=b"behind")
    rest = anna.get(
        "/v1/files", params={"name": "paging-", "sort": "name", "limit": 50, "cursor": first["next_cursor"]}
    ).json()
    assert [file["name"] for file in rest["files"]] == [f"paging-{number:02d}" for number in (5, 6, 8, 9, 10, 11)]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1.5", "limit=99999999999999999999",
        "limit=%D9%A1",
        "limit=1&limit=2", "sort=", "sort=age", "sort=--name", "sort=NAME", "cursor=", "cursor=x", "cursor=AAAA",
        "cursor=%00", "cursor=%F0%9F%98%80", "cursor=" + "A" * 6000, "page=2", "Limit=5", "name=" + "a" * 2000,
    ],
)  # fmt: skip
def test_a_listing_that_makes_no_sense_is_400(anna: httpx.Client, query: str) -> None:
    answer = anna.get(f"/v1/files?{query}")
    assert answer.status_code == 400
    assert len(answer.json()["detail"]) > 10


def test_a_cursor_is_good_for_its_own_order_only_and_cannot_be_altered(
    shelf: tuple[httpx.Client, list[dict[str, object]]],
) -> None:
    client, _ = shelf
    cursor = client.get("/v1/files", params={"limit": 3, "sort": "name"}).json()["next_cursor"]
    assert client.get("/v1/files", params={"cursor": cursor, "sort": "name"}).status_code == 200
    assert client.get("/v1/files", params={"cursor": cursor, "sort": "-name"}).status_code == 400
    assert client.get("/v1/files", params={"cursor": cursor}).status_code == 400
    for place in range(0, len(cursor), 5):
        other = "A" if cursor[place] != "A" else "B"
        forged = cursor[:place] + other + cursor[place + 1 :]
        assert client.get("/v1/files", params={"cursor": forged, "sort": "name"}).status_code == 400


# what is missing


def test_missing_tells_what_has_to_be_uploaded(owners: Owners) -> None:
    _, clients = owners
    anna, boris, root, reader = (clients[name] for name in ("anna", "boris", "root", "reader"))
    body = os.urandom(10)
    stored, absent = anna.post("/", content=body).text, sha256(os.urandom(10))
    ask = {"hashes": [absent, stored.upper(), absent, stored]}
    for client in (anna, root, reader):
        assert client.post("/v1/files/missing", json=ask).json() == {"missing": [absent]}
    # what somebody else keeps may go with its owner: uploading it is what makes it one's own
    assert boris.post("/v1/files/missing", json=ask).json() == {"missing": [absent, stored]}
    for client, missing in ((anna, [absent]), (root, [absent, stored]), (reader, [absent, stored])):
        assert client.post("/v1/files/missing", json=ask | {"own": True}).json() == {"missing": missing}
    ending = anna.post("/?expires_in=1h", content=os.urandom(10)).text
    assert anna.post("/v1/files/missing", json={"hashes": [ending]}).json() == {"missing": []}
    assert anna.post("/v1/files/missing", json={"hashes": [ending], "own": True}).json() == {"missing": [ending]}
    many = {"hashes": [sha256(b"none %d" % number) for number in range(10_000)]}
    assert len(anna.post("/v1/files/missing", json=many, timeout=30).json()["missing"]) == 10_000
    assert anna.post("/v1/files/missing", json={"hashes": []}).json() == {"missing": []}


@pytest.mark.parametrize(
    "ask",
    [
        {}, [], {"hashes": "x"}, {"hashes": [1]}, {"hashes": ["xyz"]}, {"hashes": [""]}, {"hashes": None},
        {"hashes": [["ab" * 32]]}, {"hashes": ["ab" * 32] * 10_001}, {"hashes": [], "more": 1},
        {"hashes": [], "own": "yes"}, {"hashes": ["я" * 64]},
    ],
)  # fmt: skip
def test_asking_for_nonsense_is_400(anna: httpx.Client, ask: object) -> None:
    assert anna.post("/v1/files/missing", json=ask).status_code == 400


def test_json_that_is_too_long_is_413_before_it_is_read(owners: Owners) -> None:
    daemon, clients = owners
    digest = clients["anna"].post("/", content=b"any").text
    for method, path in (("PATCH", f"/v1/files/{digest}"), ("POST", f"/v1/files/{digest}/link")):
        assert clients["anna"].request(method, path, content=b" " * (16 * 1024 + 1)).status_code == 413
    header = f"Authorization: {clients['anna'].headers['authorization']}"
    with RawConnection(daemon.address) as connection:
        status, _, body = connection.request("POST", "/v1/files/missing", header, "Content-Length: 99999999999")
        assert (status, json.loads(body)["status"]) == (413, 413)
    long = json.dumps({"hashes": ["a" * (3 << 20)]}).encode()
    assert clients["anna"].post("/v1/files/missing", content=iter([long])).status_code == 413


def test_a_hostile_body_keeps_nobody_else_waiting(owners: Owners) -> None:
    daemon, clients = owners
    unknown = json.dumps({f"field{number}": 1 for number in range(100_000)}).encode()
    wrong = json.dumps({"hashes": [1] * 400_000}).encode()
    times = []
    with ThreadPoolExecutor(2) as threads, httpx.Client(base_url=daemon.url) as watcher:
        hostile = [
            threads.submit(clients["reader"].post, "/v1/files/missing", content=body, timeout=60)
            for body in (unknown, wrong) * 5
        ]
        while not all(attempt.done() for attempt in hostile):
            began = time.perf_counter()
            assert watcher.get("/healthz").status_code == 200
            times.append(time.perf_counter() - began)
    assert {attempt.result().status_code for attempt in hostile} == {400}
    # a model that notes each mistake takes seconds for one of these
    assert statistics.median(times) < 0.1


@pytest.mark.parametrize(("method", "place", "body"), [
    ("PATCH", "/v1/files/{}", b'{"name": "renamed"}'), ("POST", "/v1/files/{}/link", b'{"expires_in": "30d"}'),
    ("POST", "/v1/files/missing", b'{"hashes": []}'),
])  # fmt: skip
def test_a_token_revoked_while_its_json_is_on_the_way_does_nothing_any_more(
    owners: Owners, method: str, place: str, body: bytes
) -> None:
    daemon, _ = owners
    name = f"slow{os.urandom(4).hex()}"
    token = make_token(daemon.store, name, "read,write")
    made = httpx.post(f"{daemon.url}/v1/files?name=first", content=os.urandom(9), headers=bearer(token)).json()
    with RawConnection(daemon.address) as connection:
        head = f"{method} {place.format(made['hash'])} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        connection.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body[:3])
        time.sleep(0.3)
        revoke_token(daemon.store, name)
        time.sleep(1)
        connection.send(body[3:])
        status, _, _ = connection.answer()
    assert status == 401


def test_slow_json_ends_in_time_and_keeps_no_upload_out(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--max-uploads", "1", "--body-timeout", "2s")
    with ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(daemon.address)) for _ in range(65)]
        for connection in connections:
            connection.send(b"POST /v1/files/missing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        assert wait_until(lambda: httpx.post(f"{daemon.url}/v1/files/missing", json={"hashes": []}).status_code == 503)
        assert httpx.post(daemon.url, content=b"an upload").status_code == 200
        statuses = []
        for _ in range(8):
            time.sleep(0.5)
            # a byte now and then makes it no longer
            for connection in connections[:64]:
                with suppress(OSError):
                    connection.send(b" ")
        for connection in connections:
            with suppress(OSError):
                statuses.append(connection.answer()[0])
    assert statuses.count(408) >= 60
    assert httpx.post(f"{daemon.url}/v1/files/missing", json={"hashes": []}).status_code == 200


# sums and quotas


def test_stats_tell_an_owner_of_its_own_and_an_admin_of_all(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    anna, boris, root = (make_token(store, name, kind) for name, kind in (
        ("anna", "read,write"), ("boris", "read,write,delete"), ("root", "admin")))  # fmt: skip
    daemon = start_daemon("--workers", "2", store=store)

    def stats(token: str) -> tuple[int, int, int]:
        answer = httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).json()
        assert set(answer) == {"files", "blobs", "bytes", "free", "algorithm", "version"}
        assert answer["free"] > 0
        return answer["files"], answer["blobs"], answer["bytes"]

    for token, bodies in ((anna, [b"a" * 10, b"b" * 100]), (boris, [b"b" * 100, b"c" * 1000])):
        for body in bodies * 2:
            httpx.post(daemon.url, content=body, headers=bearer(token))
    assert [stats(token) for token in (anna, boris, root)] == [(2, 2, 110), (2, 2, 1100), (4, 3, 1110)]
    httpx.delete(f"{daemon.url}/{sha256(b'b' * 100)}", headers=bearer(boris))
    assert [stats(token) for token in (anna, boris, root)] == [(2, 2, 110), (1, 1, 1000), (3, 3, 1110)]
    httpx.delete(f"{daemon.url}/{sha256(b'b' * 100)}", headers=bearer(root))
    assert [stats(token) for token in (anna, boris, root)] == [(1, 1, 10), (1, 1, 1000), (2, 2, 1010)]
    httpx.post(daemon.url, params={"expires_in": 1}, content=b"d" * 7, headers=bearer(anna))
    assert wait_until(lambda: stats(root) == (2, 2, 1010))


def test_a_quota_counts_all_its_owner_keeps_shared_or_not(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    free = make_token(store, "free", "read,write,delete")
    token = make_token(store, "anna", "read,write,delete", quota=1000)
    daemon = start_daemon("--workers", "2", store=store)
    shared = os.urandom(400)
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as anna:
        httpx.post(daemon.url, content=shared, headers=bearer(free))
        assert anna.post("/", content=shared).status_code == 200
        assert anna.post("/", content=b"x" * 600).status_code == 200
        refused = anna.post("/", content=b"y")
        assert refused.status_code == 413
        assert "1000" in refused.json()["detail"]
        assert not daemon.blob(sha256(b"y")).exists()
        # what it keeps already costs nothing more, however it comes
        assert anna.post("/", content=shared).status_code == 200
        assert anna.put(f"/{sha256(shared)}", content=iter([shared])).status_code == 200
        assert anna.post("/", files={"f": ("name", shared)}).status_code == 200
        assert anna.post("/", files=[("f", ("a", shared)), ("f", ("b", b"new"))]).status_code == 413
        assert anna.post("/", content=b"").status_code == 400
        assert anna.post("/", content=b"", headers={"content-type": "text/plain"}).status_code == 200
        anna.delete(f"/{sha256(shared)}")
        assert anna.post("/", content=iter([b"z" * 401])).status_code == 413
        assert anna.post("/", files={"f": ("name", b"z" * 401)}).status_code == 413
        assert anna.post("/", content=iter([b"z" * 400])).status_code == 200
    # refused before it is sent, where its length tells
    with RawConnection(daemon.address) as connection:
        status, _, _ = connection.request("POST", "/", f"Authorization: Bearer {token}", "Content-Length: 5000000000")
        assert status == 413


def test_what_has_expired_counts_for_no_quota_from_that_moment(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    token = make_token(store, "anna", "read,write", quota=1000)
    daemon = start_daemon("--workers", "1", store=store)
    made = httpx.post(f"{daemon.url}/v1/files?expires_in=1", content=b"x" * 900, headers=bearer(token)).json()
    end = datetime.fromisoformat(made["expires_at"]).timestamp()
    time.sleep(max(0, end - time.time()) + 0.01)
    assert httpx.post(daemon.url, content=b"y" * 900, headers=bearer(token)).status_code == 200


def test_a_quota_holds_when_many_upload_at_once(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    token = make_token(store, "anna", "read,write", quota=10_000)
    other = make_token(store, "boris", "read,write")
    daemon = start_daemon("--workers", "2", store=store)

    def upload(number: int) -> int:
        mine = bearer(token if number % 2 else other)
        return httpx.post(daemon.url, content=os.urandom(1000), headers=mine, timeout=30).status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(upload, range(60)))
    assert statuses[0::2].count(200) == 30
    assert statuses[1::2].count(200) == 10
    assert statuses[1::2].count(413) == 20
    assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).json()["bytes"] == 10_000


def test_known_addresses_with_a_wrong_method_are_405_and_others_404(root: httpx.Client) -> None:
    for path, allow in (
        ("/v1/files", "GET, POST"), ("/v1/files/missing", "POST"), (f"/v1/files/{'ab' * 32}", "GET, PATCH, DELETE"),
        ("/v1/stats", "GET"), (f"/v1/files/{'ab' * 32}/link", "POST"),
    ):  # fmt: skip
        answer = root.request("PROPFIND", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    for path in ("/v1", "/v1/", "/v1/file", "/v2/files", f"/v1/files/{'ab' * 32}/links", "/v1/files/"):
        assert root.get(path).status_code == 404, path
