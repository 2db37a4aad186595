"""``/metrics`` (contract 3.3): exact, the same whichever worker answers, and what docs/metrics.md says it is."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from filestored.api.exposition import progress_of, scrub_metrics
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.digest import Algorithm
from filestored.passes import NOTE, Pass
from tests.api.raw import RawConnection
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()

Sample = tuple[str, frozenset[tuple[str, str]]]
Scrape = dict[Sample, float]


def scrape(url: str) -> Scrape:
    """Ask over a connection of its own, so that any worker may answer."""
    answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(found: Scrape, name: str, **labels: str) -> float:
    """Return a sample's value, 0 where it has not occurred."""
    return found.get((f"filestored_{name}", frozenset(labels.items())), 0.0)


def requests(found: Scrape, route: str, method: str) -> dict[str, float]:
    """Return how many requests there were of a route, by status."""
    wanted = {("route", route), ("method", method)}
    return {
        dict(labels)["status"]: count
        for (name, labels), count in found.items()
        if name == "filestored_requests_total" and wanted <= labels
    }


def counters_of(found: Scrape) -> Scrape:
    """Return what may never go back."""
    return {key: number for key, number in found.items() if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}


def set_note(daemon: Daemon, value: str) -> None:
    """Leave a note in the catalogue, as a process of its own does that scrubs."""
    catalogue = Catalogue(StoreFolder.adopt(daemon.store, Algorithm.SHA256).catalogue_file, durable=False)
    with catalogue.transaction() as transaction:
        transaction.set_note(NOTE, value)
    catalogue.close()


@pytest.fixture
def busy(start_daemon: StartDaemon) -> tuple[Daemon, str]:
    """A daemon whose two workers both answer, and the hash of a file of 1000 bytes in it."""
    daemon = start_daemon("--workers", "2")
    wait_for_both(daemon)
    return daemon, httpx.post(daemon.url, content=os.urandom(1000)).text


def wait_for_both(daemon: Daemon) -> None:
    """Wait until two workers take connections."""
    daemon.log.write_text("")
    assert wait_until(lambda: httpx.get(f"{daemon.url}/healthz").is_success and answering(daemon, "/healthz") == 2)


def answering(daemon: Daemon, path: str) -> int:
    """Return how many workers have answered a GET, as far as the end of the log tells."""
    return len(set(re.findall(rf" id=(\w+)-.* GET {path} ", daemon.read_log())))


def ask_often(daemon: Daemon, digest: str, times: int) -> None:
    """Download a file, each time over a new connection; see that both workers had their share."""
    daemon.log.write_text("")
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(lambda _: httpx.get(f"{daemon.url}/{digest}").status_code, range(times))
        assert set(answers) == {200}
    assert wait_until(lambda: answering(daemon, f"/{digest}") == 2)


def test_counts_are_exact_whichever_worker_answers(busy: tuple[Daemon, str]) -> None:
    daemon, digest = busy
    ask_often(daemon, digest, 30)
    url = f"{daemon.url}/{digest}"
    assert httpx.get(url, headers={"If-None-Match": f'"{digest}"'}).status_code == 304
    assert httpx.get(url, headers={"Range": "bytes=0-99"}).status_code == 206
    assert httpx.get(f"{url}/name").status_code == httpx.head(url).status_code == 200
    assert httpx.put(daemon.url, content=b"x").status_code == 405
    assert httpx.get(f"{daemon.url}/nothing/here").status_code == 404
    expected = {
        ("/", "POST"): {"200": 1.0},
        ("/", "other"): {"405": 1.0},
        ("/{hash}", "GET"): {"200": 30.0, "206": 1.0, "304": 1.0},
        ("/{hash}", "HEAD"): {"200": 1.0},
        ("/{hash}/{name}", "GET"): {"200": 1.0},
        ("other", "other"): {"404": 1.0},
    }
    # a request is counted a moment after its client has the answer
    assert wait_until(lambda: requests(scrape(daemon.url), "other", "other") != {})
    before = scrape(daemon.url)
    for number in range(20):
        found = scrape(daemon.url)
        assert {line: requests(found, *line) for line in expected} == expected
        assert requests(found, "/metrics", "GET")["200"] == requests(before, "/metrics", "GET")["200"] + number + 1
        assert value(found, "received_bytes_total") == 1001


def test_the_bytes_of_answers_are_counted(client: httpx.Client) -> None:
    path = f"/{client.post('/', content=os.urandom(1000)).text}"
    client.get(path)
    first = client.get("/metrics").text
    answers = [
        client.request(method, path, headers=headers)
        for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-99"}), ("GET", {"Range": "no"}))
    ]
    expected = len(first) + sum(len(answer.content) for answer in answers)
    assert expected == len(first) + 2100
    second = client.get("/metrics").text
    assert sent_bytes(second) - sent_bytes(first) == expected


def sent_bytes(text: str) -> float:
    """Return what an answer says of the bytes sent before it."""
    found = re.search(r"^filestored_sent_bytes_total (\S+)$", text, re.MULTILINE)
    assert found
    return float(found[1])


def test_counters_do_not_go_back_when_a_worker_dies(busy: tuple[Daemon, str]) -> None:
    daemon, digest = busy
    ask_often(daemon, digest, 30)
    assert wait_until(lambda: requests(scrape(daemon.url), "/{hash}", "GET") == {"200": 30.0})
    last = counters_of(scrape(daemon.url))
    victim, _ = worker_pids(daemon.pid)
    os.kill(victim, signal.SIGKILL)
    while victim in worker_pids(daemon.pid) or len(worker_pids(daemon.pid)) < 2:
        # a connection that the dead worker had taken is lost
        with contextlib.suppress(httpx.TransportError):
            found = counters_of(scrape(daemon.url))
            assert all(found[key] >= number for key, number in last.items())
            last = found
    wait_for_both(daemon)
    ask_often(daemon, digest, 30)
    assert wait_until(lambda: requests(scrape(daemon.url), "/{hash}", "GET") == {"200": 60.0})
    found = counters_of(scrape(daemon.url))
    assert all(found[key] >= number for key, number in last.items())


def test_counters_begin_anew_with_the_daemon(busy: tuple[Daemon, str]) -> None:
    daemon, digest = busy
    ask_often(daemon, digest, 10)
    assert daemon.stop() == 0
    daemon.start()
    assert requests(scrape(daemon.url), "/{hash}", "GET") == {}


def test_each_request_is_in_one_bucket(busy: tuple[Daemon, str]) -> None:
    daemon, digest = busy
    ask_often(daemon, digest, 20)
    httpx.get(f"{daemon.url}/nothing/here")
    assert wait_until(lambda: requests(scrape(daemon.url), "other", "other") != {})
    found = scrape(daemon.url)
    counted = [dict(labels) for name, labels in found if name.startswith("filestored_request")]
    lines = {(labels["route"], labels["method"]) for labels in counted}
    assert len(lines) > 3
    for route, method in lines:
        labels = {"route": route, "method": method}
        count = value(found, "request_seconds_count", **labels)
        assert count == sum(requests(found, route, method).values()) > 0
        assert value(found, "request_seconds_bucket", le="+Inf", **labels) == count
        assert 0 < value(found, "request_seconds_sum", **labels) < 20 * count
        bounds = sorted(
            (float(dict(names)["le"]), number)
            for (name, names), number in found.items()
            if name == "filestored_request_seconds_bucket" and set(labels.items()) <= names
        )
        numbers = [number for _, number in bounds]
        assert numbers == sorted(numbers)


def test_a_long_upload_is_counted_as_long_as_it_was(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    with RawConnection(daemon.address) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n" + b"a" * 1000)
        assert wait_until(lambda: value(scrape(daemon.url), "uploads_in_flight") == 1)
        time.sleep(0.3)
        connection.send(b"a" * 1000)
        assert connection.answer()[0] == 200
    assert wait_until(lambda: requests(scrape(daemon.url), "/", "POST") == {"200": 1.0})
    found = scrape(daemon.url)
    assert value(found, "uploads_in_flight") == 0
    assert value(found, "received_bytes_total") == 2000
    assert value(found, "request_seconds_bucket", route="/", method="POST", le="0.25") == 0
    assert 0.3 < value(found, "request_seconds_sum", route="/", method="POST") < 20


def test_what_is_kept_is_measured(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    for body in (b"one", b"three", b"three"):
        httpx.post(daemon.url, content=body).raise_for_status()
    found = scrape(daemon.url)
    names = ("files", "blobs", "blob_bytes", "store_up", "catalogue_up", "failed_flushes_total", "expired_files_total")
    assert [value(found, name) for name in names] == [2, 2, 8, 1, 1, 0, 0]
    stats = httpx.get(f"{daemon.url}/v1/stats").json()
    assert value(found, "info", version=stats["version"], algorithm="sha256") == 1
    assert abs(value(found, "free_bytes") - stats["free"]) < 1 << 30


def test_it_needs_the_permission_to_read(start_daemon: StartDaemon) -> None:
    closed, readable = start_daemon("--anonymous", "none"), start_daemon("--anonymous", "read")
    for method in ("GET", "HEAD"):
        assert httpx.request(method, f"{closed.url}/metrics").status_code == 401
        assert httpx.request(method, f"{readable.url}/metrics").status_code == 200
    assert "filestored_" not in httpx.get(f"{closed.url}/metrics").text


def test_it_is_prometheus_text_that_nobody_keeps(client: httpx.Client) -> None:
    answer, headed = client.get("/metrics", headers={"Accept": "text/plain;version=nonsense"}), client.head("/metrics")
    for headers in (answer.headers, headed.headers):
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert headers["cache-control"] == "no-store"
    assert headed.content == b""
    assert client.post("/metrics").headers["allow"] == "GET, HEAD"


def test_without_a_catalogue_the_counters_are_still_there(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--anonymous", "read")
    with sqlite3.connect(daemon.store / ".filestored" / "catalogue.sqlite3") as catalogue:
        catalogue.execute("ALTER TABLE totals RENAME TO gone")
    catalogue.close()
    scrape(daemon.url)
    found = scrape(daemon.url)
    names = {name for name, _ in found}
    assert value(found, "catalogue_up") == 0
    assert value(found, "store_up") == 1
    assert requests(found, "/metrics", "GET")["200"] >= 1
    assert not names & {"filestored_files", "filestored_blobs", "filestored_blob_bytes"}
    assert "the catalogue does not answer" in daemon.read_log()


@pytest.mark.parametrize(
    ("calls", "size"),
    [("fdatasync", 1000), ("fdatasync", 300_000), ("fsync", 1000), ("fdatasync", 0)],
    ids=["a small body", "a large body", "a folder", "the catalogue"],
)
def test_a_flush_that_the_disk_fails_is_counted(start_daemon: StartDaemon, calls: str, size: int) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(daemon.url, content=b"there").text
    (worker,) = worker_pids(daemon.pid)
    with traced(worker, "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO", "-o", os.devnull):
        answer = httpx.post(daemon.url, content=os.urandom(size)) if size else httpx.delete(f"{daemon.url}/{digest}")
    assert answer.status_code == 500
    assert value(scrape(daemon.url), "failed_flushes_total") == 1
    httpx.post(daemon.url, content=os.urandom(1000)).raise_for_status()
    assert value(scrape(daemon.url), "failed_flushes_total") == 1


def test_files_whose_time_has_come_are_counted(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    for life in ("1", "1", "1h"):
        httpx.post(daemon.url, params={"expires_in": life}, content=os.urandom(10)).raise_for_status()
    assert wait_until(lambda: value(scrape(daemon.url), "expired_files_total") == 2)
    assert value(scrape(daemon.url), "files") == 1


# scrub


def numbers(note: str | None) -> list[float]:
    return [sample.value for metric in scrub_metrics(Pass.read(note)) for sample in metric.samples]


def test_the_note_that_the_scrub_leaves_is_shown() -> None:
    noted = Pass(7, 700, damaged=2, missing=1, position="40", started_at=5, finished_at=4)
    assert numbers(noted.noted()) == [3, 1, 7, 700, 0.25, 4]


def test_what_a_pass_has_found_is_known_until_the_next_one_ends() -> None:
    finished = Pass(damaged=2, missing=1, position="f", started_at=5)
    finished.finish()
    following = Pass.recall(finished.noted(), restart=False)
    assert numbers(following.noted())[:2] == [3, 1]
    following.position = "f" * 64
    again = Pass.recall(Pass.recall(following.noted(), restart=False).noted(), restart=True)
    assert numbers(again.noted())[:2] == [3, 1]
    again.finish()
    assert numbers(again.noted())[:2] == [0, 0]


def test_what_the_scrub_has_noted_is_shown(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    names = ("damaged_blobs", "missing_blobs", "verified_blobs", "verified_bytes", "progress_ratio")
    found = scrape(daemon.url)
    assert [value(found, f"scrub_{name}") for name in names] == [0] * 5
    assert ("filestored_scrub_last_finished_timestamp_seconds", frozenset()) not in found
    note = {
        "verified_blobs": 7,
        "verified_bytes": 700,
        "damaged": 2,
        "missing": 1,
        "started_at": 5,
        "finished_at": None,
    }
    set_note(daemon, json.dumps({**note, "position": "40" + "0" * 62}))
    found = scrape(daemon.url)
    assert [value(found, f"scrub_{name}") for name in names] == [3, 1, 7, 700, 0.25]
    set_note(daemon, json.dumps({**note, "position": "", "finished_at": 1_800_000_000.5}))
    found = scrape(daemon.url)
    assert value(found, "scrub_progress_ratio") == 1
    assert value(found, "scrub_last_finished_timestamp_seconds") == 1_800_000_000.5


@pytest.mark.parametrize(
    ("note", "progress"),
    [
        ({}, 0), ({"position": ""}, 0), ({"position": "", "started_at": 9}, 0),
        ({"position": "", "started_at": 9, "finished_at": 9}, 1),
        # a new pass has begun
        ({"position": "", "started_at": 9, "finished_at": 8}, 0),
        ({"position": "8", "started_at": 9, "finished_at": 8}, 0.5), ({"position": "ff" * 32}, 1),
        ({"position": "00ff"}, 0.0039), ({"position": "none"}, 0), ({"position": 7}, 0),
    ],
)  # fmt: skip
def test_the_position_of_the_scrub_is_its_progress(note: dict[str, object], progress: float) -> None:
    assert progress_of(Pass.read(json.dumps(note))) == pytest.approx(progress, abs=1e-4)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null", '{"damaged": "many", "missing": null, "position": {}}'])
def test_a_note_that_makes_no_sense_counts_as_none(text: str | None) -> None:
    assert numbers(text) == [0] * 5


# documents


@pytest.fixture
def families(client: httpx.Client) -> dict[str, tuple[str, set[str]]]:
    """The type and the samples of each metric, by the name it is known under."""
    client.get(f"/{client.post('/', content=b'metrics').text}")
    return {
        family.name + "_total" * (family.type == "counter"): (family.type, {sample.name for sample in family.samples})
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }


def test_every_metric_is_in_the_document_and_nothing_else(families: dict[str, tuple[str, set[str]]]) -> None:
    documented = dict(re.findall(r"^\| `(filestored_\w+)` \| (\w+) \|", DOCUMENT, re.MULTILINE))
    assert documented == {name: kind for name, (kind, _) in families.items()}


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "prometheus-alerts.yaml"])
def test_dashboard_and_alerts_name_only_metrics_there_are(families: dict[str, tuple[str, set[str]]], name: str) -> None:
    text = (DEPLOY / name).read_text()
    there_are = set(families).union(*(samples for _, samples in families.values()))
    named = set(re.findall(r"\bfilestored_\w+", text))
    assert len(named) > 5
    assert named <= there_are


def test_every_alert_is_in_the_document_and_nothing_else() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", (DEPLOY / "prometheus-alerts.yaml").read_text(), re.MULTILINE)
    assert sorted(alerts) == sorted(set(re.findall(r"`(Filestored\w+)`", DOCUMENT)))


def test_the_dashboard_shows_every_metric_and_asks_for_its_datasource(
    families: dict[str, tuple[str, set[str]]],
) -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    shown = "\n".join(target["expr"] for panel in panels for target in panel["targets"])
    assert [name for name in families if name not in shown] == []
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
