"""``/readyz`` says what is not usable: the bucket, the catalogue; and is well again by itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.cluster.conftest import Cluster
from tests.postgres import Database, PostgresServer
from tests.processes import wait_until
from tests.s3 import Bucket, S3Server


def ready(url: str) -> tuple[int, str | None]:
    answer = httpx.get(f"{url}/readyz", timeout=60)
    return answer.status_code, answer.json().get("fault")


def test_a_bucket_that_does_not_answer_is_named(tmp_path: Path, own_s3: S3Server, database: Database) -> None:
    cluster = Cluster(tmp_path, Bucket(own_s3), database)
    daemon = cluster.start()
    try:
        assert ready(daemon.url) == (200, None)
        with own_s3.frozen():
            assert wait_until(lambda: ready(daemon.url) == (503, "store"))
            # many who ask do not make it worse
            with ThreadPoolExecutor(16) as threads:
                assert set(threads.map(ready, [daemon.url] * 16)) == {(503, "store")}
            assert httpx.get(f"{daemon.url}/healthz").status_code == 200
        assert wait_until(lambda: ready(daemon.url) == (200, None), seconds=60)
        own_s3.kill()
        assert wait_until(lambda: ready(daemon.url) == (503, "store"))
        own_s3.start()
        assert wait_until(lambda: ready(daemon.url) == (200, None), seconds=60)
    finally:
        daemon.kill()


def test_a_catalogue_that_does_not_answer_is_named(
    tmp_path: Path, bucket: Bucket, own_postgres: PostgresServer
) -> None:
    cluster = Cluster(tmp_path, bucket, Database(own_postgres))
    daemon = cluster.start()
    try:
        assert ready(daemon.url) == (200, None)
        own_postgres.stop()
        assert wait_until(lambda: ready(daemon.url) == (503, "catalogue"), seconds=60)
        own_postgres.start()
        assert wait_until(lambda: ready(daemon.url) == (200, None), seconds=60)
        # and known to the others again
        assert wait_until(lambda: cluster.id_of(daemon) in cluster.known(), seconds=60)
    finally:
        daemon.kill()
