"""Work done by several threads, its results in the order of what was asked for, nothing piling up in between."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Slot(Generic[Task, Result]):
    """A place in the order, with the result once there is one."""

    __slots__ = ("error", "is_done", "results", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.is_done = False
        self.results: list[Result] = []
        self.error: Exception | None = None


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, threads: int, ahead: int = 1000
) -> Generator[Result, None, None]:
    """Do ``work`` for each task by ``threads`` threads, and yield the results in the order of the tasks.

    At most ``ahead`` tasks are taken before the result of the first of them was. What the work raises ends it all,
    in its turn. Threads that are still at work when the caller has enough are not waited for, and take no more tasks.
    """
    changed = threading.Condition()
    waiting: deque[_Slot[Task, Result]] = deque()
    window: deque[_Slot[Task, Result]] = deque()
    is_over = False

    def run() -> None:
        while True:
            with changed:
                changed.wait_for(lambda: bool(waiting) or is_over)
                if is_over:
                    return
                slot = waiting.popleft()
            try:
                slot.results.append(work(slot.task))
            except Exception as error:
                slot.error = error
            with changed:
                slot.is_done = True
                changed.notify_all()

    def first() -> Result:
        slot = window.popleft()
        with changed:
            changed.wait_for(lambda: slot.is_done)
        if slot.error is not None:
            raise slot.error
        return slot.results[0]

    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()
    try:
        for task in tasks:
            slot: _Slot[Task, Result] = _Slot(task)
            window.append(slot)
            with changed:
                waiting.append(slot)
                changed.notify()
            while window and (len(window) >= ahead or window[0].is_done):
                yield first()
        while window:
            yield first()
    finally:
        with changed:
            is_over = True
            changed.notify_all()
