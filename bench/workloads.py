"""The workloads that are compared with a reference, their sides put together."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import goals
from bench.figures import Figure, Side, Workload
from bench.floor import DurableLoop
from bench.samples import SMALL, Samples, empty_uploads, entity_tag, put_many, write_paths
from bench.servers import Nginx, Site
from bench.transfers import MIB, Plan, Transfers, transfer
from bench.wrk import Wrk

LARGE_MIB = 256
"""Size of a large blob, in MiB."""

_SPAN = {"Range": "bytes=10000000-10004095"}
_HEAD_START_SECONDS = 0.25
# in a run of `once` every connection may send a few requests more than there are blobs
_BEYOND_THE_LIST = 64


@dataclass(frozen=True, slots=True)
class Extent:
    """How long and how much: seconds a workload, blobs of the list, blobs to delete."""

    seconds: int
    many: int
    deletions: int


@dataclass(frozen=True, slots=True)
class Field:
    """Everything a workload is played with. ``daemon`` runs relaxed, ``durable`` in full durability."""

    wrk: Wrk
    work: Path
    extent: Extent
    nginx: Nginx
    daemon: Site
    durable: Site
    samples: Samples

    def side(
        self, site: Site, run: Callable[[], Figure], prepare: Callable[[], None] | None = None, uploads: int = 0
    ) -> Side:
        """Make a contestant of a site; what it uploads of ``uploads`` bytes or more is emptied afterwards."""
        clean = partial(empty_uploads, site, self.samples.all, uploads) if uploads else _nothing
        return Side(run, prepare or _nothing, clean, site.tree.pin, site.tree.cpu_seconds)


def _nothing() -> None:
    """Do nothing."""


def speed_workloads(field: Field) -> Iterator[Workload]:
    """Make every workload with a reference, in the order they are played."""
    yield from _downloads(field)
    yield from _uploads(field)
    yield _mixed(field)
    yield _deletion(field)


def _downloads(field: Field) -> Iterator[Workload]:
    def compared(task: goals.Task, run: Callable[[Field, Site], Figure]) -> Workload:
        sites = (field.daemon, field.nginx.files, field.nginx.untuned)
        return Workload(task, *(field.side(site, partial(run, field, site)) for site in sites))

    yield compared(goals.GET_SMALL, _get_many)
    with_token = field.side(field.daemon, partial(_get_many, field, field.daemon, has_token=True))
    yield Workload(goals.GET_WITH_TOKEN, with_token, field.side(field.daemon, partial(_get_many, field, field.daemon)))
    yield compared(goals.GET_KNOWN, _get_known)
    yield compared(goals.GET_SPAN, _get_span)
    yield compared(goals.GET_MIDDLE, _get_middle)
    yield compared(goals.GET_LARGE, _get_large)


def _get(field: Field, site: Site, digest: str, connections: int, headers: dict[str, str]) -> Figure:
    path = site.request(site.download, digest)[1]
    return field.wrk.get(site.port, path, connections, field.extent.seconds, headers)


def _get_many(field: Field, site: Site, has_token: bool = False) -> Figure:
    paths = field.work / f"many-{site.port}"
    write_paths(paths, site, site.download, field.samples.many)
    headers = {"Authorization": f"Bearer {site.token}"} if has_token else {}
    mode = ("list", "GET", str(paths))
    return field.wrk.run(site.port, mode, connections=32, seconds=field.extent.seconds, headers=headers)


def _get_known(field: Field, site: Site) -> Figure:
    tag = entity_tag(site, field.samples.small)
    return _get(field, site, field.samples.small, 32, {"If-None-Match": tag})


def _get_span(field: Field, site: Site) -> Figure:
    return _get(field, site, field.samples.large, 32, _SPAN)


def _get_middle(field: Field, site: Site) -> Figure:
    return _in_megabytes(_get(field, site, field.samples.middle, 8, {}), MIB)


def _get_large(field: Field, site: Site) -> Figure:
    request = " ".join(site.request(site.download, field.samples.large))
    return transfer(Plan(site.port, request, seconds=field.extent.seconds * 0.6))


def _in_megabytes(figure: Figure, size: int) -> Figure:
    """Turn requests a second into MB (10^6 bytes) a second."""
    return replace(figure, value=figure.value * size / 1e6)


def _uploads(field: Field) -> Iterator[Workload]:
    daemon, dav = field.daemon, field.nginx.dav

    def put(site: Site, size: int, connections: int) -> Figure:
        seconds, seed = field.extent.seconds, os.urandom(8).hex()
        figure = field.wrk.upload(site.port, site.upload, size, connections, seconds, seed)
        return _in_megabytes(figure, size) if size >= MIB else figure

    def put_large(site: Site, form: bool = False) -> Figure:
        return transfer(_upload_plan(site, LARGE_MIB, 1, field.extent.seconds * 0.6, form=form))

    small = [field.side(site, partial(put, site, SMALL, 32)) for site in (daemon, dav)]
    yield Workload(goals.PUT_SMALL, *small)
    middle = [field.side(site, partial(put, site, MIB, 8), uploads=MIB) for site in (daemon, dav)]
    yield Workload(goals.PUT_MIDDLE, *middle)
    raw = [field.side(site, partial(put_large, site), uploads=MIB) for site in (daemon, dav)]
    yield Workload(goals.PUT_LARGE, *raw)
    form = field.side(daemon, partial(put_large, daemon, form=True), uploads=MIB)
    yield Workload(goals.PUT_FORM, form, raw[1])
    durable = field.side(field.durable, partial(put, field.durable, SMALL, 32))
    loop = DurableLoop(field.work / "durable-loop")
    alone = Side(lambda: loop.run(field.extent.seconds))
    yield Workload(goals.PUT_DURABLE, durable, alone)


def _upload_plan(site: Site, mebibytes: int, connections: int, seconds: float, form: bool = False) -> Plan:
    size, seed = mebibytes * MIB, os.urandom(8).hex()
    return Plan(site.port, site.upload, size, connections, seconds, seed, form)


def _mixed(field: Field) -> Workload:
    def get_beside_uploads(reader: Site, writer: Site) -> Figure:
        # a little longer than the downloads, so that these never run alone
        seconds = field.extent.seconds + 2 * _HEAD_START_SECONDS
        with Transfers(_upload_plan(writer, LARGE_MIB // 2, 2, seconds)) as uploads:
            time.sleep(_HEAD_START_SECONDS)
            figure = _get(field, reader, field.samples.small, 8, {})
            moved = uploads.finish()
        return replace(figure, aside=f"uploads {moved.value:,.0f} MB/s")

    pairs = ((field.daemon, field.daemon), (field.nginx.files, field.nginx.dav))
    sides = [field.side(writer, partial(get_beside_uploads, reader, writer), uploads=MIB) for reader, writer in pairs]
    return Workload(goals.GET_BESIDE_UPLOADS, *sides)


def _deletion(field: Field) -> Workload:
    def victims(site: Site) -> Path:
        return field.work / f"victims-{site.port}"

    def prepare(site: Site) -> None:
        write_paths(victims(site), site, site.delete, put_many(site, field.extent.deletions))

    def delete(site: Site) -> Figure:
        mode = ("once", site.delete.partition(" ")[0], str(victims(site)))
        seconds = 4 * field.extent.seconds  # it ends by itself, with the list
        return field.wrk.run(site.port, mode, connections=32, seconds=seconds, tolerated=_BEYOND_THE_LIST)

    sides = [
        field.side(site, partial(delete, site), partial(prepare, site)) for site in (field.daemon, field.nginx.dav)
    ]
    return Workload(goals.DELETE_SMALL, *sides)
