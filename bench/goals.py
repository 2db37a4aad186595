"""What is measured and what is asked of each measurement: the bench on one page."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """A goal as a share of what the reference does in the same run: ``reach`` is demanded, ``aim`` wished for."""

    reach: float
    aim: float

    def verdict(self, ratio: float) -> str:
        """Return in a word or two whether the goal is met."""
        if ratio >= self.aim:
            return "aim met"
        return "reached" if ratio >= self.reach else "MISSED"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A goal in the task's own unit: the value must stay below ``limit``."""

    limit: float

    def verdict(self, value: float) -> str:
        """Return in a word whether the goal is met."""
        return "reached" if value < self.limit else "MISSED"


Goal = Ratio | Ceiling


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the table. ``one_core`` keeps the server on one CPU, away from the load generator.

    ``c=`` in a name is the number of connections. MB are 10^6 bytes.
    """

    name: str
    unit: str
    goal: Goal
    one_core: bool = True


GET_SMALL = Task("get 4K c=32", "req/s", Ratio(0.45, 0.75))
GET_WITH_TOKEN = Task("get 4K with a token c=32", "req/s", Ratio(0.95, 1.0))
GET_KNOWN = Task("304 c=32", "req/s", Ratio(0.45, 0.75))
GET_SPAN = Task("range 4K of 256M c=32", "req/s", Ratio(0.45, 0.75))
GET_MIDDLE = Task("get 1M c=8", "MB/s", Ratio(1.0, 1.2), one_core=False)
GET_LARGE = Task("get 256M c=1", "MB/s", Ratio(1.0, 1.2), one_core=False)
PUT_SMALL = Task("put 4K c=32", "req/s", Ratio(0.45, 0.70))
PUT_MIDDLE = Task("put 1M c=8", "MB/s", Ratio(0.75, 1.0), one_core=False)
PUT_LARGE = Task("put 256M c=1", "MB/s", Ratio(1.2, 1.5), one_core=False)
PUT_FORM = Task("put 256M form c=1", "MB/s", Ratio(0.8, 1.2), one_core=False)
PUT_DURABLE = Task("put 4K durable c=32", "req/s", Ratio(2.0, 4.0))
GET_BESIDE_UPLOADS = Task("get 4K c=8 beside uploads", "req/s", Ratio(0.5, 0.7), one_core=False)
DELETE_SMALL = Task("delete 4K c=32", "req/s", Ratio(0.35, 0.60))
MEMORY_PUT = Task("memory: large put", "MiB", Ceiling(64), one_core=False)
MEMORY_GET = Task("memory: large get", "MiB", Ceiling(64), one_core=False)
MEMORY_IDLE = Task("memory: idle connection", "KiB", Ceiling(12))
MEMORY_SLOW = Task("memory: 200 slow readers", "MiB", Ceiling(200))

TASKS = (
    GET_SMALL, GET_WITH_TOKEN, GET_KNOWN, GET_SPAN, GET_MIDDLE, GET_LARGE, PUT_SMALL, PUT_MIDDLE, PUT_LARGE, PUT_FORM,
    PUT_DURABLE, GET_BESIDE_UPLOADS, DELETE_SMALL, MEMORY_PUT, MEMORY_GET, MEMORY_IDLE, MEMORY_SLOW,
)  # fmt: skip
"""All of them, in the order they are played."""
