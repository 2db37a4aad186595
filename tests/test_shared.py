"""Counters shared by all workers."""

import subprocess
import sys
from pathlib import Path

import pytest

from filestored.digest import Digest
from filestored.shared import Shared

DIGEST = Digest("ab" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def test_a_change_in_one_process_is_seen_in_another(path: Path) -> None:
    mine = Shared(path)
    before = mine.generation(DIGEST)
    code = "import sys; from pathlib import Path; from filestored.shared import Shared; "
    code += f"Shared(Path(sys.argv[1])).renew('{DIGEST}')"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert mine.generation(DIGEST) != before
    mine.close()


def test_generations_never_come_back(path: Path) -> None:
    shared = Shared(path)
    seen = set()
    for _ in range(2000):
        shared.renew(DIGEST)
        seen.add(shared.generation(DIGEST))
    assert len(seen) == 2000
    shared.close()


def test_uploads_are_counted_over_all_workers_and_by_client(path: Path) -> None:
    one, two = Shared(path), Shared(path)
    one.count_upload("192.0.2.1", 1)
    two.count_upload("192.0.2.1", 1)
    two.count_upload("192.0.2.2", 1)
    assert (one.uploads(), one.uploads_of("192.0.2.1"), two.uploads_of("192.0.2.2")) == (3, 2, 1)
    two.count_upload("192.0.2.1", -1)
    assert (one.uploads(), one.uploads_of("192.0.2.1")) == (2, 1)
    one.close()
    two.close()


def test_a_worker_that_died_takes_its_count_along(path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from filestored.shared import Shared; "
    code += "Shared(Path(sys.argv[1])).count_upload('192.0.2.1', 1); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    successor = Shared(path)
    assert (successor.uploads(), successor.uploads_of("192.0.2.1")) == (0, 0)
    successor.close()


def test_what_dead_workers_counted_is_forgotten_with_the_next_start(path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from filestored.shared import Shared; "
    code += "taken = [Shared(Path(sys.argv[1]))]; taken[0].count_upload('192.0.2.1', 1); taken[0].counters[9] += 5; "
    code += "print(flush=True); input(); os._exit(9)"
    # held while another takes its place, so that the one after it takes a slot of its own
    one, two = (
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    )
    for process in (one, two):
        assert process.stdout is not None
        process.stdout.readline()
    for process in (one, two):
        process.communicate(b"\n", timeout=20)
    shared = Shared(path)
    assert shared.sum_counters()[9] == 10
    shared.forget_counts()
    assert (shared.uploads(), shared.uploads_of("192.0.2.1"), shared.sum_counters()[9]) == (0, 0, 0)
    shared.close()
