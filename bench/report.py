"""The table that people read, and the same as JSON."""

import json
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from bench.figures import Figure, Outcome, disturbance, median
from bench.goals import Goal, Ratio, Task

_SATURATED = 0.93
_COLUMNS = "{:25s} {:6s} {:>25s} {:>25s} {:>6s} {:>7s} {:>5s}  {}"


def machine(nginx: str) -> dict[str, object]:
    """Return what the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": nginx,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def table(outcomes: Iterable[Outcome], about: dict[str, object]) -> Iterator[str]:
    """Yield the lines of the table, a line of detail a workload, and what failed."""
    outcomes = list(outcomes)
    yield ", ".join(f"{name} {value}" for name, value in about.items())
    yield ""
    yield _COLUMNS.format("workload", "unit", "filestored", "reference", "ratio", "reach", "aim", "")
    yield from (_row(outcome) for outcome in outcomes)
    details = [line for outcome in outcomes if (line := _details(outcome))]
    if details:
        yield from ("", "median (min-max); ratio: median of the rounds' ratios; details by workload:", *details)
    yield from (f"FAILED {outcome.workload.task.name}: {outcome.failure}" for outcome in outcomes if outcome.failure)


def listing(tasks: Iterable[Task]) -> Iterator[str]:
    """Yield a line a task: name, unit, goal."""
    yield f"{'workload':25s} {'unit':6s} {'reach':>7s} {'aim':>5s}"
    for task in tasks:
        reach, aim = _spell_goal(task.goal)
        yield f"{task.name:25s} {task.unit:6s} {reach:>7s} {aim:>5s}"


def write_json(file: Path, outcomes: Iterable[Outcome], about: dict[str, object]) -> None:
    """Write every figure of every round, the ratios, the goals and whether they are met."""
    workloads = {outcome.workload.task.name: _plain(outcome) for outcome in outcomes}
    file.write_text(json.dumps({"machine": about, "workloads": workloads}, indent=1) + "\n")


def _plain(outcome: Outcome) -> dict[str, object]:
    return {
        "unit": outcome.workload.task.unit,
        "goal": asdict(outcome.workload.task.goal),
        "verdict": outcome.verdict(),
        "disturbed": outcome.is_disturbed(),
        "ratio": outcome.ratio(),
        "medians": {side: median(_values(outcome, side)) for side in outcome.workload.sides if _values(outcome, side)},
        "rounds": [{side: asdict(figure) for side, figure in one.items()} for one in outcome.rounds],
        "failure": outcome.failure,
    }


def _row(outcome: Outcome) -> str:
    task, ratio = outcome.workload.task, outcome.ratio()
    ours, theirs = (_spread(_values(outcome, side)) for side in ("filestored", "reference"))
    shown = f"{ratio:.2f}" if ratio is not None else "-"
    verdict = outcome.verdict() if outcome.rounds or outcome.failure else "not measured"
    if outcome.is_disturbed():
        verdict += f" (others used {max(map(disturbance, outcome.quiet_rounds())):.1f} CPUs meanwhile)"
    return _COLUMNS.format(task.name, task.unit, ours, theirs, shown, *_spell_goal(task.goal), verdict)


def _values(outcome: Outcome, side: str) -> list[float]:
    return [figure.value for figure in outcome.figures(side)]


def _spell_goal(goal: Goal) -> tuple[str, str]:
    if isinstance(goal, Ratio):
        return f"{goal.reach:.2f}", f"{goal.aim:.2f}"
    return f"< {goal.limit:.0f}", ""


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or math.isnan(value) else f"{value:.1f}"


def _details(outcome: Outcome) -> str:
    parts = [f"{side} {detail}" for side in outcome.workload.sides if (detail := _detail(outcome, side))]
    left_out = len(outcome.rounds) - len(outcome.quiet_rounds())
    if left_out:
        parts.append(f"{left_out} disturbed round{'s' if left_out > 1 else ''} left out")
    return f"{outcome.workload.task.name}: " + " | ".join(parts) if parts else ""


def _detail(outcome: Outcome, side: str) -> str:
    figures = outcome.figures(side)
    if not figures:
        return ""
    said = [_spread(_values(outcome, side)) + f" {outcome.workload.task.unit}"] if side == "untuned" else []
    if all(figure.p50_ms is not None for figure in figures):
        p50, p99 = (median([getattr(figure, name) for figure in figures]) for name in ("p50_ms", "p99_ms"))
        said.append(f"p50 {p50:.2f} p99 {p99:.2f} ms")
    if cpu := _cpu(outcome, figures):
        said.append(cpu)
    if median([figure.client_busy for figure in figures]) > _SATURATED and outcome.workload.task.one_core:
        said.append("load generator saturated")
    said += [figure.aside for figure in figures[-1:] if figure.aside]
    return ", ".join(said)


def _cpu(outcome: Outcome, figures: list[Figure]) -> str:
    """Return the server's CPU time a request, or a GB where bytes are what counts."""
    per_request = outcome.workload.task.unit == "req/s"
    if outcome.workload.task.unit not in ("req/s", "MB/s"):
        return ""
    # value times seconds is what was done: requests, or MB
    spent = median([figure.server_cpu / (figure.value * figure.seconds) for figure in figures])
    if not spent:
        return ""
    return f"cpu {spent * 1e6:.0f} us/req" if per_request else f"cpu {spent * 1e3:.2f} s/GB"
