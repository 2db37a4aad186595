"""Daemons before one bucket and one PostgreSQL, each with a spool of its own; and what must hold of these two."""

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import obstore
from obstore.store import S3Store

from filestored.catalogue.catalogue import Catalogue
from tests.conftest import Daemon, StartDaemon
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket

_PATIENCE_SECONDS = 30


class Twins:
    """A bucket and a database, and the daemons that are started before them."""

    def __init__(self, bucket: Bucket, database: Database, start_daemon: StartDaemon, folder: Path) -> None:
        self.bucket = bucket
        self.database = database
        self._start_daemon = start_daemon
        self._folder = folder

    def start(
        self, name: str, *flags: str, workers: int = 1, s3_port: int | None = None, catalogue: str | None = None
    ) -> Daemon:
        """Start a daemon, whose spool has this name; it reaches bucket and database by other ports where told."""
        spool = self._folder / name
        endpoint = self.bucket.server.endpoint if s3_port is None else f"http://127.0.0.1:{s3_port}"
        where = ["--store", self.bucket.url, "--spool", str(spool), "--catalogue", catalogue or self.database.url]
        return self._start_daemon(
            "--workers", str(workers), *where, *flags,
            store=spool, env={**self.bucket.env, "AWS_ENDPOINT_URL": endpoint},
        )  # fmt: skip

    def catalogue_through(self, port: int) -> str:
        """Return the address of the database by another port."""
        parts = urlsplit(self.database.url)
        user, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable"))

    def rows(self) -> dict[str, int]:
        """Return the size of each digest that the catalogue names."""
        return dict(self.database.execute("SELECT digest, size FROM files"))

    def removals(self) -> list[tuple[str, int | None]]:
        """Return the removals that are not over, and when each was sent."""
        return [(digest, sent_at) for digest, sent_at in self.database.execute("SELECT digest, sent_at FROM removals")]

    def expire(self, digest: str) -> None:
        """Make a file that ends at some time end now."""
        ends = "UPDATE files SET expires_at = created_at + 1 WHERE digest = %s AND expires_at IS NOT NULL RETURNING id"
        assert self.database.execute(ends, digest)

    def age_removals(self, *, at_least: int = 0) -> None:
        """Make removals that were sent ``at_least`` so many milliseconds ago as old as if a minute had passed."""
        self.database.execute(
            "UPDATE removals SET sent_at = sent_at - 61000 "
            "WHERE sent_at <= extract(epoch FROM clock_timestamp()) * 1000 - %s",
            at_least,
        )

    def blobs(self) -> set[str]:
        """Return the digests of all blobs in the bucket."""
        return {key.rpartition("/")[2] for key in self.keys() if re.fullmatch("[0-9a-f]{2}/[0-9a-f]{64}", key)}

    def keys(self) -> list[str]:
        """Return all keys below the store's prefix, without that."""
        server = self.bucket.server
        store = S3Store(
            self.bucket.name, endpoint=server.endpoint, region="us-east-1", virtual_hosted_style_request=False,
            access_key_id=server.key, secret_access_key=server.secret, client_options={"allow_http": True},
        )  # fmt: skip
        return [found["path"].removeprefix("files/") for batch in obstore.list(store, "files") for found in batch]

    def require_whole(self) -> None:
        """Check that every row has its blob, every blob is what its name says, and what is kept is counted right."""
        blobs = self.blobs()
        for digest, size in self.rows().items():
            assert digest in blobs, f"{digest} has a row but no blob"
            body = self.bucket.blob(digest)
            assert body is not None
            assert (len(body), hashlib.sha256(body).hexdigest()) == (size, digest)
        catalogue = Catalogue(self.database.address, durable=True)
        assert catalogue.counts_agree()
        catalogue.close()

    def require_settled(self) -> None:
        """Check that, once removals left undone are carried out."""
        assert wait_until(self._is_settled, seconds=_PATIENCE_SECONDS), self.removals()
        self.require_whole()

    def require_agreement(self) -> None:
        """Check besides that nothing is in the bucket that no row names."""
        self.require_settled()
        assert self.blobs() == set(self.rows())

    def _is_settled(self) -> bool:
        # long enough for a request whose sender was killed
        self.age_removals(at_least=3000)
        return self.removals() == []
