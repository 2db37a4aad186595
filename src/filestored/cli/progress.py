"""How far it has come: lines on a terminal that are drawn anew, and nothing where nobody looks."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filestored.cli.telling import tell
from filestored.cli.terminal import is_terminal, write_line
from filestored.client.errors import shown
from filestored.client.outcomes import Transfer, Watch

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LARGE = 8 * 1024 * 1024
_LABEL_WIDTH = 24
_TIMES_A_SECOND = 8


class Report(Watch):
    """Results, failures and, where somebody looks, how far it has come. This one shows only the first two."""

    def expect(self, files: int, size: int) -> None:
        """Note that so many more files, and bytes, are to come."""

    def result(self, line: str) -> None:
        """Print a line on standard output, at once."""
        write_line(line)
        if sys.stdout is not None:
            sys.stdout.flush()

    def failure(self, reason: str) -> None:
        """Print a line on standard error."""
        tell(shown(reason))


class _ShownReport(Report):
    """A line for everything, and one for each large file under way."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._files = 0
        self._all_files = 0
        self._all_bytes = 0
        self._task = progress.add_task("", total=None)
        # a line of the results would be drawn over where both go to the same terminal
        self._is_shared = is_terminal(sys.stdout) and os.fstat(1).st_rdev == os.fstat(2).st_rdev
        self._show()

    def expect(self, files: int, size: int) -> None:
        """Note that so many more files, and bytes, are to come."""
        with self._lock:
            self._all_files += files
            self._all_bytes += size
            self._show()

    def begin(self, label: str, size: int | None) -> Transfer:
        """Show a file that is being transferred, where it is a large one."""
        task = None
        if size is None or size >= _LARGE:
            task = self._progress.add_task(_shortened(label), total=size)
        return _ShownTransfer(self, self._progress, task, size)

    def done(self, size: int) -> None:
        """Count a file."""
        self.moved(size)
        with self._lock:
            self._files += 1
            self._show()

    def moved(self, size: int) -> None:
        """Count bytes."""
        self._progress.advance(self._task, size)

    def result(self, line: str) -> None:
        """Print a line on standard output, above what is drawn where that is the same terminal."""
        if self._is_shared:
            self._progress.console.out("\t".join(shown(part) for part in line.split("\t")), highlight=False)
        else:
            super().result(line)

    def failure(self, reason: str) -> None:
        """Print a line on standard error, above what is drawn."""
        self._progress.console.out(f"filestored: {shown(reason)}", highlight=False)

    def _show(self) -> None:
        text = f"{self._files}/{self._all_files} files" if self._all_files else f"{self._files} files"
        self._progress.update(self._task, description=text, total=self._all_bytes or None)


class _ShownTransfer(Transfer):
    """One file under way."""

    def __init__(self, report: _ShownReport, progress: "Progress", task: "TaskID | None", size: int | None) -> None:
        self._report = report
        self._progress = progress
        self._task = task
        self._size = size
        self._position = 0

    def at(self, position: int, size: int | None) -> None:
        """Show how much has been moved."""
        self._report.moved(position - self._position)
        self._position = position
        if self._task is not None:
            self._progress.update(self._task, completed=position, total=size)

    def end(self) -> None:
        """Take the line away."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._report.done((self._size or self._position) - self._position)


@contextmanager
def reporting(*, is_quiet: bool, as_json: bool) -> Iterator[Report]:
    """Show how work goes for the time of a block, where standard error is a terminal and it is wanted."""
    is_watched = is_terminal(sys.stderr) and not is_quiet and not (as_json and not is_terminal(sys.stdout))
    if not is_watched:
        yield Report()
        return
    progress = _drawn()
    try:
        with progress:
            yield _ShownReport(progress)
    except BaseException:
        # an interrupt while it begins to draw would leave it drawing, and the cursor hidden
        with suppress(IndexError):
            progress.live.stop()
        progress.console.show_cursor()
        raise


def _drawn() -> "Progress":
    """Return the drawing, which leaves no line behind."""
    from rich.console import Console

    from filestored.cli.drawing import Drawing

    return Drawing(
        console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False,
        refresh_per_second=_TIMES_A_SECOND,
    )  # fmt: skip


def _shortened(label: str) -> str:
    """Return a name that fits beside the rest: its end tells more than its beginning."""
    text = shown(label)
    return text if len(text) <= _LABEL_WIDTH else "…" + text[1 - _LABEL_WIDTH :]


def in_background(work: Callable[[], None]) -> None:
    """Have work done beside everything else, which does not wait for it."""
    threading.Thread(target=work, daemon=True).start()
