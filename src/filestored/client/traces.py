"""What is remembered of unfinished uploads, so that another run goes on with them: a small file each."""

import fcntl
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

_KEPT_SECONDS = 7 * 86400
_MOST = 10_000
_NAME = re.compile("[0-9a-f]{64}", re.ASCII)


def state_folder() -> Path:
    """Return where unfinished uploads are remembered: ``$XDG_STATE_HOME/filestored/uploads``."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "filestored" / "uploads"


class Trace:
    """The path of one unfinished upload at its server. It belongs to one process at a time, and is lost without harm.

    Where its folder cannot be written, or another process has it, nothing is remembered, and uploads begin anew.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None

    def open(self) -> None:
        """Take it, if that is possible; blocks for a moment."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _forget_old(self._path.parent)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return
        self._descriptor = descriptor

    def recall(self) -> str | None:
        """Return the path at the server, None where nothing is remembered."""
        if self._descriptor is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                upload = json.loads(os.pread(self._descriptor, 64 * 1024, 0))["upload"]
                if isinstance(upload, str) and upload.startswith("/"):
                    return upload
        return None

    def note(self, upload: str) -> None:
        """Remember a path."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps({"upload": upload}).encode(), 0)

    def forget(self) -> None:
        """Remember nothing any more."""
        if self._descriptor is not None and self._path is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                self._path.unlink()

    def close(self) -> None:
        """Let another process have it; nothing stays of one that remembers nothing."""
        if self._descriptor is None:
            return
        if self.recall() is None:
            self.forget()
        os.close(self._descriptor)
        self._descriptor = None


class Traces:
    """A folder of traces, None for nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, *identity: str) -> Trace:
        """Return the trace of one source, server and user, not open yet."""
        if self._folder is None:
            return Trace(None)
        name = hashlib.sha256("\n\n".join(identity).encode("utf-8", "surrogateescape")).hexdigest()
        return Trace(self._folder / name)


def _forget_old(folder: Path) -> None:
    """Forget what no server keeps any more; what is no trace is left alone, whatever folder was named."""
    oldest = time.time() - _KEPT_SECONDS
    with os.scandir(folder) as entries:
        for entry in islice(entries, _MOST):
            with suppress(OSError):
                is_trace = _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                if is_trace and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)
