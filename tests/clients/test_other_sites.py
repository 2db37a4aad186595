"""tus-js-client and Uppy in a real browser, on a page of another web site that ``--cors-origin`` allows."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browsing import Watch
from tests.clients.files import Sample, assert_stored, make_sample
from tests.conftest import Daemon, StartDaemon
from tests.proxy import proxy_before
from tests.sites import serve
from tests.tokens import bearer, make_token

MIB = 1 << 20
SITE = Path(__file__).with_name("site")
PATIENT = [100, 200, 400, 800] + [1000] * 40


@pytest.fixture(scope="module")
def other_site(npm_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with both clients, at the origin that is returned."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(SITE / "index.html", folder)
    subprocess.run(
        [npm_packages / ".bin" / "esbuild", SITE / "client.mjs", "--bundle", "--log-level=warning",
         f"--outfile={folder / 'bundle.js'}"],
        check=True, timeout=60, env=os.environ | {"NODE_PATH": str(npm_packages)},
    )  # fmt: skip
    with serve(folder) as origin:
        yield origin


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path, 5 * MIB + 321)


def choose(page: Page, *samples: Sample) -> None:
    page.get_by_label("Files").set_input_files([sample.path for sample in samples])


def begin(page: Page, client: str, url: str, **settings: Any) -> None:
    page.evaluate(
        "([client, settings]) => window[client](settings)", [client, {"endpoint": f"{url}/v1/uploads", **settings}]
    )


def outcome(page: Page) -> dict[str, Any]:
    """Wait for the outcome of what was begun."""
    output = page.locator("output")
    expect(output).not_to_be_empty(timeout=40_000)
    told: dict[str, Any] = json.loads(output.text_content() or "")
    return told


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunkSize": 2 * MIB},
        {"parallelUploads": 2},
        {"uploadDataDuringCreation": True},
        {"overridePatchMethod": True, "addRequestId": True},
    ],
    ids=["whole", "pieces", "parallel", "with the creation", "patch by post"],
)
def test_tus_js_client(
    settings: dict[str, Any], start_daemon: StartDaemon, other_site: str, page: Page, sample: Sample
) -> None:
    daemon = start_daemon("--cors-origin", other_site)
    page.goto(other_site)
    choose(page, sample)
    begin(page, "uploadByTus", daemon.url, metadata={"filename": "photo.png"}, **settings)
    told = outcome(page)
    assert "error" not in told, told
    if "parallelUploads" not in settings:
        # the client could read the header: it is exposed to other sites
        assert told["requests"][-1][2] == sample.digest
    assert httpx.get(f"{daemon.url}/v1/files/{sample.digest}").json()["name"] == "photo.png"
    assert_stored(daemon, sample)


def test_tus_js_client_goes_on_after_the_page_was_closed(
    start_daemon: StartDaemon, other_site: str, page: Page, tmp_path: Path, watch: Watch
) -> None:
    watch.allow("ERR_")
    # more than the system may hold for a connection and send on after the page is gone
    sample = make_sample(tmp_path, 24 * MIB)
    daemon = start_daemon("--cors-origin", other_site)
    with proxy_before(daemon.address) as proxy:
        proxy.limit(8 * MIB)
        page.goto(other_site)
        choose(page, sample)
        begin(page, "uploadByTus", proxy.url)
        proxy.wait_for(4 * MIB)
        page.reload()
        proxy.limit(None)
        already = proxy.uploaded
        choose(page, sample)
        begin(page, "uploadByTus", proxy.url)
        told = outcome(page)
        assert [method for method, *_ in told["requests"]] == ["HEAD", "PATCH"]
        assert proxy.uploaded - already < sample.size - 3 * MIB
    assert_stored(daemon, sample)


def test_tus_js_client_goes_on_after_the_daemon_was_killed(
    start_daemon: StartDaemon, other_site: str, page: Page, sample: Sample, watch: Watch
) -> None:
    watch.allow("ERR_|CORS policy")
    daemon = start_daemon("--cors-origin", other_site)
    with proxy_before(daemon.address) as proxy:
        proxy.limit(3 * MIB)
        page.goto(other_site)
        choose(page, sample)
        begin(page, "uploadByTus", proxy.url, chunkSize=MIB, retryDelays=PATIENT)
        proxy.wait_for(2 * MIB)
        daemon.kill()
        daemon.start()
        proxy.aim(daemon.address)
        proxy.limit(None)
        told = outcome(page)
    assert "error" not in told, told
    assert [method for method, *_ in told["requests"]].count("POST") == 1
    assert_stored(daemon, sample)


def test_uppy_uploads_several_files(start_daemon: StartDaemon, other_site: str, page: Page, tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, size, f"{size}.bin") for size in (0, 1, 70_000, 3 * MIB)]
    token = make_token(tmp_path / "store", "anna", "read,write")
    daemon = start_daemon("--cors-origin", other_site, store=tmp_path / "store")
    page.goto(other_site)
    choose(page, *samples)
    begin(page, "uploadByUppy", daemon.url, chunkSize=MIB, headers={"Authorization": f"Bearer {token}"})
    told = outcome(page)
    assert told["failed"] == []
    assert len(set(told["urls"])) == len(samples)
    for sample in samples:
        assert_stored(daemon, sample)
        file = httpx.get(f"{daemon.url}/v1/files/{sample.digest}", headers=bearer(token)).json()
        assert (file["name"], file["owner"]) == (sample.path.name, "anna")


def test_uppy_goes_on_across_cut_connections(
    start_daemon: StartDaemon, other_site: str, page: Page, sample: Sample, watch: Watch
) -> None:
    # what came before the cut may still be on its way to the disk when the client asks again
    watch.allow("ERR_|CORS policy|status of (409|423)")
    daemon = start_daemon("--cors-origin", other_site)
    with proxy_before(daemon.address) as proxy:
        proxy.limit(3 * MIB)
        page.goto(other_site)
        choose(page, sample)
        begin(page, "uploadByUppy", proxy.url, retryDelays=PATIENT)
        for _ in range(2):
            proxy.wait_for(proxy.uploaded + MIB)
            proxy.cut()
        proxy.limit(None)
        told = outcome(page)
        assert told["failed"] == []
        assert proxy.uploaded < 2 * sample.size
    assert_stored(daemon, sample)


def test_a_site_that_is_not_allowed_uploads_nothing(
    daemon: Daemon, other_site: str, page: Page, sample: Sample, watch: Watch
) -> None:
    watch.allow("CORS policy|ERR_FAILED")
    page.goto(other_site)
    choose(page, sample)
    begin(page, "uploadByTus", daemon.url, retryDelays=None)
    assert outcome(page)["status"] == 0
    assert not daemon.blob(sample.digest).exists()
