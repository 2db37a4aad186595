"""A bucket carries out a removal late, or the daemon that asks for one is killed at any of its steps."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.conftest import Daemon, StartDaemon
from tests.holding import Hold, holding
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket
from tests.twins import Twins

# servers of several programs are started, and answer slowly on a busy machine
pytestmark = pytest.mark.timeout(400)

LONGEST_ANSWER_SECONDS = 30.0
BODY = b"many have uploaded this\n" * 50


@pytest.fixture
def twins(bucket: Bucket, database: Database, start_daemon: StartDaemon, tmp_path: Path) -> Twins:
    return Twins(bucket, database, start_daemon, tmp_path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def through_s3(twins: Twins, stack: ExitStack, hold: Hold) -> int:
    """Return the port by which the bucket is reached, with something held back on the way."""
    parts = urlsplit(twins.bucket.server.endpoint)
    return stack.enter_context(holding((str(parts.hostname), int(parts.port or 80)), hold))


def through_postgres(twins: Twins, stack: ExitStack, hold: Hold) -> str:
    """Return the address by which the database is reached, with something held back on the way."""
    return twins.catalogue_through(stack.enter_context(holding(("127.0.0.1", twins.database.server.port), hold)))


def upload(daemon: Daemon) -> httpx.Response:
    began = time.monotonic()
    answer = httpx.post(daemon.url, content=BODY, headers={"content-type": "text/plain"}, timeout=60)
    assert time.monotonic() - began < LONGEST_ANSWER_SECONDS
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) > 0
    return answer


def start_deleting(daemon: Daemon) -> threading.Thread:
    """Delete the file by a request of which nobody hears the end."""

    def delete() -> None:
        with suppress(httpx.HTTPError):
            httpx.delete(f"{daemon.url}/{sha256(BODY)}", timeout=60)

    thread = threading.Thread(target=delete)
    thread.start()
    return thread


def kill_while_deleting(daemon: Daemon, hold: Hold) -> None:
    """Kill a daemon at the moment when something is held back that a delete has sent."""
    assert upload(daemon).status_code == 200
    hold.arm()
    deleting = start_deleting(daemon)
    assert hold.caught.wait(30)
    daemon.kill()
    deleting.join(30)


def test_a_delete_that_arrives_late_takes_no_file_that_was_acknowledged_since(twins: Twins, stack: ExitStack) -> None:
    hold = Hold(b"DELETE /")
    killed = twins.start("killed", s3_port=through_s3(twins, stack, hold))
    other = twins.start("other")
    kill_while_deleting(killed, hold)
    ((digest, sent_at),) = twins.removals()
    assert digest == sha256(BODY)
    assert sent_at is not None
    # it is not served, and not acknowledged either, while it may go at any moment
    assert httpx.get(f"{other.url}/{digest}").status_code == 404
    assert upload(other).status_code == 503
    hold.release()
    assert hold.passed_on.wait(10)
    assert wait_until(lambda: twins.bucket.blob(digest) is None)
    twins.age_removals()
    assert wait_until(lambda: upload(other).status_code == 200)
    assert httpx.get(f"{other.url}/{digest}").content == BODY
    twins.require_agreement()
    assert twins.bucket.blob(digest) == BODY


def test_an_upload_that_waits_goes_on_as_soon_as_the_delete_is_answered(twins: Twins, stack: ExitStack) -> None:
    hold = Hold(b"DELETE /")
    slow = twins.start("slow", s3_port=through_s3(twins, stack, hold))
    other = twins.start("other")
    assert upload(slow).status_code == 200
    hold.arm()
    deleting = start_deleting(slow)
    assert hold.caught.wait(30)
    answers: list[int] = []
    uploading = threading.Thread(target=lambda: answers.append(upload(other).status_code))
    uploading.start()
    time.sleep(1)
    assert answers == []
    hold.release()
    uploading.join(40)
    deleting.join(40)
    assert answers == [200]
    twins.require_agreement()
    assert twins.bucket.blob(sha256(BODY)) == BODY


def test_what_was_put_anew_over_an_old_removal_stays(twins: Twins, stack: ExitStack) -> None:
    """The daemon dies, its DELETE never arrives, and a minute later somebody uploads what still lies there."""
    hold = Hold(b"DELETE /")
    killed = twins.start("killed", s3_port=through_s3(twins, stack, hold))
    kill_while_deleting(killed, hold)
    hold.drop()
    twins.age_removals()
    other = twins.start("other")
    assert wait_until(lambda: upload(other).status_code == 200)
    twins.require_agreement()
    assert twins.bucket.blob(sha256(BODY)) == BODY


STEPS = {
    "decided": ("postgres", b"UPDATE removals", False),
    "sent": ("s3", b"DELETE /", False),
    "carried out": ("s3", b"DELETE /", True),
    "answered": ("postgres", b"DELETE FROM removals", False),
}
"""Where a daemon is killed: on the way to what, at which word, and whether that is carried out."""


@pytest.mark.parametrize("step", STEPS)
def test_a_daemon_that_is_killed_while_it_removes_leaves_the_rest_to_the_others(
    twins: Twins, stack: ExitStack, step: str
) -> None:
    where, word, is_carried_out = STEPS[step]
    hold = Hold(word, is_answer=is_carried_out)
    digest = sha256(BODY)
    if where == "s3":
        killed = twins.start("killed", s3_port=through_s3(twins, stack, hold))
    else:
        killed = twins.start("killed", catalogue=through_postgres(twins, stack, hold))
    kill_while_deleting(killed, hold)
    hold.drop()
    ((noted, sent_at),) = twins.removals()
    assert noted == digest
    assert (sent_at is None) == (step == "decided")
    other = twins.start("other")
    assert httpx.get(f"{other.url}/{digest}", timeout=30).status_code == 404
    if step != "decided":
        # for a minute nobody can tell whether that request is still on its way
        assert upload(other).status_code == 503
        assert [noted for noted, _ in twins.removals()] == [digest]
        twins.age_removals()
    assert wait_until(lambda: twins.removals() == [], seconds=30)
    assert twins.bucket.blob(digest) is None
    assert upload(other).status_code == 200
    assert httpx.get(f"{other.url}/{digest}").content == BODY
    twins.require_agreement()


def test_that_a_removal_is_sent_survives_a_power_cut_also_where_uploads_need_not(twins: Twins) -> None:
    daemon = twins.start("relaxed", "--durability", "relaxed")
    twins.database.execute("CREATE TABLE seen (level text)")
    twins.database.execute(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END$$"
    )
    twins.database.execute("CREATE TRIGGER see AFTER UPDATE OF sent_at ON removals FOR EACH ROW EXECUTE FUNCTION see()")
    assert upload(daemon).status_code == 200
    assert httpx.delete(f"{daemon.url}/{sha256(BODY)}", timeout=60).status_code == 200
    assert twins.database.execute("SELECT DISTINCT level FROM seen") == [("on",)]
