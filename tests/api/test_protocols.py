"""HTTP/2 and TLS, spoken by curl."""

import hashlib
import os
import subprocess
from pathlib import Path

import httpx

from tests.api.raw import RawConnection
from tests.conftest import Daemon, StartDaemon, require_program


def curl(*arguments: str) -> str:
    """Run curl and return what it prints."""
    run = subprocess.run(
        [require_program("curl"), "-sS", "--max-time", "20", *arguments], capture_output=True, check=True, timeout=30
    )
    return run.stdout.decode()


def test_http2_without_tls(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--workers", "1", "--http2", "always")
    body = tmp_path / "body"
    for size in (1000, 3_000_000):
        body.write_bytes(os.urandom(size))
        digest = curl("--http2-prior-knowledge", "--data-binary", f"@{body}", daemon.url)
        got = tmp_path / "got"
        for _ in range(2):
            version = curl("--http2-prior-knowledge", "-w", "%{http_version}", "-o", str(got), f"{daemon.url}/{digest}")
            assert version == "2"
            assert got.read_bytes() == body.read_bytes()
    refused = curl("--http2-prior-knowledge", "-w", " %{http_code}", "-T", str(body), f"{daemon.url}/{'0' * 64}")
    assert refused.endswith(" 422")


def test_tls_with_http2_by_agreement(start_daemon: StartDaemon, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            require_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    daemon = start_daemon("--workers", "1", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert daemon.url.startswith("https://")
    digest = curl("--cacert", str(certificate), "--data-binary", "hello", daemon.url)
    page = curl("--cacert", str(certificate), "-w", " %{http_version}", f"{daemon.url}/{digest}")
    assert page == "hello 2"
    described = curl("--cacert", str(certificate), "-H", "Accept: application/json", "--data-binary", "hi", daemon.url)
    assert '"url": "https://' in described


def test_a_page_of_another_site_changes_nothing(client: httpx.Client) -> None:
    digest = client.post("/", content=os.urandom(20)).text
    own = str(client.base_url).rstrip("/")
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/", content=b"x", headers=headers).status_code == 403
        assert client.delete(f"/{digest}", headers=headers).status_code == 403
        assert client.get(f"/{digest}", headers=headers).status_code == 200
    assert client.post("/", content=b"x", headers={"origin": own, "sec-fetch-site": "same-origin"}).status_code == 200


def test_local_access_is_for_direct_connections_by_a_local_name(client: httpx.Client) -> None:
    digest = client.post("/", content=os.urandom(20)).text
    assert client.get(f"/{digest}").status_code == 200
    for headers in (
        {"host": "evil.example"}, {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
    ):  # fmt: skip
        for path in (f"/{digest}", "/nothing", f"/?file_hash={digest}"):
            refused = client.get(path, headers=headers)
            assert refused.status_code == 403
            assert digest not in refused.text
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 200


def test_anonymous_read_may_not_change_anything(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--anonymous", "read")
    body = b"put there by hand"
    digest = hashlib.sha256(body).hexdigest()
    daemon.blob(digest).parent.mkdir()
    daemon.blob(digest).write_bytes(body)
    assert httpx.get(f"{daemon.url}/{digest}").content == body
    for method, path in (
        ("POST", "/"),
        ("PUT", f"/{digest}"),
        ("DELETE", f"/{digest}"),
        ("DELETE", f"/?file_hash={digest}"),
    ):
        refused = httpx.request(method, daemon.url + path, content=body)
        assert refused.status_code == 401
        assert "needs a token" in refused.json()["detail"]
    nobody = start_daemon("--workers", "1", "--anonymous", "none")
    for method, path in (("POST", "/"), ("GET", f"/{digest}"), ("GET", "/nothing"), ("DELETE", f"/{digest}")):
        answer = httpx.request(method, nobody.url + path)
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers


def test_health_is_open_and_says_what_is_unusable(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--anonymous", "none")
    for path in ("/healthz", "/readyz"):
        assert httpx.get(daemon.url + path).json() == {"status": "ok"}
        assert httpx.head(daemon.url + path).status_code == 200
        assert httpx.post(daemon.url + path).status_code == 405


def test_a_malformed_origin_is_refused_like_a_foreign_one(client: httpx.Client) -> None:
    assert client.post("/", content=b"x", headers={"origin": "http://[x"}).status_code == 403


def test_a_refused_body_that_was_read_leaves_the_connection_open(daemon: Daemon) -> None:
    with RawConnection(daemon.address) as raw:
        refused = raw.request("POST", f"/?file_hash={'a' * 64}", "Content-Length: 2", body=b"hi")
        assert refused[0] == 422
        assert "connection" not in refused[1]
        assert raw.request("GET", "/healthz")[0] == 200
