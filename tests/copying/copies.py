"""Calling ``copy-store``, and what two stores hold."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bad_days.consistency import blobs
from tests.care import CLEAN, Ended, end, execute

_ROWS = "SELECT digest, owner, name, folded_name, media_type, size, created_at, expires_at FROM files ORDER BY 1, 2"
_TOKENS = "SELECT id, name, secret_hash, permissions, created_at, expires_at, quota FROM tokens ORDER BY 1"


def begin_copy(
    origin: Path | str, target: Path | str, *flags: str, wrapper: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> "subprocess.Popen[str]":  # fmt: skip
    """Begin to copy a store."""
    words = [sys.executable, "-m", "filestored", "copy-store", str(origin), str(target), "--json", *flags]
    return subprocess.Popen(
        [*wrapper, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**CLEAN, **(env or {})},
    )  # fmt: skip


def copy(
    origin: Path | str, target: Path | str, *flags: str, status: int = 0, wrapper: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Copy a store, check how it ended, and return the summary and the findings."""
    ended = end(begin_copy(origin, target, *flags, wrapper=wrapper, env=env))
    return summed_up(ended, status)


def summed_up(ended: Ended, status: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Check how a copy ended, and return the summary and the findings."""
    assert ended.status == status, ended
    assert "Traceback" not in ended.errors
    *findings, summary = ended.json()
    return summary, findings


def require_same(origin: Path, target: Path) -> None:
    """Check that two stores hold the same: row by row, blob by blob, and what is counted of them."""
    for statement in (_ROWS, _TOKENS, "SELECT owner, files, bytes FROM usage WHERE files > 0", "SELECT * FROM totals"):
        assert sorted(execute(target, statement), key=repr) == sorted(execute(origin, statement), key=repr)
    assert blobs(target) == blobs(origin)
    for name in blobs(origin):
        assert (target / name[:2] / name).read_bytes() == (origin / name[:2] / name).read_bytes()
    assert list((target / ".filestored" / "tmp").iterdir()) == []
    algorithms = [
        set(json.loads((store / ".filestored" / "format.json").read_text())["algorithms"]) for store in (origin, target)
    ]
    # a source that another program added to may not know all of its own
    assert algorithms[0] <= algorithms[1]


def key_of(store: Path) -> str:
    """Return the key that signs links."""
    return str(execute(store, "SELECT value FROM notes WHERE name = 'signing-key'")[0][0])


def state_home(path: Path) -> dict[str, str]:
    """Return the variables of somebody whose state lies in a folder of the test's own."""
    return {"XDG_STATE_HOME": os.fspath(path / "state")}
