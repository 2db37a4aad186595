"""What the daemons of a cluster do by themselves: one for all, each for itself, and for those that are lost."""

import os
import signal
import time

import httpx

from tests.api.tus_client import Tus, digest, some
from tests.cluster.conftest import Cluster
from tests.conftest import Daemon
from tests.processes import wait_until


def metric(daemon: Daemon, name: str) -> float:
    text = httpx.get(f"{daemon.url}/metrics", timeout=60).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def leaders(*daemons: Daemon) -> list[Daemon]:
    return [daemon for daemon in daemons if metric(daemon, "filestored_upkeep_leader")]


def rows(cluster: Cluster, query: str, *values: object) -> list[tuple[object, ...]]:
    return cluster.database.server.execute(cluster.database.name, query, *values)


def test_one_leads_and_another_follows_it_at_once_where_it_ends_in_order(
    two: tuple[Daemon, Daemon], cluster: Cluster
) -> None:
    assert wait_until(lambda: len(leaders(*two)) == 1)
    assert wait_until(lambda: all(metric(daemon, "filestored_daemons") == 2 for daemon in two))
    (leader,) = leaders(*two)
    follower = next(daemon for daemon in two if daemon is not leader)
    assert leader.stop() == 0
    assert wait_until(lambda: leaders(follower) == [follower])
    assert list(cluster.known()) == [cluster.id_of(follower)]
    assert wait_until(lambda: metric(follower, "filestored_daemons") == 1)


def test_what_has_expired_is_ended_also_when_the_leader_is_frozen(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    assert wait_until(lambda: len(leaders(*two)) == 1)
    (leader,) = leaders(*two)
    follower = next(daemon for daemon in two if daemon is not leader)
    os.killpg(leader.pid, signal.SIGSTOP)
    try:
        body = some(1000)
        headers = {"content-type": "text/plain"}
        assert (
            httpx.post(f"{follower.url}/?expires_in=1s", content=body, headers=headers, timeout=60).status_code == 200
        )
        assert wait_until(lambda: cluster.bucket.blob(digest(body)) is None, seconds=60)
        assert leaders(follower) == [follower]
    finally:
        os.killpg(leader.pid, signal.SIGCONT)
    # it has noticed that it leads no more, and nothing is done twice
    assert wait_until(lambda: leaders(*two) == [follower])


def test_each_ends_its_own_uploads(cluster: Cluster) -> None:
    daemons = [cluster.start("--upload-expiry", "1s"), cluster.start("--upload-expiry", "1s")]
    for daemon in daemons:
        with httpx.Client(base_url=daemon.url, timeout=60) as client:
            Tus(client).begin(1000, some(400))
    folders = [daemon.store / ".filestored" / "uploads" for daemon in daemons]
    assert wait_until(lambda: not any(list(folder.iterdir()) for folder in folders), seconds=60)
    assert wait_until(lambda: not rows(cluster, "SELECT id FROM uploads"))


def test_uploads_of_a_daemon_that_is_lost_are_ended_when_their_time_is_over(
    two: tuple[Daemon, Daemon], cluster: Cluster
) -> None:
    one, other = two
    with httpx.Client(base_url=one.url, timeout=60) as client:
        path = Tus(client).begin(1000, some(400))
    lasting = rows(cluster, "SELECT id FROM uploads")
    one.kill()
    # its time is over, and so is that of waiting for its daemon
    rows(cluster, "UPDATE uploads SET expires_at = %s", int(time.time() * 1000) - 1)
    with httpx.Client(base_url=other.url, timeout=60) as client:
        kept = Tus(client).begin(1000, some(400))
        assert len(rows(cluster, "SELECT id FROM uploads")) == len(lasting) + 1
        rows(cluster, "UPDATE daemons SET seen_at = seen_at - 3600000 WHERE id = %s", cluster.id_of(one))
        assert wait_until(lambda: len(rows(cluster, "SELECT id FROM uploads")) == 1, seconds=60)
        assert Tus(client).head(path).status_code == 404
        assert Tus(client).offset(kept) == 400
    # what it still has goes when it comes back
    one.start(60)
    assert wait_until(lambda: not list((one.store / ".filestored" / "uploads").iterdir()), seconds=60)
    with httpx.Client(base_url=other.url, timeout=60) as client:
        assert Tus(client).offset(kept) == 400
