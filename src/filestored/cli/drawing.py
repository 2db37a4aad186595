"""The lines of :mod:`filestored.cli.progress`, laid out for the width that the terminal has at the moment."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from filestored.cli.terminal import readable


def _column() -> Column:
    return Column(no_wrap=True, overflow="ellipsis")


class _SpeedColumn(ProgressColumn):
    """Bytes a second, in the units of the sizes."""

    def render(self, task: Task) -> Text:
        """Return the speed lately, or nothing where none is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{readable(int(speed))}/s", style="progress.data.speed")


class Drawing(Progress):
    """A line for each task: on a narrow terminal with less in it, but never broken into two."""

    def __init__(self, console: Console, **options: Any) -> None:
        self._terminal = console
        text = TextColumn("{task.description}", markup=False, table_column=_column())
        size = DownloadColumn(binary_units=True, table_column=_column())
        speed = _SpeedColumn(table_column=_column())
        left = TimeRemainingColumn(compact=True, table_column=_column())
        # by the least width that they fit in
        self._layouts: tuple[tuple[int, tuple[ProgressColumn, ...]], ...] = (
            (78, (text, BarColumn(bar_width=12, table_column=_column()), size, speed, left)),
            (62, (text, size, speed, left)),
            (46, (text, size, left)),
            (0, (text, left)),
        )
        super().__init__(console=console, **options)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Lay the lines out for the width that the terminal has now."""
        width = self._terminal.width
        self.columns = next(columns for least, columns in self._layouts if width >= least)
        return super().make_tasks_table(tasks)
