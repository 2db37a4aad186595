"""tus-js-client in Node, unchanged, against the daemon."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.files import Sample, assert_stored, make_sample
from tests.clients.node import node_client
from tests.conftest import Daemon, StartDaemon
from tests.proxy import Proxy, proxy_before
from tests.tokens import bearer, make_token

MIB = 1 << 20
SOURCES = pytest.mark.parametrize("source", ["buffer", "stream"])
PATIENT = [100, 200, 400, 800] + [1000] * 40


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path, 5 * MIB + 12345)


def job(url: str, sample: Sample, source: str = "buffer", **settings: Any) -> dict[str, Any]:
    """Return what the client is told to do."""
    return {
        "file": str(sample.path),
        "source": source,
        "settings": {"endpoint": f"{url}/v1/uploads", "retryDelays": [0, 100, 500], **settings},
    }


def head(url: str, **headers: str) -> httpx.Response:
    return httpx.head(url, headers={"Tus-Resumable": "1.0.0", **headers})


@SOURCES
def test_a_file_in_one_request(source: str, daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    with node_client(npm_packages, **job(daemon.url, sample, source)) as client:
        url = client.succeed()
    assert client.answers("PATCH")[-1]["hash"] == sample.digest
    assert head(url).headers["Filestored-Hash"] == sample.digest
    assert_stored(daemon, sample)


@SOURCES
def test_a_file_in_pieces(source: str, daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    with node_client(npm_packages, **job(daemon.url, sample, source, chunkSize=MIB)) as client:
        client.succeed()
    answers = client.answers("PATCH")
    assert [answer["status"] for answer in answers] == [204] * 6
    assert [answer["offset"] for answer in answers[:2]] == [str(MIB), str(2 * MIB)]
    assert [answer["hash"] for answer in answers if "hash" in answer] == [sample.digest]
    assert_stored(daemon, sample)


def test_an_empty_file(daemon: Daemon, npm_packages: Path, tmp_path: Path) -> None:
    sample = make_sample(tmp_path, 0)
    with node_client(npm_packages, **job(daemon.url, sample)) as client:
        url = client.succeed()
    assert head(url).headers["Filestored-Hash"] == sample.digest
    assert_stored(daemon, sample)


@SOURCES
def test_parts_in_parallel_become_one_file(source: str, daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    settings = {"parallelUploads": 3, "metadata": {"filename": "joined.bin"}}
    with node_client(npm_packages, **job(daemon.url, sample, source, **settings)) as client:
        url = client.succeed()
    assert [answer["status"] for answer in client.answers("POST")] == [201] * 4
    assert head(url).headers["Filestored-Hash"] == sample.digest
    assert httpx.get(f"{daemon.url}/v1/files/{sample.digest}").json()["name"] == "joined.bin"
    assert_stored(daemon, sample)


@SOURCES
@pytest.mark.parametrize("chunk", [MIB, 64 * MIB])
def test_bytes_come_with_the_creation(
    source: str, chunk: int, daemon: Daemon, npm_packages: Path, sample: Sample
) -> None:
    settings = {"uploadDataDuringCreation": True, "chunkSize": chunk}
    with node_client(npm_packages, **job(daemon.url, sample, source, **settings)) as client:
        client.succeed()
    creations = [(answer["status"], int(answer["offset"])) for answer in client.answers("POST")]
    assert creations == [(201, min(chunk, sample.size))]
    assert len(client.answers("PATCH")) == (5 if chunk == MIB else 0)
    assert_stored(daemon, sample)


def test_a_length_that_is_told_at_the_end(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    settings = {"uploadLengthDeferred": True, "chunkSize": 2 * MIB}
    with node_client(npm_packages, **job(daemon.url, sample, "pipe", **settings)) as client:
        url = client.succeed()
    assert head(url).headers["Upload-Length"] == str(sample.size)
    assert_stored(daemon, sample)


def test_name_and_type_are_kept(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    metadata = {"filename": "Übergröße – отчёт.csv", "filetype": "text/csv"}
    with node_client(npm_packages, **job(daemon.url, sample, metadata=metadata)) as client:
        url = client.succeed()
    file = httpx.get(f"{daemon.url}/v1/files/{sample.digest}").json()
    assert (file["name"], file["type"]) == (metadata["filename"], "text/csv")
    sent = dict(pair.split(" ") for pair in head(url).headers["Upload-Metadata"].split(","))
    assert base64.b64decode(sent["filename"]).decode() == metadata["filename"]


def test_patch_is_sent_as_post_where_a_proxy_knows_no_patch(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    with node_client(npm_packages, **job(daemon.url, sample, overridePatchMethod=True, chunkSize=2 * MIB)) as client:
        client.succeed()
    assert not client.answers("PATCH")
    assert [answer["status"] for answer in client.answers("POST")] == [201, 204, 204, 204]
    assert_stored(daemon, sample)


def test_an_upload_goes_on_where_it_was_stopped(
    daemon: Daemon, npm_packages: Path, sample: Sample, tmp_path: Path
) -> None:
    urls = str(tmp_path / "urls.json")
    with proxy_before(daemon.address) as proxy:
        proxy.limit(4 * MIB)
        told = job(proxy.url, sample)
        with node_client(npm_packages, **told, urls=urls, abortAt=3 * MIB) as client:
            url = client.wait_for("stopped")["url"]
            client.finish()
        proxy.limit(None)
        kept = int(head(url).headers["Upload-Offset"])
        assert MIB < kept < sample.size
        already = proxy.uploaded
        with node_client(npm_packages, **told, urls=urls, resume=True) as client:
            assert client.succeed() == url
        assert proxy.uploaded - already < sample.size - kept + 10_000
    assert_stored(daemon, sample)


def test_it_resumes_by_itself_when_connections_are_cut(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    with proxy_before(daemon.address) as proxy:
        proxy.limit(3 * MIB)
        with node_client(npm_packages, **job(proxy.url, sample, retryDelays=PATIENT)) as client:
            for _ in range(3):
                proxy.wait_for(proxy.uploaded + MIB)
                proxy.cut()
            proxy.limit(None)
            client.succeed()
        assert len(client.answers("POST")) == 1
        assert len(client.answers("HEAD")) >= 3
        assert proxy.uploaded < 2 * sample.size
    assert_stored(daemon, sample)


def test_it_resumes_after_the_daemon_was_killed_and_started_again(
    start_daemon: StartDaemon, npm_packages: Path, sample: Sample
) -> None:
    daemon = start_daemon()
    with proxy_before(daemon.address) as proxy:
        proxy.limit(3 * MIB)
        with node_client(npm_packages, **job(proxy.url, sample, chunkSize=MIB, retryDelays=PATIENT)) as client:
            proxy.wait_for(2 * MIB + MIB // 2)
            daemon.kill()
            proxy.limit(None)
            restart(daemon, proxy)
            url = client.succeed()
    assert len(client.answers("POST")) == 1
    assert head(url.replace(proxy.url, daemon.url)).headers["Filestored-Hash"] == sample.digest
    assert_stored(daemon, sample)


def restart(daemon: Daemon, proxy: Proxy) -> None:
    daemon.start()
    proxy.aim(daemon.address)


def test_a_cancelled_upload_is_gone(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    with proxy_before(daemon.address) as proxy:
        proxy.limit(4 * MIB)
        with node_client(npm_packages, **job(proxy.url, sample), abortAt=2 * MIB, terminate=True) as client:
            client.wait_for("stopped")
            client.finish()
    # the client tries again while what it sent before is still on its way, and the upload therefore being written
    *earlier, deletion = client.answers("DELETE")
    assert {answer["status"] for answer in earlier} <= {423}
    assert deletion["status"] == 204
    assert head(deletion["url"].replace(proxy.url, daemon.url)).status_code == 404
    assert not daemon.blob(sample.digest).exists()


def test_a_wrong_token_is_said_once(start_daemon: StartDaemon, npm_packages: Path, sample: Sample) -> None:
    daemon = start_daemon("--anonymous", "none")
    headers = bearer("fs-000000000000-" + "0" * 40)
    with node_client(npm_packages, **job(daemon.url, sample, headers=headers)) as client:
        told = client.finish()
    assert [event["status"] for event in told if event["event"] == "error"] == [401]
    assert len(client.answers("POST")) == 1


def test_an_upload_with_a_token_is_its_owners(
    start_daemon: StartDaemon, npm_packages: Path, sample: Sample, tmp_path: Path
) -> None:
    anna, boris = (make_token(tmp_path / "store", name, "read,write") for name in ("anna", "boris"))
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "store")
    with node_client(npm_packages, **job(daemon.url, sample, headers=bearer(anna), chunkSize=2 * MIB)) as client:
        url = client.succeed()
    assert head(url, **bearer(anna)).headers["Filestored-Hash"] == sample.digest
    assert head(url, **bearer(boris)).status_code == 404
    assert httpx.get(f"{daemon.url}/v1/files/{sample.digest}", headers=bearer(anna)).json()["owner"] == "anna"
    assert_stored(daemon, sample)


def test_bytes_other_than_the_announced_ones_are_refused(daemon: Daemon, npm_packages: Path, sample: Sample) -> None:
    metadata = {"filename": "x.bin", "hash": "0" * 64}
    with node_client(npm_packages, **job(daemon.url, sample, metadata=metadata)) as client:
        told = client.finish()
    assert [event["status"] for event in told if event["event"] == "error"] == [422]
    assert not daemon.blob(sample.digest).exists()
    url = next(answer["url"] for answer in client.answers("PATCH"))
    assert head(url).status_code == 404


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(
    start_daemon: StartDaemon, npm_packages: Path, sample: Sample
) -> None:
    daemon = start_daemon("--max-upload-size", "1MiB")
    with node_client(npm_packages, **job(daemon.url, sample)) as client:
        told = client.finish()
    assert [event["status"] for event in told if event["event"] == "error"] == [413]
    assert not client.answers("PATCH")
