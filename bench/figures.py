"""What a measurement yields, and how rounds become one figure."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.goals import Ratio, Task

QUIET = 0.25
"""CPUs used by other programs beyond which a round counts as disturbed."""


@dataclass(slots=True)
class Figure:
    """One measurement of one server.

    ``value`` is in the task's unit; latencies are in milliseconds; ``server_cpu`` is seconds of CPU time,
    ``client_busy`` the CPUs the load generator used, ``disturbance`` those that everything else used.
    """

    value: float
    requests: int = 0
    seconds: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu: float = 0.0
    client_busy: float = 0.0
    disturbance: float = 0.0
    aside: str = ""


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """One contestant of a workload: what is timed, what goes before it and what cleans up after it."""

    run: Callable[[], Figure]
    prepare: Callable[[], None] = _nothing
    clean: Callable[[], None] = _nothing
    pin: Callable[[set[int]], None] = lambda cpus: None
    cpu_seconds: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A task with its contestants: filestored and a reference, or filestored alone where the goal is a ceiling.

    ``untuned`` only informs: nginx with its default settings.
    """

    task: Task
    filestored: Side
    reference: Side | None = None
    untuned: Side | None = None

    @property
    def sides(self) -> dict[str, Side]:
        """The contestants by name, filestored first."""
        named = {"filestored": self.filestored, "reference": self.reference, "untuned": self.untuned}
        return {name: side for name, side in named.items() if side is not None}


Round = dict[str, Figure]
"""The figures of one round, by the name of the side: neighbours in time."""


@dataclass(slots=True)
class Outcome:
    """All rounds of one workload, or why there are none."""

    workload: Workload
    rounds: list[Round] = field(default_factory=list)
    failure: str = ""

    def quiet_rounds(self) -> list[Round]:
        """Return the rounds that count: undisturbed ones, or the less disturbed half where those are too few."""
        quiet = [one for one in self.rounds if disturbance(one) <= QUIET]
        if len(quiet) >= min(2, len(self.rounds)):
            return quiet
        return sorted(self.rounds, key=disturbance)[: (len(self.rounds) + 1) // 2]

    def needs_another(self) -> bool:
        """Tell whether other programs spoilt so many rounds that one more is worth its time."""
        quiet = [one for one in self.rounds if disturbance(one) <= QUIET]
        return not self.failure and len(quiet) < min(2, len(self.rounds))

    def is_disturbed(self) -> bool:
        """Tell whether even the rounds that count were disturbed, so that a comparison says little."""
        compared = isinstance(self.workload.task.goal, Ratio)
        return compared and any(disturbance(one) > QUIET for one in self.quiet_rounds())

    def figures(self, side: str) -> list[Figure]:
        """Return one side's figures of the rounds that count."""
        return [one[side] for one in self.quiet_rounds() if side in one]

    def ratio(self) -> float | None:
        """Return filestored's share of the reference: the median of the ratios within each round."""
        pairs = [(one["filestored"], one["reference"]) for one in self.quiet_rounds() if "reference" in one]
        ratios = [ours.value / theirs.value for ours, theirs in pairs if theirs.value]
        return statistics.median(ratios) if ratios else None

    def verdict(self) -> str:
        """Return whether the goal is met, or that there is no figure."""
        if self.failure or not self.rounds:
            return "FAILED"
        goal, ratio = self.workload.task.goal, self.ratio()
        if isinstance(goal, Ratio):
            return goal.verdict(ratio) if ratio is not None else "FAILED"
        return goal.verdict(median([figure.value for figure in self.figures("filestored")]))


def disturbance(one: Round) -> float:
    """Return the CPUs that other programs used in a round, at the worse of the two sides that are compared."""
    return max(figure.disturbance for side, figure in one.items() if side != "untuned")


def median(values: Sequence[float]) -> float:
    """Return the median; of nothing, not a number."""
    return statistics.median(values) if values else float("nan")
