"""Logging: one output for the whole process, shared with the other processes of the daemon.

Everything ends in :class:`LogFile` or standard error, a line or a batch of lines in one ``write``:

::

    loguru ─────────────────────────┐
    logging (Granian) ─ StandardHandler ─ loguru
    requests ── AccessLog (a thread) ┴─ LogFile or standard error
"""

import contextlib
import fcntl
import json
import logging
import os
import select
import stat
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from loguru import logger

from filestored.errors import StartError

if TYPE_CHECKING:
    from loguru import Message, Record

MAX_LOG_BYTES = 10 << 20
"""How large a log file grows before it is renamed."""

KEPT_LOGS = 5
"""How many renamed log files are kept, ``.1`` being the newest."""

MAX_WAITING_LINES = 100_000
"""How many lines about requests may wait to be written; more are dropped, and counted."""

AccessEntry = tuple[float, int, str, str, str, str, int, int, float]
"""Unix time, request number, client, method, path, hash, status, bytes sent, seconds."""

_GATHER_SECONDS = 0.1
_SLICE = 500
_GRANIAN = "_granian"
_TELLING_ADDRESSES = ("httpx", "httpcore")
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_quoted = json.encoder.encode_basestring_ascii


class LogOutput(Protocol):
    """Where finished lines go."""

    def write(self, lines: bytes) -> None:
        """Write whole lines at once. Never raises: a log that cannot be written must not stop the daemon."""


class StandardError:
    """Lines for whoever started the program: a terminal, systemd, a container's log."""

    def __init__(self) -> None:
        self._is_pipe = stat.S_ISFIFO(os.fstat(2).st_mode)

    def write(self, lines: bytes) -> None:
        """See LogOutput."""
        with contextlib.suppress(OSError):
            for part in _short_parts(lines) if self._is_pipe else (lines,):
                _write_whole(2, part)


class LogFile:
    """A log file that several processes append to, renamed when it grows too large.

    The process that finds it too large renames it under a lock; the others see at their next write that the
    name belongs to another file and follow. A file moved or removed by somebody else is begun anew.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS) -> None:
        """Open the file. Raises OSError where it cannot be written."""
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._lock = threading.Lock()
        self._descriptor = self._open()
        self._identity = _identity(os.fstat(self._descriptor))

    def write(self, lines: bytes) -> None:
        """See LogOutput."""
        with self._lock, contextlib.suppress(OSError):
            if self._follow() >= self._max_bytes:
                self._rotate()
            _write_whole(self._descriptor, lines)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _follow(self) -> int:
        """See to it that the file with our name is the one held open; return its size in bytes."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._path)
            if _identity(status) == self._identity:
                return status.st_size
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = _identity(status)
        return status.st_size

    def _rotate(self) -> None:
        guard = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            # another process may have done it while this one waited for the lock
            if self._follow() >= self._max_bytes:
                self._rename()
                self._follow()
        finally:
            os.close(guard)

    def _rename(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _short_parts(lines: bytes) -> Iterator[bytes]:
    """Split after line ends: a pipe mixes up what several processes write, unless it is short (pipe(7))."""
    start = 0
    while len(lines) - start > select.PIPE_BUF:
        stop = lines.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:stop]
        start = stop
    if start < len(lines):
        yield lines[start:]


def _write_whole(descriptor: int, lines: bytes) -> None:
    written = os.write(descriptor, lines)
    while written < len(lines):
        written += os.write(descriptor, lines[written:])


def configure(level: str, fmt: str, file: Path | None) -> LogOutput:
    """Send every log line of this process, from ``level`` on, to ``file`` or standard error.

    ``fmt`` is ``text`` or ``json``. Returns the output, for an :class:`AccessLog`. Raises StartError where the
    file cannot be written.
    """
    try:
        output: LogOutput = LogFile(file) if file else StandardError()
    except OSError as error:
        raise StartError(f"the log file {file} cannot be written: {error.strerror or error}") from error
    # closes what was written to before: a forked worker would keep its parent's file for as long as it lives
    logger.remove()
    logger.add(
        _Sink(output, _json_line if fmt == "json" else _text_line),
        level=level.upper(),
        format="{message}",
        backtrace=False,
        diagnose=False,
    )
    logging.root.handlers = [StandardHandler()]
    logging.root.setLevel(logging.DEBUG if level in ("trace", "debug") else logging.WARNING)
    for name in _TELLING_ADDRESSES:
        # an address that is signed is good for what it says, to whoever reads it
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return output


class _Sink:
    """Where loguru's messages go, in the way it wants to write to it and to close it."""

    def __init__(self, output: LogOutput, render: "Callable[[Record], str]") -> None:
        self._output = output
        self._render = render

    def write(self, message: "Message") -> None:
        self._output.write(self._render(message.record).encode("utf-8", "backslashreplace"))

    def stop(self) -> None:
        if isinstance(self._output, LogFile):
            self._output.close()


class StandardHandler(logging.Handler):
    """Passes what libraries log on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; what Granian says of its own doings is at most worth ``debug``."""
        level: str | int = record.levelname
        if record.name.startswith(_GRANIAN) and record.levelno <= logging.INFO:
            level = "DEBUG"
        elif level not in logging.getLevelNamesMapping():
            level = record.levelno
        logger.opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def granian_logging() -> dict[str, object]:
    """Return what Granian's ``log_dictconfig`` takes to send its lines here."""
    through = {"handlers": ["filestored"], "propagate": False}
    return {
        "handlers": {"filestored": {"class": "filestored.logs.StandardHandler"}},
        "loggers": {_GRANIAN: dict(through), "granian.access": dict(through)},
    }


def _stamp(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time_of(record: "Record") -> str:
    moment = record["time"].timestamp()
    return f"{_stamp(int(moment))}.{int(moment % 1 * 1000):03d}Z"


def _trace_of(record: "Record") -> str:
    error = record["exception"]
    return "".join(traceback.format_exception(error.type, error.value, error.traceback)) if error else ""


def _text_line(record: "Record") -> str:
    line = f"{_time_of(record)} {record['level'].name:<5} {escaped(record['message'])}\n"
    # indented: nothing that an error quotes can pass for a line of its own
    return line + "".join(f"    {escaped(part)}\n" for part in _trace_of(record).split("\n") if part)


def _json_line(record: "Record") -> str:
    fields = {"time": _time_of(record), "level": record["level"].name, "message": record["message"]}
    if record["exception"]:
        fields["exception"] = _trace_of(record)
    return json.dumps(fields) + "\n"


def escaped(text: str) -> str:
    """Return text of one line: others choose some of what is told, and must not forge lines with it."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class AccessLog:
    """A line a request, gathered by a thread and written every 0.1 s.

    :meth:`add` is called from the event loop and costs as little as can be. With a level above ``info``
    nobody reads the lines, and ``enabled`` is False.
    """

    def __init__(self, output: LogOutput, fmt: str, level: str) -> None:
        self.enabled = level in ("trace", "debug", "info")
        self._output = output
        self._is_json = fmt == "json"
        self._process = f"{os.getpid():x}"
        self._waiting: list[AccessEntry] = []
        self._dropped = 0
        self._second = -1
        self._stamp = ""
        self._is_closing = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="access-log", daemon=True)
        if self.enabled:
            self._writer.start()

    def add(self, entry: AccessEntry) -> None:
        """Note a request. Its line is written within about 0.1 s."""
        if len(self._waiting) < MAX_WAITING_LINES:
            self._waiting.append(entry)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Write what still waits and stop."""
        self._is_closing.set()
        if self._writer.is_alive():
            self._writer.join()

    def _write_on(self) -> None:
        while not self._is_closing.wait(_GATHER_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Write what waits, in one piece where it is not much."""
        count = len(self._waiting)
        if not count:
            return
        format_lines = self._json_lines if self._is_json else self._text_lines
        parts = []
        for start in range(0, count, _SLICE):
            parts.append(format_lines(self._waiting[start : min(start + _SLICE, count)]))
            # lets the event loop in: it would wait for the interpreter's switch interval otherwise
            time.sleep(0)
        # one operation, so that an entry added meanwhile stays
        del self._waiting[:count]
        self._output.write("".join(parts).encode("utf-8", "backslashreplace"))
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            logger.warning("{} lines about requests were dropped: they came faster than they could be written", dropped)

    def _stamp_of(self, second: int) -> str:
        if second != self._second:
            self._second, self._stamp = second, _stamp(second)
        return self._stamp

    def _text_lines(self, entries: list[AccessEntry]) -> str:
        stamp, process, lines = self._stamp_of, self._process, []
        for moment, number, client, method, path, digest, status, sent, seconds in entries:
            second = int(moment)
            if not path.isprintable() or " " in path:
                path = quote(path, _VISIBLE, errors="replace")
            lines.append(
                f"{stamp(second)}.{int((moment - second) * 1000):03d}Z INFO  request id={process}-{number:06x} "
                f"client={client or '-'} {method} {path} hash={digest or '-'} status={status} bytes={sent} "
                f"ms={seconds * 1000:.2f}\n"
            )
        return "".join(lines)

    def _json_lines(self, entries: list[AccessEntry]) -> str:
        stamp, process, lines = self._stamp_of, self._process, []
        for moment, number, client, method, path, digest, status, sent, seconds in entries:
            second = int(moment)
            lines.append(
                f'{{"time": "{stamp(second)}.{int((moment - second) * 1000):03d}Z", "level": "INFO", '
                f'"message": "request", "id": "{process}-{number:06x}", "client": {_quoted(client)}, '
                f'"method": {_quoted(method)}, "path": {_quoted(path)}, "hash": {_quoted(digest)}, '
                f'"status": {status}, "bytes": {sent}, "ms": {seconds * 1000:.2f}}}\n'
            )
        return "".join(lines)
