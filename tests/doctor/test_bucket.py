"""A store in a bucket: reached or not, whose it is, by which clock it goes; real Swift, and what stands before it."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import obstore
import pytest
from obstore.store import S3Store

from tests.conftest import Daemon
from tests.doctor.examining import Told, examine, look
from tests.doctor.fronts import Front, dated
from tests.postgres import Database, PostgresServer
from tests.proxy import proxy_before
from tests.s3 import Bucket, S3Server, not_on_ceph

pytestmark = pytest.mark.timeout(300)


class Kept(NamedTuple):
    """A bucket that was made a store, by a daemon that has ended, and the database that keeps it."""

    bucket: Bucket
    database: Database
    spool: Path

    def flags(self) -> tuple[str, ...]:
        """Return the options that name all that."""
        return (
            "--store", self.bucket.url, "--spool", str(self.spool), "--catalogue", self.database.url, "--port", "0",
        )  # fmt: skip

    def look(self, settings: dict[str, str] | None = None, **variables: str) -> Told:
        """Have the bucket looked at; what is said besides goes before."""
        own = {"store": self.bucket.url, "spool": str(self.spool), "catalogue": self.database.url, "port": "0"}
        return look("bucket", own | (settings or {}), self.bucket.env | variables)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, postgres: PostgresServer) -> Iterator[Kept]:
    made = Kept(Bucket(s3), Database(postgres), tmp_path_factory.mktemp("kept") / "spool")
    daemon = Daemon(made.spool, *made.flags(), "--workers", "1", env=made.bucket.env)
    try:
        daemon.start()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    yield made
    made.database.drop()


def test_a_bucket_that_is_well_and_stays_as_it_is(kept: Kept) -> None:
    def state() -> object:
        names = [".filestored/format.json", ".filestored/catalogue"]
        tables = [kept.database.execute(f"SELECT * FROM {name}") for name in ("notes", "daemons", "leases", "usage")]
        return [kept.bucket.get(name) for name in names], tables, sorted(kept.spool.rglob("*"))

    before = state()
    # the spool alone: all else is as at the last start
    told = examine("--spool", str(kept.spool), env=kept.bucket.env)
    # the servers of tests flush nothing
    assert told.faults() <= {"database", "disk"}
    told.says("folder", "good", f"is the spool of {kept.bucket.url}")
    told.says("bucket", "good", f"{kept.bucket.url} is a store, its files named by sha256")
    told.says("bucket", "good", "this catalogue keeps it")
    told.says("bucket", "good", "its clock and that of this machine agree")
    told.says("bucket", "good", "it takes signed addresses")
    told.says("bucket", "good", "no upload in parts")
    told.says("bucket", "skipped", "nothing is written here")
    assert state() == before


def test_a_bucket_that_is_new_and_one_that_another_program_has(bucket: Bucket, tmp_path: Path) -> None:
    settings = {"store": bucket.url, "spool": str(tmp_path / "spool")}
    told = look("bucket", settings, bucket.env)
    told.says("bucket", "good", f"{bucket.url} is empty: the first start makes it a store")
    told.says("bucket", "good", "no catalogue keeps it yet")
    assert not (tmp_path / "spool").exists()
    assert bucket.get(".filestored/format.json") is None
    bucket.server.put(bucket.name, "files/thesis.txt", b"mine")
    found = look("bucket", settings, bucket.env).says("bucket", "fault", "neither empty nor a store")
    assert found["mend"] == "name another prefix with --store"
    bucket.server.put(bucket.name, "files/.filestored/format.json", b"{")
    look("bucket", settings, bucket.env).says("bucket", "fault", "is damaged")


def test_a_bucket_of_another_catalogue_and_a_catalogue_of_another_bucket(
    kept: Kept, bucket: Bucket, tmp_path: Path
) -> None:
    told = kept.look({"spool": str(tmp_path / "spool"), "catalogue": "none"})
    assert "reindex --take-over" in told.says("bucket", "fault", "is kept by another catalogue")["mend"]
    kept.look({"store": bucket.url, "spool": str(tmp_path / "spool")}).says(
        "bucket", "fault", "belongs to another store"
    )
    told = look("folder", {"store": bucket.url, "spool": str(kept.spool)}, {})
    assert told.says("folder", "fault", f"is the spool of {kept.bucket.url}")["mend"].endswith("with --spool")


def test_a_bucket_that_is_not_reached(kept: Kept) -> None:
    told = kept.look(AWS_ENDPOINT_URL="http://127.0.0.1:1")
    told.says("bucket", "fault", "http://127.0.0.1:1 cannot be reached")
    told = kept.look(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "AWS_ACCESS_KEY_ID" in told.of("bucket", "fault")["mend"]
    told = kept.look({"store": "s3://no-such-bucket/files"})
    told.says("bucket", "fault", "there is no bucket no-such-bucket")


def test_a_key_that_is_refused_is_not_shown(kept: Kept) -> None:
    told = examine(*kept.flags(), env={**kept.bucket.env, "AWS_SECRET_ACCESS_KEY": "wr0ng-and-Secret"})
    assert "AWS_SECRET_ACCESS_KEY" in told.of("bucket", "fault")["mend"]
    assert told.status == 1
    shown = json.dumps(told.findings)
    assert "wr0ng-and-Secret" not in shown
    assert kept.database.server.password not in shown


def test_a_bucket_that_is_frozen(kept: Kept) -> None:
    host, _, port = kept.bucket.server.endpoint.removeprefix("http://").partition(":")
    with proxy_before((host, int(port))) as proxy:
        proxy.freeze()
        told = kept.look(AWS_ENDPOINT_URL=proxy.url)
        proxy.thaw()
    told.says("bucket", "fault", "does not answer in time")


@pytest.mark.parametrize(
    ("ahead", "state", "found"),
    [(20, "warning", "s behind the bucket's"), (-20, "warning", "s ahead of the bucket's"), (90, "fault", "s behind")],
)
def test_a_clock_that_differs_from_the_buckets(kept: Kept, ahead: int, state: str, found: str) -> None:
    with closing(Front(kept.bucket.server.endpoint, answered=dated(timedelta(seconds=ahead)))) as front:
        told = kept.look(AWS_ENDPOINT_URL=front.url)
    assert "NTP" in told.says("bucket", state, found)["mend"]


def test_signed_addresses_that_are_refused(kept: Kept) -> None:
    with closing(Front(kept.bucket.server.endpoint)) as front:
        front.refuses = b"X-Amz-Signature="
        kept.look(AWS_ENDPOINT_URL=front.url).says("bucket", "warning", "refuses signed addresses (403)")
        told = kept.look({"redirect_downloads": "yes"}, AWS_ENDPOINT_URL=front.url)
    told.says("bucket", "fault", "--redirect-downloads sends clients to such")


def test_ranges_that_something_on_the_way_changes(kept: Kept) -> None:
    def elsewhere(piece: bytes) -> bytes:
        return piece.replace(b"bytes 1-1/", b"bytes 2-2/")

    with closing(Front(kept.bucket.server.endpoint, answered=elsewhere)) as front:
        told = kept.look(AWS_ENDPOINT_URL=front.url)
    told.says("bucket", "fault", "ranges of objects in")


@not_on_ceph
def test_uploads_in_parts_that_nobody_completes(kept: Kept) -> None:
    server = kept.bucket.server
    store = S3Store(
        kept.bucket.name, endpoint=server.endpoint, region="us-east-1", virtual_hosted_style_request=False,
        access_key_id=server.key, secret_access_key=server.secret, client_options={"allow_http": True},
    )  # fmt: skip
    with closing(Front(server.endpoint)) as front:
        front.has_no_rules = True
        told = kept.look(AWS_ENDPOINT_URL=front.url)
        assert "lifecycle rule" in told.says("bucket", "warning", "no rule that ends uploads in parts")["mend"]
    left = obstore.open_writer(store, "files/left-behind", buffer_size=5 << 20)
    left.write(bytes(11 << 20))

    def long_ago(piece: bytes) -> bytes:
        return piece.replace(b"<Initiated>20", b"<Initiated>19")

    with closing(Front(server.endpoint, answered=long_ago)) as front:
        told = kept.look(AWS_ENDPOINT_URL=front.url)
    assert "lifecycle rule" in told.says("bucket", "warning", "1 uploads in parts")["mend"]
    # those of today may well go on
    kept.look().says("bucket", "good", "no upload in parts")


@pytest.mark.parametrize(
    ("library", "check", "extra"), [("obstore", "bucket", "buckets"), ("psycopg", "catalogue", "postgresql")]
)
def test_a_library_that_is_not_installed(kept: Kept, tmp_path: Path, library: str, check: str, extra: str) -> None:
    lacking = f"raise ModuleNotFoundError(\"No module named '{library}'\", name='{library}')\n"
    (tmp_path / f"{library}.py").write_text(lacking)
    told = examine(*kept.flags(), env={**kept.bucket.env, "PYTHONPATH": str(tmp_path)})
    assert told.says(check, "fault", "is not installed")["mend"] == f"pip install 'filestored[{extra}]'"
