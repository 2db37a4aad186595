"""Who may do what, over HTTP: tokens, the anonymous modes, links; and what strangers can find out: nothing."""

import base64
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from filestored.catalogue.records import now_milliseconds
from tests.api.tus_client import Tus, encoded
from tests.bad_days.consistency import sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token, revoke_token

Ask = Callable[..., httpx.Response]

# every address and method there is, as a stranger would try them; {hash} is one that is stored
ROUTES = [
    ("GET", "/?file_hash={hash}"), ("POST", "/"), ("DELETE", "/?file_hash={hash}"), ("GET", "/{hash}"),
    ("HEAD", "/{hash}"), ("PUT", "/{hash}"), ("DELETE", "/{hash}"), ("GET", "/{hash}/name"), ("HEAD", "/{hash}/name"),
    ("GET", "/v1/files"), ("POST", "/v1/files"), ("POST", "/v1/files/missing"), ("GET", "/v1/files/{hash}"),
    ("PATCH", "/v1/files/{hash}"), ("DELETE", "/v1/files/{hash}"), ("POST", "/v1/files/{hash}/link"),
    ("GET", "/v1/stats"), ("GET", "/v1/caller"), ("GET", "/metrics"), ("HEAD", "/metrics"),
    ("GET", "/v1/uploads"), ("POST", "/v1/uploads"),
    ("HEAD", "/v1/uploads/{hash}"), ("PATCH", "/v1/uploads/{hash}"), ("POST", "/v1/uploads/{hash}"),
    ("DELETE", "/v1/uploads/{hash}"), ("GET", "/v1/uploads/{hash}"), ("GET", "/nothing"), ("PUT", "/v1/files"),
    ("OPTIONS", "/"), ("TRACE", "/{hash}"), ("PROPFIND", "/"),
]  # fmt: skip
OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs"}


def openly(method: str, path: str) -> bool:
    # what tus can do is asked before anything else, and says nothing of what is stored
    is_tus = method == "options" and path.startswith("/v1/uploads")
    return is_tus or path in OPEN or path.startswith(("/docs/", "/web/"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[str, str]]]:
    """A daemon with two workers that lets nobody in without a token, and a token of each kind."""
    store = tmp_path_factory.mktemp("guarded") / "store"
    kinds = ["read", "write", "delete", "read,write", "read,write,delete", "admin", "write,delete"]
    tokens = {kind: make_token(store, kind.replace(",", "-"), kind) for kind in kinds}
    daemon = Daemon(store, "--workers", "2", "--anonymous", "none").start()
    yield daemon, tokens
    assert daemon.stop() == 0


@pytest.fixture
def ask(guarded: tuple[Daemon, dict[str, str]]) -> Iterator[Ask]:
    """Ask as the holder of a kind of token, or of none."""
    daemon, tokens = guarded
    with httpx.Client(base_url=daemon.url, timeout=30) as client:

        def send(kind: str | None, method: str, path: str, **more: object) -> httpx.Response:
            return client.request(method, path, headers=bearer(tokens[kind]) if kind else {}, **more)  # type: ignore[arg-type]

        yield send


def store_one(ask: Ask, kind: str = "read,write,delete", body: bytes | None = None) -> str:
    answer = ask(kind, "POST", "/", content=body or os.urandom(30))
    assert answer.status_code == 200
    return answer.text


def test_without_a_token_every_route_and_method_is_401_and_alike_for_stored_and_absent(ask: Ask) -> None:
    stored, absent = store_one(ask), sha256(os.urandom(30))
    for method, path in ROUTES:
        answers = [ask(None, method, path.replace("{hash}", digest), content=b"{}") for digest in (stored, absent)]
        for answer in answers:
            assert answer.status_code == 401, (method, path)
            assert "Bearer" in answer.headers["www-authenticate"]
        first, second = ({**answer.headers, "date": ""} for answer in answers)
        assert first == second
        assert answers[0].content == answers[1].content


def test_every_route_of_the_document_is_closed_but_the_open_ones(ask: Ask) -> None:
    document = ask("admin", "GET", "/openapi.json").json()
    for template, methods in document["paths"].items():
        path = re.sub(r"\{.*?\}", "ab" * 32, template)
        for method in methods:
            if method in ("get", "put", "post", "delete", "head", "patch", "options"):
                status = ask(None, method.upper(), path).status_code
                assert (status == 401) is not openly(method, path), (method, path)


NEEDS = {
    "read": {"GET /{hash}", "HEAD /{hash}", "GET /?file_hash={hash}", "GET /{hash}/name", "GET /v1/files",
             "GET /v1/stats", "POST /v1/files/{hash}/link", "POST /v1/files/missing"},
    "write": {"POST /", "PUT /{hash}", "POST /v1/files", "PATCH /v1/files/{hash}", "POST /v1/files/missing",
              "POST /v1/uploads", "HEAD /v1/uploads/{hash}", "PATCH /v1/uploads/{hash}", "POST /v1/uploads/{hash}",
              "DELETE /v1/uploads/{hash}"},
    "delete": {"DELETE /{hash}", "DELETE /?file_hash={hash}", "DELETE /v1/files/{hash}"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["read", "write", "delete"])
def test_a_token_opens_what_its_permission_is_for_and_the_rest_is_403(ask: Ask, kind: str) -> None:
    body = os.urandom(10)
    digest = store_one(ask, body=body)
    for routes in NEEDS.values():
        for route in sorted(routes):
            method, path = route.split(" ")
            more = {"content": json.dumps({"hashes": []}) if "missing" in path else body}
            if "link" in path or method == "PATCH":
                more = {"content": b'{"name": "x"}' if method == "PATCH" else b""}
            answer = ask(kind, method, path.replace("{hash}", digest), **more)
            if route in NEEDS[kind]:
                assert answer.status_code not in (401, 403), route
            else:
                assert answer.status_code == 403, route
                assert "permission" in (answer.json()["detail"] if method != "HEAD" else "permission")


def test_who_may_not_read_cannot_tell_what_others_have_stored(ask: Ask) -> None:
    stored, absent = store_one(ask), sha256(os.urandom(40))
    for kind in ("write", "delete", "write,delete"):
        for method, path in ROUTES:
            if method in ("PUT", "POST") and path in ("/{hash}", "/", "/v1/files"):
                continue
            answers = [
                ask(kind, method, path.replace("{hash}", digest), content=json.dumps({"hashes": [digest]}).encode())
                for digest in (stored, absent)
            ]
            contents = [answer.text.replace(stored, "H").replace(absent, "H") for answer in answers]
            assert answers[0].status_code == answers[1].status_code, (kind, method, path)
            assert contents[0] == contents[1], (kind, method, path)
    # an upload of what somebody else has is answered as one of something new
    for method, path in (("PUT", "/{hash}"), ("POST", "/v1/files")):
        body, other = os.urandom(40), os.urandom(40)
        store_one(ask, body=body)
        answers = [ask("write", method, path.replace("{hash}", sha256(each)), content=each) for each in (body, other)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert len({answer.text.replace(sha256(body), "").replace(sha256(other), "")[:100] for answer in answers}) == 1


def test_a_resumable_upload_of_what_another_has_is_answered_as_one_of_something_new(
    guarded: tuple[Daemon, dict[str, str]], ask: Ask
) -> None:
    daemon, tokens = guarded
    body, other = os.urandom(40), os.urandom(40)
    store_one(ask, body=body)
    seen = set()
    with httpx.Client(base_url=daemon.url, headers=bearer(tokens["write"])) as client:
        tus = Tus(client)
        for each in (body, other):
            path = tus.begin(len(each), Upload_Metadata=encoded(hash=sha256(each)))
            answers = [tus.head(path), tus.patch(path, 0, each), tus.head(path), tus.ask("DELETE", path)]
            assert answers[1].headers["filestored-hash"] == sha256(each)
            seen.add(tuple((answer.status_code, tuple(answer.headers), answer.text) for answer in answers))
    assert len(seen) == 1


def test_conditions_of_who_may_not_read_are_about_its_own_files(guarded: tuple[Daemon, dict[str, str]]) -> None:
    daemon, tokens = guarded
    body = os.urandom(40)
    digest = sha256(body)
    admin, writer = bearer(tokens["admin"]), bearer(tokens["write"])
    assert httpx.put(f"{daemon.url}/{digest}", content=body, headers=admin).status_code == 201
    only_new = {**writer, "if-none-match": "*"}
    assert httpx.put(f"{daemon.url}/{digest}", content=body, headers={**writer, "if-match": "*"}).status_code == 412
    assert httpx.put(f"{daemon.url}/{digest}", content=body, headers=only_new).status_code == 201
    assert httpx.put(f"{daemon.url}/{digest}", content=body, headers=only_new).status_code == 412


@pytest.mark.parametrize("kind", ["write", "delete"])
def test_stored_and_absent_take_about_as_long_for_who_may_not_read(ask: Ask, kind: str) -> None:
    times: dict[str, list[float]] = {"stored": [], "absent": []}
    for _ in range(40):
        stored, absent = os.urandom(3000), os.urandom(3000)
        store_one(ask, body=stored)
        for name, body in (("stored", stored), ("absent", absent)):
            method, content = ("PUT", body) if kind == "write" else ("DELETE", None)
            began = time.perf_counter()
            status = ask(kind, method, f"/{sha256(body)}", content=content).status_code
            times[name].append(time.perf_counter() - began)
            assert status == (201 if kind == "write" else 404)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    # both go through the same transaction; writing the bytes is what differs
    assert 0.4 < medians["stored"] / medians["absent"] < 2.5, medians


def test_conditions_and_caches_do_not_let_a_reader_of_one_link_read_another_file(ask: Ask) -> None:
    first, second = store_one(ask), store_one(ask)
    for digest in (first, second) * 2:
        assert ask("read", "GET", f"/{digest}").status_code == 200
    query = httpx.URL(link_to(ask, first)).query.decode()
    for _ in range(4):
        assert ask(None, "GET", f"/{first}?{query}").status_code == 200
        assert ask(None, "GET", f"/{second}?{query}").status_code == 403


def test_basic_takes_the_token_as_the_password_and_anything_else_is_wrong(
    guarded: tuple[Daemon, dict[str, str]],
) -> None:
    daemon, tokens = guarded
    url, token = f"{daemon.url}/v1/stats", tokens["read"]
    for user in ("", "anybody", "имя"):
        assert httpx.get(url, auth=(user, token)).status_code == 200
    assert httpx.get(url, headers={"authorization": f"bearer   {token}"}).status_code == 200
    encoded = base64.b64encode(token.encode()).decode()
    last = "A" if token[-1] != "A" else "B"
    for wrong in (
        "", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", f"Bearer {token[:-1]}{last}", "Bearer x", token,
        f"Digest {token}", f"Basic {token}", f"Basic {encoded}", "Basic ====", "Bearer \xff\xfe",
        f"Bearer {token.upper()}", f"Bearer fs-000000000000-{token.split('-', 2)[2]}", "Bearer " + "a" * 10_000,
    ):  # fmt: skip
        answer = httpx.get(url, headers=[(b"authorization", wrong.encode("latin-1").rstrip())])
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"]


def test_a_revoked_token_is_worthless_within_a_second_in_every_worker_also_for_files_remembered(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    token, other = make_token(store, "anna", "read,write"), make_token(store, "boris", "read")
    daemon = start_daemon("--workers", "2", store=store)
    digest = httpx.post(daemon.url, content=b"x" * 100, headers=bearer(token)).text
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=daemon.url)) for _ in range(8)]
        for client in clients:
            for _ in range(3):
                assert client.get(f"/{digest}", headers=bearer(token)).status_code == 200
        revoke_token(store, "anna")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for client in clients:
                client.get(f"/{digest}", headers=bearer(token))
        for client in clients:
            assert client.get(f"/{digest}", headers=bearer(token)).status_code == 401
            assert client.get(f"/{digest}", headers=bearer(other)).status_code == 200


def test_an_upload_whose_token_is_revoked_on_the_way_stores_nothing(start_daemon: StartDaemon, tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_token(store, "keeper", "read")
    token = make_token(store, "anna", "write")
    daemon = start_daemon("--workers", "1", store=store)
    body = os.urandom(300_000)

    def slowly() -> Iterator[bytes]:
        yield body[:1000]
        revoke_token(store, "anna")
        time.sleep(1.6)
        yield body[1000:]

    assert httpx.post(daemon.url, content=slowly(), headers=bearer(token)).status_code == 401
    assert not daemon.blob(sha256(body)).exists()
    assert wait_until(lambda: daemon.leftovers() == [])


def test_a_token_ends_when_its_time_is_over_also_for_files_remembered(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    end = now_milliseconds() + 2000
    token = make_token(daemon.store, "anna", "read,write", expires_at=end)
    statuses = set()
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as client:
        digest = client.post("/", content=b"y" * 100).text
        while True:
            sent = now_milliseconds()
            status = client.get(f"/{digest}").status_code
            if now_milliseconds() < end:
                statuses.add(status)
            elif sent > end:
                break
        assert statuses == {200}
        assert status == 401
        assert "expired" in client.get(f"/{digest}").json()["detail"]


def test_whoever_reads_without_a_token_lists_nothing_and_makes_no_links(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(f"{daemon.url}/?name=my-diary.txt", content=b"private").text
    daemon.stop()
    again = start_daemon("--workers", "1", "--anonymous", "read", store=daemon.store)
    assert httpx.get(f"{again.url}/{digest}").content == b"private"
    assert httpx.get(f"{again.url}/v1/files").json() == {"files": [], "next_cursor": None}
    assert httpx.get(f"{again.url}/v1/files/{digest}").status_code == 404
    assert [httpx.get(f"{again.url}/v1/stats").json()[name] for name in ("files", "blobs", "bytes")] == [0, 0, 0]
    refused = httpx.post(f"{again.url}/v1/files/{digest}/link")
    assert refused.status_code == 401
    assert "token" in refused.json()["detail"]


def test_a_link_does_not_outlive_the_token_that_makes_it(guarded: tuple[Daemon, dict[str, str]], ask: Ask) -> None:
    daemon, _ = guarded
    digest = store_one(ask)
    end = now_milliseconds() + 100_000
    token = make_token(daemon.store, f"brief{os.urandom(3).hex()}", "read", expires_at=end)
    made = httpx.post(
        f"{daemon.url}/v1/files/{digest}/link", json={"expires_in": "5000w"}, headers=bearer(token)
    ).json()
    assert f"expires={end // 1000}&" in made["url"]


def test_the_first_token_ends_what_programs_on_the_machine_may_do_at_once(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=daemon.url)) for _ in range(6)]
        digest = clients[0].post("/", content=b"z").text
        assert all(client.get(f"/{digest}").status_code == 200 for client in clients)
        token = make_token(daemon.store, "anna", "read")
        for client in clients:
            for path in (f"/{digest}", "/v1/files", "/nothing"):
                assert client.get(path).status_code == 401
            assert client.get(f"/{digest}", headers=bearer(token)).content == b"z"


def test_a_token_is_known_the_moment_it_is_made(guarded: tuple[Daemon, dict[str, str]]) -> None:
    daemon, _ = guarded
    for number in range(5):
        token = make_token(daemon.store, f"new{number}{os.urandom(3).hex()}", "read")
        assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).status_code == 200


@pytest.mark.parametrize(
    ("mode", "reading", "writing"), [("none", 401, 401), ("read", 200, 401), ("full", 200, 200), ("loopback", 401, 401)]
)
def test_the_anonymous_modes_beside_tokens(
    start_daemon: StartDaemon, tmp_path: Path, mode: str, reading: int, writing: int
) -> None:
    store = tmp_path / "store"
    token = make_token(store, "anna", "read,write")
    daemon = start_daemon("--workers", "1", "--anonymous", mode, store=store)
    digest = httpx.post(daemon.url, content=b"q", headers=bearer(token)).text
    assert httpx.get(f"{daemon.url}/{digest}").status_code == reading
    assert httpx.post(daemon.url, content=b"w").status_code == writing
    # a wrong token is never taken for none
    assert httpx.get(f"{daemon.url}/{digest}", headers=bearer(token[:-2] + "__")).status_code == 401


# links


def link_to(ask: Ask, digest: str, **wish: object) -> str:
    answer = ask("read", "POST", f"/v1/files/{digest}/link", **({"json": wish} if wish else {}))
    assert answer.status_code == 200
    url: str = answer.json()["url"]
    return url


def test_a_link_reads_its_file_without_a_token_and_nothing_else(
    ask: Ask, guarded: tuple[Daemon, dict[str, str]]
) -> None:
    body, other = os.urandom(200_000), store_one(ask)
    digest = ask("read,write", "POST", "/?name=имя файла.bin", content=body).text
    url = link_to(ask, digest)
    assert httpx.get(url).content == body
    assert httpx.head(url).headers["content-length"] == "200000"
    assert httpx.get(url, headers={"range": "bytes=5-9"}).content == body[5:10]
    assert httpx.get(url.replace("http://", "http://x:y@")).status_code == 401
    base, _, query = url.partition("?")
    bare = base[: base.index(digest)] + digest
    assert httpx.get(f"{bare}?{query}").content == body
    assert httpx.get(f"{bare}/other-name.txt?{query}&download").content == body
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        assert httpx.request(method, f"{bare}?{query}", content=b"").status_code in (401, 405)
    root = str(httpx.URL(url).join("/"))
    for path in (
        f"{other}?{query}", f"{other}/x?{query}", f"?file_hash={digest}&{query}", f"v1/files/{digest}?{query}",
        f"v1/files?{query}", f"v1/stats?{query}", f"metrics?{query}", f"v1/files/{digest}/link?{query}",
    ):  # fmt: skip
        assert httpx.get(root + path).status_code in (401, 403, 405), path
    assert httpx.get(f"{bare}/..%2f{other}?{query}").status_code in (200, 401, 403, 404)


@pytest.mark.parametrize(
    "forge",
    [
        lambda url: url + "0", lambda url: url[:-1], lambda url: re.sub("expires=", "expires=9", url),
        lambda url: re.sub(r"expires=\d+", "expires=", url), lambda url: re.sub(r"expires=", "expires=0", url),
        lambda url: re.sub(r"expires=\d+&", "", url), lambda url: re.sub(r"signature=.*", "signature=", url),
        lambda url: re.sub(r"signature=.*", "signature=%D1%8F", url), lambda url: re.sub("expires=", "expires=-", url),
        lambda url: re.sub(r"expires=\d+", "expires=" + "9" * 5000, url), lambda url: url + "&expires=9999999999",
        lambda url: re.sub(r"expires=(\d)", "expires=%D9%A1\\1", url),
    ],
)  # fmt: skip
def test_a_forged_link_is_refused(ask: Ask, forge: Callable[[str], str]) -> None:
    answer = httpx.get(forge(link_to(ask, store_one(ask))))
    assert answer.status_code in (400, 403)
    assert answer.json()["detail"]


def test_a_link_ends_and_says_so_and_survives_a_restart_until_then(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(daemon.url, content=b"linked").text
    long = httpx.post(f"{daemon.url}/v1/files/{digest}/link", json={"expires_in": "7d"}).json()["url"]
    short = httpx.post(f"{daemon.url}/v1/files/{digest}/link", json={"expires_in": 2}).json()
    make_token(daemon.store, "anna", "read")
    assert httpx.get(long).content == b"linked"
    assert wait_until(lambda: httpx.get(short["url"]).status_code == 403)
    assert "over" in httpx.get(short["url"]).json()["detail"]
    daemon.kill()
    again = start_daemon("--workers", "1", store=daemon.store)
    assert httpx.get(long.replace(daemon.url, again.url)).content == b"linked"


def test_a_link_is_made_only_by_who_may_read_and_only_for_what_is_stored(ask: Ask) -> None:
    digest = store_one(ask)
    assert ask("write", "POST", f"/v1/files/{digest}/link").status_code == 403
    assert ask("read", "POST", f"/v1/files/{sha256(os.urandom(9))}/link").status_code == 404
    assert ask("read", "POST", "/v1/files/xyz/link").status_code == 404
    for wish in ({"expires_in": "0"}, {"expires_in": "soon"}, {"expires_in": -5}, {"expires_in": None}, {"x": 1}, [1]):
        assert ask("read", "POST", f"/v1/files/{digest}/link", json=wish).status_code == 400, wish


def test_a_link_to_what_is_deleted_or_was_damaged_is_404(ask: Ask) -> None:
    digest = store_one(ask)
    url = link_to(ask, digest)
    assert httpx.get(url).status_code == 200
    assert ask("admin", "DELETE", f"/{digest}").status_code == 200
    assert httpx.get(url).status_code == 404


@pytest.mark.parametrize(("mode", "ways"), [("cors", 1), ("same-origin", 1), ("navigate", 2), (None, 2)])
def test_a_script_that_is_refused_hears_of_it_and_a_person_is_asked_by_the_browser(
    guarded: tuple[Daemon, dict[str, str]], mode: str | None, ways: int
) -> None:
    headers = {} if mode is None else {"sec-fetch-mode": mode}
    with httpx.Client(base_url=guarded[0].url) as client:
        answer = client.get("/v1/files", headers=headers)
        assert answer.status_code == 401
        challenges = answer.headers.get_list("www-authenticate", split_commas=False)
        assert challenges[0].startswith("Bearer")
        assert len(challenges) == ways


def test_only_who_sees_all_is_told_how_many_keep_a_file(ask: Ask) -> None:
    body = os.urandom(20)
    digest = store_one(ask, body=body)
    assert "owners" not in ask("read,write,delete", "GET", f"/v1/files/{digest}").json()
    assert ask("admin", "GET", f"/v1/files/{digest}").json()["owners"] == 1
    store_one(ask, "read,write", body)
    assert ask("admin", "GET", f"/v1/files/{digest}").json()["owners"] == 2
    assert "owners" not in ask("read,write", "GET", f"/v1/files/{digest}").json()
