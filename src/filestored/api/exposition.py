"""``/metrics``: what is counted and what there is, as Prometheus text; docs/metrics.md lists it.

The counters are those of all workers together, so that they are the same whichever worker answers. What cannot be read
at the moment is left out, and ``filestored_catalogue_up`` or ``filestored_store_up`` says so.
"""

import json
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
from filestored.metrics import BUCKETS, EXPIRED_FILES, FAILED_FLUSHES, RECEIVED_BYTES, SENT_BYTES, RequestCounts

SCRUB_NOTE = "scrub"
"""Under this name the catalogue has a note of how far the scrub has come."""

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
        ):
            yield CounterMetricFamily(f"filestored_{name}", meaning, totals[number])
        yield _gauge("uploads_in_flight", "Uploads under way.", self._filestore.shared.uploads())
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

    def _store(self) -> Iterator[Metric]:
        free = _attempt("store", self._filestore.free_bytes)
        yield _gauge("store_up", "Whether the blob store answers: 1 or 0.", free is not None)
        if free is not None:
            yield _gauge("free_bytes", "Bytes free on the store's disk.", free)

    def _catalogue(self) -> Iterator[Metric]:
        usage = _attempt("catalogue", self._filestore.kept_by)
        yield _gauge("catalogue_up", "Whether the catalogue answers: 1 or 0.", usage is not None)
        if usage is not None:
            yield _gauge("files", "Files that owners keep.", usage.files)
            yield _gauge("blobs", "Different blobs that files name.", usage.blobs)
            yield _gauge("blob_bytes", "Bytes of these blobs.", usage.bytes)
            note = _attempt("catalogue", lambda: ScrubNote(self._filestore.note(SCRUB_NOTE)))
            if note is not None:
                yield from note.metrics()


class ScrubNote:
    """What the scrub has noted of the pass that is running, or else ended last; what it has not counts as nothing."""

    def __init__(self, text: str | None) -> None:
        try:
            fields = json.loads(text or "{}")
        except ValueError:
            fields = None
        self._fields: dict[str, object] = fields if isinstance(fields, dict) else {}

    def metrics(self) -> Iterator[Metric]:
        """Return the scrub's metrics."""
        missing = self._number("missing")
        yield _gauge("scrub_damaged_blobs", "Blobs found damaged or missing.", self._number("damaged") + missing)
        yield _gauge("scrub_missing_blobs", "Blobs found missing.", missing)
        yield _gauge("scrub_verified_blobs", "Blobs found to be what their names say.", self._number("verified_blobs"))
        yield _gauge("scrub_verified_bytes", "Bytes of these blobs.", self._number("verified_bytes"))
        yield _gauge("scrub_progress_ratio", "Share of the store that was looked at, from 0 to 1.", self.progress())
        finished = GaugeMetricFamily(
            "filestored_scrub_last_finished_timestamp_seconds", "When a scrub ended last, in Unix seconds."
        )
        if self._number("finished_at"):
            finished.add_metric([], self._number("finished_at"))
        yield finished

    def progress(self) -> float:
        """Return how far it has come, from 0 to 1: digests lie evenly, and are taken in their order."""
        position = self._fields.get("position")
        digits = position[:_POSITION_DIGITS] if isinstance(position, str) else ""
        if digits:
            try:
                return int(digits.ljust(_POSITION_DIGITS, "0"), 16) / _POSITIONS
            except ValueError:
                return 0.0
        finished = self._number("finished_at")
        return 1.0 if finished and finished >= self._number("started_at") else 0.0

    def _number(self, name: str) -> float:
        value = self._fields.get(name)
        return value if isinstance(value, int | float) else 0


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"filestored_{name}", meaning, value)


def _attempt(name: str, read: Callable[[], T]) -> T | None:
    """Return what is read, None where that fails, whatever the reason: the other metrics are worth having still."""
    try:
        return read()
    except Exception as error:
        logger.error("the {} does not answer: {}", name, error)
        return None
