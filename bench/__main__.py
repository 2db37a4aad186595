"""``python -m bench``: measure filestored side by side with nginx and print the table."""

import argparse
import contextlib
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import report
from bench.figures import Outcome
from bench.goals import DELETE_SMALL, TASKS, Ceiling, Ratio, Task
from bench.memory import memory_workloads
from bench.rounds import Cpus, Player
from bench.samples import require_conformance, store_samples
from bench.servers import ROOT, CannotMeasure, describe_nginx, find_programs, run_daemon, run_nginx
from bench.workloads import LARGE_MIB, Extent, Field, speed_workloads
from bench.wrk import Wrk

_ROOM = 12 << 30
_OPEN_FILES = 16384


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round and smaller transfers: under 90 s")
    parser.add_argument("--rounds", type=_positive, help="how often each workload is played (3; with --quick 1)")
    parser.add_argument("--secs", type=_positive, help="seconds of one measurement (2; with --quick 1)")
    parser.add_argument("--only", type=re.compile, metavar="REGEX", help="only workloads whose name it finds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there as well")
    parser.add_argument("--list", action="store_true", help="print the workloads and their goals, measure nothing")
    parser.add_argument(
        "--dir", type=Path, default=ROOT / ".cache" / "bench", help="where stores lie meanwhile (.cache/bench)"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError("it must be a whole number above 0")
    return int(text)


def main() -> int:
    """Measure and print; return 0, or 1 where something could not be measured (a missed goal is no failure)."""
    arguments = parse_arguments()
    tasks = [task for task in TASKS if arguments.only is None or arguments.only.search(task.name)]
    if arguments.list:
        print("\n".join(report.listing(tasks)))
        return 0
    try:
        return 0 if measure(arguments, tasks) else 1
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def measure(arguments: argparse.Namespace, tasks: list[Task]) -> bool:
    """Play the tasks and report; tell whether each yielded a figure."""
    nginx, wrk = find_programs()
    if not tasks:
        raise CannotMeasure(f"no workload is called like {arguments.only.pattern}; --list names them")
    _allow_many_connections()
    budget, patience = (75, 3.0) if arguments.quick else (420, 20.0)
    player = Player(Cpus.of_this_machine(), time.monotonic() + budget, patience, tell=_tell)
    try:
        with _signals_end_the_run(), _work_folder(arguments.dir) as work:
            if any(isinstance(task.goal, Ratio) for task in tasks):
                _compare(player, arguments, tasks, work, nginx, wrk)
            if any(isinstance(task.goal, Ceiling) for task in tasks):
                mebibytes, connections = (512, 500) if arguments.quick else (2048, 2000)
                memory = memory_workloads(work, mebibytes, connections)
                player.play([workload for workload in memory if workload.task in tasks], rounds=1)
    finally:
        # what was measured before an interruption is worth reading too
        if player.outcomes:
            _publish(player.outcomes, nginx, arguments.json)
    return all(outcome.rounds and not outcome.failure for outcome in player.outcomes)


def _publish(outcomes: list[Outcome], nginx: str, file: Path | None) -> None:
    about = report.machine(describe_nginx(nginx))
    print("\n".join(report.table(outcomes, about)), flush=True)
    if file:
        report.write_json(file, outcomes, about)


def _compare(
    player: Player, arguments: argparse.Namespace, tasks: list[Task], work: Path, nginx: str, wrk: str
) -> None:
    """Start the servers, store the samples, play what has a reference."""
    quick = arguments.quick
    extent = Extent(arguments.secs or (1 if quick else 2), 500 if quick else 2000, 4000 if quick else 16000)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(run_daemon(work, work / "store", "relaxed"))
        durable = stack.enter_context(run_daemon(work, work / "durable-store", "full"))
        reference = stack.enter_context(run_nginx(nginx, work, daemon.store))
        samples = store_samples(daemon, LARGE_MIB, extent.many)
        for site in (daemon, reference.files):
            require_conformance(site, samples)
        field = Field(Wrk(wrk, player.cpus.load), work, extent, reference, daemon, durable, samples)
        workloads = [workload for workload in speed_workloads(field) if workload.task in tasks]
        rounds = arguments.rounds or (1 if quick else 3)
        # all rounds of the deletion come last: ext4 creates files many times slower for minutes after it
        player.play([workload for workload in workloads if workload.task != DELETE_SMALL], rounds)
        player.play([workload for workload in workloads if workload.task == DELETE_SMALL], rounds)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _allow_many_connections() -> None:
    """Raise the limit of open files, which the servers inherit, as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _signals_end_the_run() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that every process started here is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@contextlib.contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder on the disk to measure, and remove it with all it holds at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < _ROOM:
        raise CannotMeasure(f"{parent} has {free >> 30} GiB free, {_ROOM >> 30} are needed; choose another by --dir")
    work = Path(tempfile.mkdtemp(prefix="run-", dir=parent.resolve()))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
