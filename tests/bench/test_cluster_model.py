"""The model of a cluster keeps the laws of queues, and stands on what can be measured."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest

from bench.cluster_model import (
    DAEMONS,
    DATABASE_CPU,
    FILES,
    Costs,
    Machines,
    Mix,
    Station,
    care,
    changed,
    confirmations,
    miss,
    simulate,
    solve,
    stations,
)

ROOT = Path(__file__).parent.parent.parent
COSTS, MACHINES, MIX = Costs(), Machines(), Mix()


def test_it_prints_a_line_for_each_size() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "bench.cluster_model", "--set", "bucket_ms=5"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    assert "bucket_ms=5" in printed
    lines = [line.split() for line in printed.splitlines() if line.lstrip().startswith("1e+")]
    assert len(lines) == len(FILES) * len(DAEMONS) + len(FILES)


def test_another_number_has_to_be_one_that_there_is() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "bench.cluster_model", "--set", "buckets=5"], cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "there is no buckets" in refused.stderr
    with pytest.raises(ValueError, match="more than 0"):
        changed(["daemon_cores=0"])
    costs, machines, mix = changed(["lookup_ms=1", "daemon_cores=2", "uploads=0"])
    assert (costs.lookup_ms, machines.daemon_cores, mix.uploads) == (1, 2, 0)


@pytest.mark.parametrize("files", FILES)
def test_nothing_is_used_more_than_there_is_of_it(files: int) -> None:
    for daemons in DAEMONS:
        point = simulate(daemons, files, COSTS, MACHINES, MIX)
        listed, waiting = stations(daemons, files, 1.0, COSTS, MACHINES, MIX)
        for station in listed:
            if station.name != DATABASE_CPU:
                assert point.rate * station.seconds / station.servers <= 1.0001
        # no answer comes sooner than the work takes, and Little's law holds
        assert point.milliseconds / 1000 >= waiting
        assert point.rate * point.milliseconds / 1000 == pytest.approx(daemons * MIX.clients)


@pytest.mark.parametrize("files", FILES)
def test_more_daemons_never_take_much_away(files: int) -> None:
    rates = [simulate(daemons, files, COSTS, MACHINES, MIX).rate for daemons in DAEMONS]
    # past the wall they cost what they ask by themselves, and no more
    assert all(later > before * 0.95 for before, later in pairwise(rates))
    assert rates[1] > rates[0] * 1.8
    assert all(rate <= rates[0] * count * 1.2 for count, rate in zip(DAEMONS, rates, strict=True))


def test_more_files_never_make_it_faster() -> None:
    for daemons in DAEMONS:
        rates = [simulate(daemons, files, COSTS, MACHINES, MIX).rate for files in FILES]
        assert rates == sorted(rates, reverse=True)
    misses = [miss(files, COSTS, MACHINES) for files in FILES]
    assert misses == sorted(misses)
    assert all(0 <= each < 1 for each in misses)


@pytest.mark.parametrize("name", ["lookup_ms", "commit_ms", "row_ms", "get_ms", "put_ms", "hot_ms"])
def test_what_costs_more_is_slower(name: str) -> None:
    dearer = replace(COSTS, **{name: getattr(COSTS, name) * 10})
    for daemons in DAEMONS:
        before, after = (simulate(daemons, 10**8, each, MACHINES, MIX).rate for each in (COSTS, dearer))
        assert after < before * 1.001


def test_a_single_station_serves_what_it_can() -> None:
    rate, seconds = solve([Station("one", 0.01, 1)], 0.0, 50)
    assert rate == pytest.approx(100)
    assert seconds == pytest.approx(0.5)
    alone, waited = solve([Station("one", 0.01, 1)], 0.09, 1)
    assert alone == pytest.approx(10)
    assert waited == pytest.approx(0.1)


def test_what_is_in_memory_is_confirmed_at_most_once_a_second_each() -> None:
    for rate in (0.1, 10, 500, 10_000, 1_000_000):
        assert rate * confirmations(rate, MIX) <= min(rate, MIX.hot_files) * 1.0001


def test_care_grows_with_the_files() -> None:
    for before, after in pairwise(FILES):
        small, large = (care(files, COSTS, MACHINES, MIX) for files in (before, after))
        for name in ("table_gb", "index_gb", "reindex_hours", "dump_hours", "migration_hours", "scrub_days"):
            assert getattr(large, name) == pytest.approx(getattr(small, name) * 10)


def test_the_document_has_the_numbers_it_speaks_of() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    said: dict[str, float] = {}
    for row in re.findall(r"^\| `.*$", text, re.MULTILINE):
        _, names, values, *_ = row.split("|")
        numbers = [float(each.replace(",", "")) for each in re.findall(r"[\d,.]*\d", values)]
        said |= dict(zip(re.findall(r"`(\w+)`", names), numbers, strict=True))
    assert said == {field.name: getattr(part, field.name) for part in (COSTS, MACHINES, MIX) for field in fields(part)}
