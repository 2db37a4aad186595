"""The blobs that are downloaded: stored through the daemon, served by both servers, checked before they are timed."""

import hashlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import http1
from bench.servers import CannotMeasure, Site
from bench.transfers import MIB

SMALL = 4096
"""Bytes of a small blob."""

_PROBE = slice(100, 200)
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Samples:
    """Digests of what is stored: one blob of each size, and many small ones."""

    small: str
    middle: str
    large: str
    many: Sequence[str]

    @property
    def all(self) -> set[str]:
        """Every digest among them."""
        return {self.small, self.middle, self.large, *self.many}


def store_samples(site: Site, large_mib: int, many: int) -> Samples:
    """Upload the samples: 4 KiB, 1 MiB, ``large_mib`` MiB, and ``many`` of 4 KiB."""
    block = os.urandom(MIB)
    bodies = (os.urandom(SMALL), block, os.urandom(64) + block * large_mib)
    small, middle, large = (_store(site, body) for body in bodies)
    return Samples(small, middle, large, put_many(site, many))


def require_conformance(site: Site, samples: Samples) -> None:
    """Raise CannotMeasure unless a site answers downloads, ranges and preconditions as it must.

    What is fast because it is wrong must not be measured.
    """
    answer = site.get(samples.middle)
    if answer.status != 200 or hashlib.sha256(answer.body).hexdigest() != samples.middle:
        raise CannotMeasure(f"a download came back as {answer.status} with {len(answer.body)} bytes")
    span = site.get(samples.middle, {"Range": f"bytes={_PROBE.start}-{_PROBE.stop - 1}"})
    if span.status != 206 or span.body != answer.body[_PROBE]:
        raise CannotMeasure(f"a range came back as {span.status} with {len(span.body)} bytes")
    known = site.get(samples.small, {"If-None-Match": entity_tag(site, samples.small)})
    if known.status != 304:
        raise CannotMeasure(f"If-None-Match came back as {known.status}")


def entity_tag(site: Site, digest: str) -> str:
    """Return the ETag a site gives a blob."""
    return site.get(digest).headers.get("etag", "")


def put_many(site: Site, count: int) -> list[str]:
    """Upload ``count`` small blobs, no two alike, over a few connections at once; return their digests."""
    links = [http1.connect(site.port) for _ in range(_CONNECTIONS)]
    try:
        digests: list[str] = []
        while len(digests) < count:
            wave = min(_CONNECTIONS, count - len(digests))
            digests += _put_wave(site, [_small_body() for _ in range(wave)], links)
        return digests
    finally:
        for link in links:
            link.close()


def write_paths(file: Path, site: Site, template: str, digests: Iterable[str]) -> None:
    """Write the paths of these blobs, one a line, as ``load.lua`` reads them."""
    file.write_text("".join(f"{site.request(template, digest)[1]}\n" for digest in digests))


def empty_uploads(site: Site, spared: set[str], least: int) -> None:
    """Empty the files of at least ``least`` bytes that uploads left in a site's store.

    Emptied, not removed: ext4 is slow to create files for minutes after many were removed, which the next
    workload would pay for.
    """
    for file in site.store.glob("??/*"):
        if file.name not in spared and file.stat().st_size >= least:
            file.chmod(0o600)  # blobs are read-only
            os.truncate(file, 0)


def _small_body() -> bytes:
    return os.urandom(32) + b"m" * (SMALL - 32)


def _store(site: Site, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    method, path = site.request(site.upload, digest)
    answer = http1.call(site.port, method, path, body, {"Content-Type": http1.RAW})
    if not 200 <= answer.status < 300:
        raise CannotMeasure(f"an upload was answered {answer.status}: {answer.body[:200]!r}")
    return digest


def _put_wave(site: Site, bodies: Sequence[bytes], links: Sequence[socket.socket]) -> Iterator[str]:
    """Send one upload over each connection, then read the answers."""
    buffer = bytearray(SMALL)
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    for digest, body, link in zip(digests, bodies, links, strict=False):
        head = http1.head(*site.request(site.upload, digest), {"Content-Type": http1.RAW}, len(body))
        link.sendall(head + body)
    for digest, link in zip(digests, links, strict=False):
        status, _ = http1.drain_answer(link, buffer)
        if not 200 <= status < 300:
            raise CannotMeasure(f"an upload was answered {status}")
        yield digest
