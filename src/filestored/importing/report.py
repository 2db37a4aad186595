"""The report of an import: a JSON line for each item, durable, and the journal from which a later run goes on.

::

    {"import": "/srv/files", "kind": "folder", "owner": "anonymous"}
    {"source": "a/b.txt", "size": 3, "version": "…", "old_hash": null, "hash": "2c26…", "state": "new", "reason": null}

The last line about an item counts. ``state`` is ``new``, ``known`` (the owner kept those bytes already), ``skipped``
(not a file to import) or ``failed``; ``version`` differs as soon as the item may have other bytes.
"""

import fcntl
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from filestored.errors import StartError

_FLUSHED_EVERY_SECONDS = 1.0
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# bytes: a path has at most 4,096, each of which JSON may write with six, and the reason may have it again
_LONGEST_LINE = 1 << 20
_DONE = ("new", "known")


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of an item; sizes in bytes."""

    source: str
    size: int | None
    version: str | None
    old_hash: str | None
    hash: str | None
    state: str
    reason: str | None

    @property
    def is_done(self) -> bool:
        """Whether its bytes were in the store when this was written."""
        return self.state in _DONE


_FIELDS = tuple(field.name for field in fields(Entry))


class Report:
    """A report held open, and locked, for one run. Used by one thread at a time.

    Which items it has is looked up in a temporary database, so that it takes the same memory for any number of them.
    """

    def __init__(self, path: Path, *, source: str, kind: str, owner: str) -> None:
        """Open or begin a report. Raises StartError where it is another import's, is in use, or cannot be written."""
        self.path = path
        self._flush_at = time.monotonic() + _FLUSHED_EVERY_SECONDS
        header = {"import": source, "kind": kind, "owner": owner}
        with ExitStack() as opened:
            self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            opened.callback(self._index.close)
            self._index.execute(f"CREATE TABLE entries({', '.join(_FIELDS)}, PRIMARY KEY(source)) WITHOUT ROWID")
            self._index.execute("PRAGMA synchronous=OFF")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(path, _FLAGS, 0o600)
                opened.callback(os.close, self._descriptor)
                if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                    raise StartError(f"the report {path} cannot be written: it is no regular file")
                self._lock()
                self._begin(header)
            except OSError as error:
                raise StartError(f"the report {path} cannot be written: {error.strerror or error}") from error
            self._opened = opened.pop_all()

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def find(self, source: str) -> Entry | None:
        """Return the last line about an item."""
        row = self._run("SELECT * FROM entries WHERE source = ?", (_bytes(source),)).fetchone()
        return None if row is None else Entry(source, *row[1:])

    def add(self, entry: Entry) -> None:
        """Write a line, unless it is what the last line about the item says. Raises OSError."""
        if self.find(entry.source) == entry:
            return
        _write_all(self._descriptor, _line(asdict(entry)))
        self._remember(entry)
        if time.monotonic() >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Have all lines survive a power cut. Raises OSError."""
        os.fsync(self._descriptor)
        self._flush_at = time.monotonic() + _FLUSHED_EVERY_SECONDS

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another import is writing the report {self.path}") from None

    def _begin(self, header: dict[str, str]) -> None:
        """Read what there is, without a last line that a crash has cut off; begin where there is nothing."""
        lines = _read_lines(self._descriptor, self.path)
        first = next(lines, None)
        foreign = StartError(f"{self.path} is not a report of importing {header['import']}; name another with --report")
        if first is None:
            line = _line(header)
            if not line.startswith(os.pread(self._descriptor, len(line), 0)):
                raise foreign
            os.ftruncate(self._descriptor, 0)
            _write_all(self._descriptor, line)
            self.flush()
            return
        found, end = first
        if found != header:
            raise foreign
        with closing(self._index.cursor()) as cursor:
            cursor.execute("BEGIN")
            for said, ends_at in lines:
                entry = _entry_of(said)
                if entry is None:
                    raise StartError(f"{self.path} is not a report: it has a line that tells of no item")
                self._remember(entry)
                end = ends_at
            cursor.execute("COMMIT")
        os.ftruncate(self._descriptor, end)

    def _remember(self, entry: Entry) -> None:
        values = (_bytes(entry.source), *(getattr(entry, name) for name in _FIELDS[1:]))
        marks = ", ".join("?" * len(_FIELDS))
        self._run(f"INSERT OR REPLACE INTO entries VALUES ({marks})", values)  # noqa: S608

    def _run(self, statement: str, values: Sequence[object]) -> sqlite3.Cursor:
        try:
            return self._index.execute(statement, values)
        except sqlite3.Error as error:
            # it lies where the system keeps what is temporary
            raise StartError(f"what was imported earlier cannot be looked up: {error}") from error


def _entry_of(line: dict[str, Any]) -> Entry | None:
    """Return what a line says of an item, None where it says nothing of one."""
    values = {name: line.get(name) for name in _FIELDS}
    size = values.pop("size")
    is_whole = isinstance(values["source"], str) and isinstance(values["state"], str)
    if not is_whole or not all(value is None or isinstance(value, str) for value in values.values()):
        return None
    if size is not None and not (isinstance(size, int) and 0 <= size < 1 << 63):
        return None
    return Entry(size=size, **values)  # type: ignore[arg-type]


def _read_lines(descriptor: int, path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Give the objects of all whole lines, each with where its line ends."""
    end = 0
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                if len(line) < _LONGEST_LINE:
                    return
                raise StartError(f"{path} is not a report: it has a line that is too long")
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise StartError(f"{path} is not a report: it has a line that is no JSON object")
            end += len(line)
            yield found, end


def _line(fields_: dict[str, Any]) -> bytes:
    # ASCII: also the bytes of a name that are no UTF-8 come through, as halves of surrogate pairs
    return json.dumps(fields_).encode() + b"\n"


def _bytes(source: str) -> bytes:
    return source.encode("utf-8", "surrogatepass")


def _write_all(descriptor: int, data: bytes) -> None:
    """Write a whole line or, on a full disk, nothing of it. Raises OSError."""
    before = os.fstat(descriptor).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, before)
        raise
