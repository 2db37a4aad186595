"""``/metrics``: what is counted and what there is, as Prometheus text; docs/metrics.md lists it.

The counters are those of all workers together, so that they are the same whichever worker answers. What cannot be read
at the moment is left out, and ``filestored_catalogue_up`` or ``filestored_store_up`` says so.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TypeVar

from loguru import logger
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from filestored import __version__
from filestored.access import Permission, Principal
from filestored.api.exchange import Exchange
from filestored.api.representations import NO_STORE
from filestored.api.routes import TEXT, Answer, Route, Target
from filestored.filestore import Filestore
from filestored.metrics import (
    BUCKETS,
    EXPIRED_FILES,
    FAILED_FLUSHES,
    FORWARDED_REQUESTS,
    RECEIVED_BYTES,
    SENT_BYTES,
    RequestCounts,
)
from filestored.passes import NOTE, Pass

_HEADERS = [(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()), NO_STORE]
_BOUNDS = (*map(str, BUCKETS), "+Inf")
_POSITION_DIGITS = 8
_POSITIONS = 16**8

T = TypeVar("T")


class MetricsRoutes:
    """Answers with the metrics of a registry."""

    def __init__(self, filestore: Filestore, registry: CollectorRegistry) -> None:
        self._filestore = filestore
        self._registry = registry

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        answers = {200: Answer("The metrics, as Prometheus text.", TEXT)}
        return [
            Route(method, "/metrics", Permission.READ, self._show, "Measure the server, for Prometheus", answers)
            for method in ("GET", "HEAD")
        ]

    async def _show(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await exchange.answer(200, _HEADERS, await self._filestore.in_thread(generate_latest, self._registry))


class Measurements(Collector):
    """What the daemon has counted, and what there is in its store, at the moment it is asked."""

    def __init__(self, filestore: Filestore, requests: RequestCounts) -> None:
        self._filestore = filestore
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Return all metrics. Blocks."""
        algorithm = self._filestore.algorithm.value
        yield InfoMetricFamily("filestored", "The program that runs.", {"version": __version__, "algorithm": algorithm})
        totals = self._filestore.shared.sum_counters()
        yield from self._counted_requests(totals)
        for name, number, meaning in (
            ("received_bytes", RECEIVED_BYTES, "Bytes of the bodies of requests."),
            ("sent_bytes", SENT_BYTES, "Bytes of the bodies of answers."),
            ("failed_flushes", FAILED_FLUSHES, "Flushes of bytes, folders or the catalogue that the disk has failed."),
            ("expired_files", EXPIRED_FILES, "Files deleted because their time had come."),
            ("forwarded_requests", FORWARDED_REQUESTS, "Requests passed on to the daemon that has the upload."),
        ):
            yield CounterMetricFamily(f"filestored_{name}", meaning, totals[number])
        yield _gauge("uploads_in_flight", "Uploads under way.", self._filestore.shared.uploads())
        yield from self._cluster()
        yield from self._store()
        yield from self._catalogue()

    def _counted_requests(self, totals: list[int]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "filestored_requests", "Requests that have ended.", labels=["route", "method", "status"]
        )
        seconds = HistogramMetricFamily(
            "filestored_request_seconds",
            "From the head of a request to the end of its answer.",
            labels=["route", "method"],
        )
        for route in self._requests.read(totals):
            for status, number in route.requests.items():
                requests.add_metric([route.path, route.method, status], number)
            buckets = list(zip(_BOUNDS, accumulate(route.durations), strict=True))
            seconds.add_metric([route.path, route.method], buckets, route.seconds)
        yield requests
        yield seconds

    def _cluster(self) -> Iterator[Metric]:
        """Return what there is to say of the daemons with this catalogue; where there can be but one, it leads."""
        own = self._filestore.daemons
        known = (True, 1) if own is None else _attempt("catalogue", lambda: (own.leads(), own.count()))
        if known is not None:
            yield _gauge("upkeep_leader", "Whether this daemon ends what has expired: 1 or 0.", known[0])
            yield _gauge("daemons", "Daemons heard of lately.", known[1])

    def _store(self) -> Iterator[Metric]:
        free = _attempt("store", self._filestore.free_bytes)
        yield _gauge("store_up", "Whether the blob store answers: 1 or 0.", free is not None)
        if free is not None:
            yield _gauge("free_bytes", "Bytes free on the disk of the store, or of the spool.", free)

    def _catalogue(self) -> Iterator[Metric]:
        usage = _attempt("catalogue", self._filestore.kept_by)
        yield _gauge("catalogue_up", "Whether the catalogue answers: 1 or 0.", usage is not None)
        if usage is not None:
            yield _gauge("files", "Files that owners keep.", usage.files)
            yield _gauge("blobs", "Different blobs that files name.", usage.blobs)
            yield _gauge("blob_bytes", "Bytes of these blobs.", usage.bytes)
            under_way = _attempt("catalogue", self._filestore.uploads.under_way)
            if under_way is not None:
                yield _gauge("unfinished_uploads", "Resumable uploads that are not complete.", under_way[0])
                yield _gauge("unfinished_upload_bytes", "Bytes of these uploads that are there.", under_way[1])
            scrubbed = _attempt("catalogue", lambda: Pass.read(self._filestore.note(NOTE)))
            if scrubbed is not None:
                yield from scrub_metrics(scrubbed)


def scrub_metrics(scrubbed: Pass) -> Iterator[Metric]:
    """Return the metrics of the pass that is running, or else ended last."""
    missing = scrubbed.found_missing
    yield _gauge("scrub_damaged_blobs", "Blobs found damaged or missing.", scrubbed.found_damaged + missing)
    yield _gauge("scrub_missing_blobs", "Blobs found missing.", missing)
    yield _gauge("scrub_verified_blobs", "Blobs found to be what their names say.", scrubbed.verified_blobs)
    yield _gauge("scrub_verified_bytes", "Bytes of these blobs.", scrubbed.verified_bytes)
    yield _gauge("scrub_progress_ratio", "Share of the store that was looked at, from 0 to 1.", progress_of(scrubbed))
    finished = GaugeMetricFamily(
        "filestored_scrub_last_finished_timestamp_seconds", "When a scrub ended last, in Unix seconds."
    )
    if scrubbed.finished_at:
        finished.add_metric([], scrubbed.finished_at)
    yield finished


def progress_of(scrubbed: Pass) -> float:
    """Return how far a pass has come, from 0 to 1: digests lie evenly, and are taken in their order."""
    digits = scrubbed.position[:_POSITION_DIGITS]
    if not digits:
        return 1.0 if scrubbed.is_finished else 0.0
    try:
        return int(digits.ljust(_POSITION_DIGITS, "0"), 16) / _POSITIONS
    except ValueError:
        return 0.0


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"filestored_{name}", meaning, value)


def _attempt(name: str, read: Callable[[], T]) -> T | None:
    """Return what is read, None where that fails, whatever the reason: the other metrics are worth having still."""
    try:
        return read()
    except Exception as error:
        logger.error("the {} does not answer: {}", name, error)
        return None
