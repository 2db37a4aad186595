"""tuspy, unchanged, against the daemon: its uploader and its asyncio uploader."""

# mypy: allow-untyped-calls

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader.uploader import AsyncUploader, Uploader

from tests.clients.files import Sample, assert_stored, make_sample
from tests.conftest import Daemon, StartDaemon
from tests.proxy import proxy_before
from tests.tokens import bearer, make_token

MIB = 1 << 20


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path, 3 * MIB + 777)


def client_of(url: str, headers: dict[str, str] | None = None) -> TusClient:
    return TusClient(f"{url}/v1/uploads", headers=headers)


@pytest.fixture
def stream(sample: Sample) -> Iterator[BinaryIO]:
    """The sample, opened here: files that the client opens it leaves open."""
    with sample.path.open("rb") as stream:
        yield stream


def run(uploader: AsyncUploader) -> None:
    """Run an asyncio uploader to its end, in a thread: a browser may hold the loop of this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, uploader.upload()).result()


def hash_of(uploader: Uploader | AsyncUploader) -> str:
    answer = httpx.head(str(uploader.url), headers={"Tus-Resumable": "1.0.0"})
    return answer.headers["Filestored-Hash"]


@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksum"])
@pytest.mark.parametrize("chunk", [MIB, 100 * MIB], ids=["pieces", "whole"])
def test_a_file(chunk: int, checksum: bool, daemon: Daemon, sample: Sample, stream: BinaryIO) -> None:
    uploader = client_of(daemon.url).uploader(
        file_stream=stream, chunk_size=chunk, metadata={"filename": "anna.csv"}, upload_checksum=checksum
    )
    uploader.upload()
    assert hash_of(uploader) == sample.digest
    file = httpx.get(f"{daemon.url}/v1/files/{sample.digest}").json()
    assert (file["name"], file["type"]) == ("anna.csv", "text/csv")
    assert_stored(daemon, sample)


@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksum"])
def test_a_file_by_the_asyncio_uploader(checksum: bool, daemon: Daemon, sample: Sample, stream: BinaryIO) -> None:
    uploader = client_of(daemon.url).async_uploader(file_stream=stream, chunk_size=MIB, upload_checksum=checksum)
    run(uploader)
    assert hash_of(uploader) == sample.digest
    assert_stored(daemon, sample)


def test_no_metadata_is_sent_as_an_empty_header(daemon: Daemon, sample: Sample, stream: BinaryIO) -> None:
    uploader = client_of(daemon.url).uploader(file_stream=stream)
    assert uploader.get_url_creation_headers()["upload-metadata"] == ""
    uploader.upload()
    assert hash_of(uploader) == sample.digest
    assert httpx.get(f"{daemon.url}/v1/files/{sample.digest}").json()["type"] == "application/octet-stream"


def test_an_empty_file(daemon: Daemon, tmp_path: Path) -> None:
    sample = make_sample(tmp_path, 0)
    with sample.path.open("rb") as stream:
        uploader = client_of(daemon.url).uploader(file_stream=stream)
        uploader.upload()
    assert hash_of(uploader) == sample.digest


# here the client itself has to open the file, and leaves it open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_upload_goes_on_from_the_address_that_was_kept(daemon: Daemon, sample: Sample, tmp_path: Path) -> None:
    storage = FileStorage(str(tmp_path / "urls.json"))
    first = client_of(daemon.url).uploader(str(sample.path), chunk_size=MIB, store_url=True, url_storage=storage)
    first.upload(stop_at=MIB)
    second = client_of(daemon.url).uploader(str(sample.path), chunk_size=MIB, store_url=True, url_storage=storage)
    assert (second.url, second.offset) == (first.url, MIB)
    second.upload()
    storage.close()
    assert hash_of(second) == sample.digest
    assert_stored(daemon, sample)


def test_an_upload_goes_on_after_the_daemon_was_killed(
    start_daemon: StartDaemon, sample: Sample, stream: BinaryIO, tmp_path: Path
) -> None:
    daemon = start_daemon()
    with proxy_before(daemon.address) as proxy:
        first = client_of(proxy.url).uploader(file_stream=stream, chunk_size=MIB)
        first.upload(stop_at=2 * MIB)
        daemon.kill()
        daemon.start()
        proxy.aim(daemon.address)
        second = client_of(proxy.url).uploader(file_stream=stream, chunk_size=MIB, url=first.url)
        assert second.offset == 2 * MIB
        second.upload()
        assert hash_of(second) == sample.digest
    assert_stored(daemon, sample)


def test_a_cut_connection_is_tried_again(daemon: Daemon, sample: Sample, stream: BinaryIO) -> None:
    with proxy_before(daemon.address) as proxy, ThreadPoolExecutor(1) as thread:
        uploader = client_of(proxy.url).uploader(file_stream=stream, retries=3, retry_delay=0)
        proxy.limit(2 * MIB)
        running = thread.submit(uploader.upload)
        proxy.wait_for(MIB)
        proxy.cut()
        proxy.limit(None)
        running.result()
        assert proxy.uploaded < sample.size + MIB
        assert hash_of(uploader) == sample.digest
    assert_stored(daemon, sample)


def test_a_token_is_sent_with_each_request(
    start_daemon: StartDaemon, sample: Sample, stream: BinaryIO, tmp_path: Path
) -> None:
    token = make_token(tmp_path / "store", "anna", "read,write")
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "store")
    client_of(daemon.url, bearer(token)).uploader(file_stream=stream, chunk_size=MIB).upload()
    assert httpx.get(f"{daemon.url}/v1/files/{sample.digest}", headers=bearer(token)).json()["owner"] == "anna"
    with pytest.raises(TusCommunicationError) as refused:
        client_of(daemon.url).uploader(file_stream=stream).upload()
    assert refused.value.status_code == 401


def test_a_deleted_upload_is_gone(daemon: Daemon, sample: Sample, stream: BinaryIO) -> None:
    uploader = client_of(daemon.url).uploader(file_stream=stream, chunk_size=MIB)
    uploader.upload(stop_at=MIB)
    assert httpx.delete(str(uploader.url), headers={"Tus-Resumable": "1.0.0"}).status_code == 204
    with pytest.raises(TusUploadFailed) as refused:
        uploader.upload_chunk()
    assert refused.value.status_code == 404
