"""Playing the workloads: round after round, both sides one straight after the other."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.figures import QUIET, Figure, Outcome, Round, Side, Workload
from bench.processes import busy_seconds, own_seconds
from bench.servers import CannotMeasure
from bench.wrk import LoadFailed

_LOOK_SECONDS = 0.12
_REPLAY_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Cpus:
    """Which CPUs the servers and the load generators run on when small requests are measured."""

    server: set[int]
    load: set[int]
    all: set[int]

    @classmethod
    def of_this_machine(cls) -> "Cpus":
        """Choose the first usable CPU for the servers and the second for the load; one CPU serves both."""
        usable = sorted(os.sched_getaffinity(0))
        return cls({usable[0]}, {usable[min(1, len(usable) - 1)]}, set(usable))


@dataclass(slots=True)
class Player:
    """Plays workloads within a time budget; ``tell`` hears one line about each measurement.

    ``patience`` is the seconds that may be spent in all on waiting for other programs to be quiet.
    """

    cpus: Cpus
    deadline: float
    patience: float
    tell: Callable[[str], None]
    outcomes: list[Outcome] = field(default_factory=list)

    def play(self, workloads: Iterable[Workload], rounds: int) -> None:
        """Play every workload ``rounds`` times, then those again, up to twice within 40 seconds, that other programs
        disturbed.

        No round begins after the deadline (on the monotonic clock).
        """
        played = [Outcome(workload) for workload in workloads]
        self.outcomes += played
        for number in range(rounds):
            for outcome in played:
                self._play_round(outcome, number)
        give_up = time.monotonic() + _REPLAY_SECONDS
        for number in (rounds, rounds + 1):
            for outcome in played:
                if rounds > 1 and outcome.needs_another() and time.monotonic() < give_up:
                    self._play_round(outcome, number)

    def _play_round(self, outcome: Outcome, number: int) -> None:
        if outcome.failure or time.monotonic() > self.deadline:
            return
        sides = list(outcome.workload.sides.items())
        # who goes first changes: neither gets the warmer machine every time
        order = sides if number % 2 == 0 else sides[::-1]
        cpus = self.cpus.server if outcome.workload.task.one_core else self.cpus.all
        task = outcome.workload.task
        one: Round = {}
        for name, side in order:
            try:
                one[name] = self._measure(side, cpus)
            except (CannotMeasure, LoadFailed, OSError, subprocess.TimeoutExpired) as error:
                outcome.failure = f"{name}: {error}"
                self.tell(f"{task.name}: {outcome.failure}")
                return
            self.tell(f"{task.name:28s} {name:10s} {one[name].value:12,.1f} {task.unit}")
        outcome.rounds.append(one)

    def _measure(self, side: Side, cpus: set[int]) -> Figure:
        side.pin(cpus)
        side.prepare()
        self._wait_for_quiet()
        own, children = own_seconds()
        busy, server, began = busy_seconds(), side.cpu_seconds(), time.monotonic()
        try:
            figure = side.run()
            passed = time.monotonic() - began
            figure.server_cpu = side.cpu_seconds() - server
            own_after, children_after = own_seconds()
            load = children_after - children
            figure.client_busy = load / passed
            others = busy_seconds() - busy - figure.server_cpu - load - (own_after - own)
            figure.disturbance = max(0.0, others) / passed
        finally:
            side.clean()
        return figure

    def _wait_for_quiet(self) -> None:
        while self.patience > 0:
            busy, began = busy_seconds(), time.monotonic()
            time.sleep(_LOOK_SECONDS)
            passed = time.monotonic() - began
            if (busy_seconds() - busy) / passed < QUIET:
                return
            self.patience -= passed
