"""Calling the commands that take care of a store, and damaging what they take care of."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    output: str
    errors: str

    def json(self) -> list[dict[str, Any]]:
        """Return the objects that it printed, one a line."""
        return [json.loads(line) for line in self.output.splitlines()]


def begin(
    store: Path, command: str, *arguments: str, wrapper: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Begin a command on a store; ``env`` has variables besides those there are."""
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "filestored", command, "--store", str(store), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN | (env or {}),
        # it may be ignored here, where tests run in the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def end(process: "subprocess.Popen[str]", number: int | None = None) -> Ended:
    """Wait until a command ends, with a signal that tells it to where one is given."""
    if number is not None:
        process.send_signal(number)
    output, errors = process.communicate(timeout=90)
    return Ended(process.returncode, output, errors)


def call(
    store: Path, command: str, *arguments: str, wrapper: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Ended:
    """Run a command on a store."""
    return end(begin(store, command, *arguments, wrapper=wrapper, env=env))


def execute(store: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement on a store's catalogue, as another program would."""
    path = store / ".filestored" / "catalogue.sqlite3"
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as catalogue:
        return catalogue.execute(statement, values).fetchall()


def noted(store: Path) -> dict[str, Any]:
    """Return what a scrub has noted of its pass; nothing where none has."""
    try:
        rows = execute(store, "SELECT value FROM notes WHERE name = 'scrub'")
    except sqlite3.OperationalError:
        return {}
    return dict(json.loads(rows[0][0])) if rows else {}


def rot(blob: Path, body: bytes | None = None) -> bytes:
    """Change a blob as a failing disk does: nothing but the bytes, by default one bit. Return what it is now."""
    status = blob.stat()
    if body is None:
        rotten = bytearray(blob.read_bytes())
        rotten[len(rotten) // 2] ^= 1
        body = bytes(rotten)
    blob.chmod(0o600)
    blob.write_bytes(body)
    blob.chmod(0o444)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    return body


def lay(store: Path, name: str, body: bytes) -> Path:
    """Put a blob into a store without the program, as another one would."""
    shard = store / name[:2]
    shard.mkdir(parents=True, exist_ok=True)
    (shard / name).write_bytes(body)
    return shard / name


def quarantined(store: Path) -> dict[str, bytes]:
    """Return what lies in quarantine, by its names there."""
    return {path.name: path.read_bytes() for path in (store / ".filestored" / "quarantine").iterdir()}
