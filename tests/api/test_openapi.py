"""The OpenAPI document is true to the program, and the page that shows it needs no other network."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from filestored import recovery
from filestored.access import ALL, Access, Anonymous, Permission
from filestored.api import documents, openapi
from filestored.api.app import AccessEntry, Application
from filestored.api.cors import Cors
from filestored.api.limits import Limits
from filestored.api.proxies import Proxies
from filestored.api.routes import DOCS_ASSETS, OPEN, Route
from filestored.blobs.layout import StoreFolder
from filestored.digest import Algorithm
from filestored.filestore import Filestore
from tests.api.tus_client import Tus, encoded
from tests.conftest import StartDaemon
from tests.tokens import bearer, make_token

ROOT = Path(__file__).parent.parent.parent
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SHOWN = ("/openapi.json", "/docs", *(f"/docs/{name}" for name in DOCS_ASSETS))
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


class NoLog:
    """Keeps nothing."""

    enabled = False

    def add(self, entry: AccessEntry) -> None:
        """Throw it away."""


@pytest.fixture
def table(tmp_path: Path) -> Iterator[tuple[Route, ...]]:
    folder = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    recovery.prepare(folder, None, durable=True)
    filestore = Filestore(folder, None, durable=False)
    application = Application(filestore, Access(Anonymous.NONE), Limits(), NoLog(), Proxies(), Cors())
    yield application._router.routes
    filestore.close()


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    described: dict[str, Any] = answer.json()
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method.upper(), item[method]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_route_is_in_the_document_and_the_reverse(table: tuple[Route, ...]) -> None:
    document = json.loads(openapi.describe(table, Permission(0)))
    described = [(path, method) for path, method, _ in operations(document)]
    assert sorted(described) == sorted((route.path, route.method) for route in table)
    for path, item in document["paths"].items():
        names = [parameter["name"] for parameter in item.get("parameters", [])]
        assert names == re.findall(r"{(\w+)}", path)


def test_every_reference_leads_somewhere_in_the_document(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        node: Any = document
        for part in reference[2:].split("/"):
            node = node[part]
        assert node
    names = {f"#/components/{kind}/{name}" for kind, parts in document["components"].items() for name in parts}
    unused = {name for name in names - found if "securitySchemes" not in name}
    assert not unused


def test_the_document_names_no_other_host_and_not_the_programs_version(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    # a pattern may have what stands before any host
    assert not re.search(r"\w://", text)
    document = json.loads(text)
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == "1"
    assert all(server["url"] == "/" for server in document["servers"])


def test_every_operation_has_a_name_of_its_own_and_says_what_it_needs(
    document: dict[str, Any], table: tuple[Route, ...]
) -> None:
    found = {(path, method): operation for path, method, operation in operations(document)}
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    for route in table:
        operation = found[route.path, route.method]
        text = operation["description"]
        for permission in route.needs | route.alternative:
            assert f"`{permission.spelled()}`" in text
        assert ("Open to everybody." in text) == (operation["security"] == []) == (route.needs is OPEN)
        assert ({"link": []} in operation["security"]) == route.takes_link


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status < "400" or (path, status) == ("/readyz", "503"):
                continue
            name = answer["$ref"].rpartition("/")[2]
            content = document["components"]["responses"][name]["content"]
            assert list(content) == ["application/problem+json"], (path, method, status)
        assert {"431", "500"} <= operation["responses"].keys()
        assert ("401" in operation["responses"]) == ("403" in operation["responses"]) == bool(operation["security"])


@pytest.mark.parametrize(
    ("anonymous", "may"),
    [
        (Anonymous.NONE, Permission(0)),
        (Anonymous.READ, Permission.READ),
        (Anonymous.FULL, ALL),
        (Anonymous.LOOPBACK, ALL),
    ],
)
def test_no_token_is_asked_for_where_none_may_be_needed(
    anonymous: Anonymous, may: Permission, table: tuple[Route, ...]
) -> None:
    document = json.loads(openapi.describe(table, Access(anonymous).anonymous_grant))
    optional = {(path, method) for path, method, operation in operations(document) if {} in operation["security"]}
    assert optional == {(route.path, route.method) for route in table if may & (route.needs | route.alternative)}


def test_allow_names_just_the_methods_of_the_document(client: httpx.Client, document: dict[str, Any]) -> None:
    found = {path: {method for at, method, _ in operations(document) if at == path} for path in document["paths"]}
    for path, methods in found.items():
        address = re.sub(r"{(\w+)}", "ab" * 32, path)
        # which is at no address
        answer = client.request("TRACE", address)
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) == methods


def described_headers(document: dict[str, Any], answer: httpx.Response) -> set[str]:
    path = re.sub(r"(?<=/uploads/)\w+", "{upload}", answer.request.url.path)
    described = document["paths"][path][answer.request.method.lower()]["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    return {name.lower() for name in described.get("headers", {})}


def test_every_header_of_resumable_uploads_is_described_where_it_comes(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    tus = Tus(client)
    wish = encoded(filename="a")
    path = tus.begin(None, Upload_Metadata=wish)
    part = tus.begin(3, b"abc", Upload_Concat="partial")
    joined = tus.ask("POST", "/v1/uploads", Upload_Concat=f"final;{part}")
    answers = [
        client.options("/v1/uploads"), client.options(path), tus.create(4), tus.create(3, b"abc"), joined,
        tus.create(None), tus.ask("POST", "/v1/uploads"), client.post("/v1/uploads"), tus.head(path), client.head(path),
        tus.head(joined.headers["location"]), tus.patch(path, 0, b"ab"), tus.patch(path, 0, b"ab"), client.patch(path),
        tus.patch(path, 2, b"c", Upload_Length=3), tus.head(path), tus.patch(path, 3, b"d"), tus.ask("POST", path),
        tus.patch(path, 3, b"d", Upload_Checksum="sha1"), tus.ask("PATCH", path), tus.ask("DELETE", path),
        tus.head(path),
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {200, 201, 204, 400, 404, 405, 409, 412, 413, 415}
    seen = set()
    for answer in answers:
        described = described_headers(document, answer)
        found = {name for name in answer.headers if name.startswith(("upload-", "tus-", "filestored-", "allow"))}
        assert "tus-resumable" in found
        seen |= found
        if not answer.is_success:
            # which the document says once for all of them
            found.remove("tus-resumable")
        assert found <= described, (answer.request.method, answer.status_code)
    assert seen == {
        "tus-resumable", "tus-version", "tus-extension", "tus-checksum-algorithm", "upload-offset", "upload-expires",
        "upload-length", "upload-defer-length", "upload-metadata", "upload-concat", "filestored-hash", "allow",
    }  # fmt: skip


def test_document_and_page_are_open_to_strangers_and_kept_by_their_tag(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--anonymous", "none")
    with httpx.Client(base_url=daemon.url) as stranger:
        assert stranger.get("/v1/stats").status_code == 401
        for address in SHOWN:
            answer = stranger.get(address)
            assert answer.status_code == 200, address
            head = stranger.head(address)
            assert head.content == b""
            for name in ("etag", "content-type", "content-length", "cache-control"):
                assert head.headers[name] == answer.headers[name]
            again = stranger.get(address, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert stranger.get(address, headers={"if-match": '"other"'}).status_code == 412
            assert stranger.post(address).status_code == 405
        assert stranger.get("/docs/other.js").status_code == 404
        assert stranger.get("/docs/swagger-ui.js").status_code == 404


def test_the_page_and_what_it_loads_may_do_nothing_else(client: httpx.Client) -> None:
    for address in SHOWN:
        headers = client.get(address).headers
        directives = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert directives == POLICY
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_loads_nothing_from_another_host(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "://" not in page
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {f"docs/{name}" for name in DOCS_ASSETS} <= set(loaded)
    for address in loaded:
        assert client.get(f"/{address}").status_code == 200
    # the policy forbids both, which is why nothing of either may be in the page
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    style = client.get("/docs/swagger-ui.css").text
    assert "@import" not in style
    assert all(address.startswith("data:") for address in re.findall(r"url\([\"']?([^)]+)", style))
    start = client.get("/docs/start.js").text
    assert "://" not in start
    assert "validatorUrl: null" in start


def test_the_files_of_swagger_ui_are_found_without_importing_its_package() -> None:
    code = (
        "import sys; from filestored.api import documents; print(documents._path('swagger-ui.css')); "
        "assert not any(name.startswith('swagger_ui') for name in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert Path(printed.stdout.strip()).is_file()


def test_a_file_of_the_page_that_is_not_installed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="swagger-ui-py"):
        documents._path("swagger-ui.css")


def test_a_time_is_taken_as_the_document_says_and_no_other_way(client: httpx.Client) -> None:
    digest = client.post("/", content=b"has an end", headers={"content-type": "text/plain"}).text
    for written in ("2100-01-01T00:00:00Z", "2100-01-01T00:00:00.5+02:00", "2100-01-01 00:00:00z"):
        assert client.patch(f"/v1/files/{digest}", json={"expires_at": written}).status_code == 200
    for wrong in (4102444800, "4102444800", "2100-01-01", "2100-01-01T00:00Z", "2100-01-01T00:00:00"):
        answer = client.patch(f"/v1/files/{digest}", json={"expires_at": wrong})
        assert answer.status_code == 400
        assert "RFC 3339" in answer.json()["detail"]


@pytest.mark.parametrize("life", [1, 3600, 90.0000000000001, 3155760000, "90m", "1.5h"])
def test_a_life_of_a_link_is_a_number_or_one_with_a_unit(client: httpx.Client, life: float | str) -> None:
    digest = client.post("/", content=b"linked", headers={"content-type": "text/plain"}).text
    assert client.post(f"/v1/files/{digest}/link", json={"expires_in": life}).status_code == 200


@pytest.mark.parametrize("life", ["0", "NaN", "Infinity", "1e300", "-1", "true", "null", '"1y"'])
def test_any_other_life_of_a_link_is_refused(client: httpx.Client, life: str) -> None:
    digest = client.post("/", content=b"linked", headers={"content-type": "text/plain"}).text
    answer = client.post(f"/v1/files/{digest}/link", content=f'{{"expires_in": {life}}}')
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("expires_in")


def test_the_owner_of_a_file_nobody_uploaded_is_null_as_documented(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    digest = Algorithm.SHA256.new(b"from earlier").hexdigest()
    daemon.blob(digest).parent.mkdir(exist_ok=True)
    daemon.blob(digest).write_bytes(b"from earlier")
    assert httpx.get(f"{daemon.url}/v1/files/{digest}").json()["owner"] is None


def test_schemathesis_finds_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--anonymous", "none")
    token = make_token(daemon.store, "fuzz", "admin")
    with httpx.Client(base_url=daemon.url, headers=bearer(token)) as owner:
        assert owner.get("/v1/stats").status_code == 200
    found = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", f"{daemon.url}/openapi.json",
            "--header", f"Authorization: Bearer {token}",
            "--checks", "all", "--phases", "coverage,fuzzing,stateful", "--mode", "all",
            "--max-examples", "40", "--generation-deterministic", "--no-color", "--warnings", "off",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr
    assert "No issues found" in found.stdout
    assert " ERROR " not in daemon.read_log()
