"""The daemon in the background: who runs on a store, starting it, stopping it.

::

    <store>/.filestored/daemon.pid         locked by the supervisor; its process id, then its address
                        last-start.json    what the last start was told, for ``restart``
                        log/startup.log    what the last start in the background wrote before its log was open
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import without_password
from filestored.digest import Algorithm
from filestored.errors import StartError
from filestored.settings import Loaded, Settings, describe, describe_all, load_only

START_SECONDS = 60.0
"""How long ``start`` waits until the daemon accepts requests."""

STOP_SECONDS = 60.0
"""How long ``stop`` waits until the daemon has ended."""

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.01
_TRIES = 10
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Holder(NamedTuple):
    """The daemon that runs on a store: its process id, and where it listens once that is settled."""

    pid: int
    address: str


class StoreLock:
    """The right to run on a store: held from :meth:`take` until the process ends, however it ends.

    The lock alone counts; a file left behind by a crash means nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> "StoreLock":
        """Lock the file and write the process id into it. Raises StartError where another daemon has it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"{path} cannot be opened: {error.strerror or error}") from error
        if not _is_locked_now(descriptor):
            os.close(descriptor)
            holder = find_holder(path)
            shown = f" (process {holder.pid})" if holder else ""
            raise StartError(f"another filestored{shown} uses this store")
        lock = cls(descriptor)
        try:
            lock._write(f"{os.getpid()}\n")
        except OSError as error:
            os.close(descriptor)
            raise StartError(f"{path} cannot be written: {error.strerror or error}") from error
        return lock

    def publish(self, address: str) -> None:
        """Tell others the address the daemon listens on."""
        self._write(f"{os.getpid()}\n{address}\n")

    def _write(self, text: str) -> None:
        # overwritten before it is cut: the room it has is enough also on a full disk, where one starts to delete
        written = os.pwrite(self._descriptor, text.encode(), 0)
        os.ftruncate(self._descriptor, written)

    def leave_to_parent(self) -> None:
        """In a forked child: hold the lock no longer; the parent does."""
        os.close(self._descriptor)

    def __enter__(self) -> "StoreLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _is_locked_now(descriptor: int) -> bool:
    """Try to lock; more than once, since whoever asks who runs holds the lock for a moment."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_POLL_SECONDS)
    return False


def find_holder(path: Path) -> Holder | None:
    """Return the daemon that holds a pid file locked, None where nobody does. Raises StartError if it is unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            lines = os.pread(descriptor, 4096, 0).decode("ascii", "replace").split("\n")
            if lines[0].isdecimal():
                return Holder(int(lines[0]), lines[1] if len(lines) > 1 else "")
            # locked this very moment, the process id not yet written
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(descriptor)
    raise StartError(f"{path} is locked by a process that is not filestored")


def folder_of(store: Path) -> StoreFolder:
    """Return the paths of a store that need not be one yet; nothing is made or checked."""
    return StoreFolder(store, Algorithm.SHA256)


def running(store: Path) -> Holder | None:
    """Return the daemon that runs on a store. Raises StartError where that cannot be told."""
    return find_holder(folder_of(store).pid_file)


def running_pid(store: Path) -> int | None:
    """Return the process id of the daemon that runs on a store. Raises StartError where that cannot be told."""
    holder = running(store)
    return holder.pid if holder else None


@dataclass(frozen=True, slots=True)
class LastStart:
    """What a start was told: by flags (field names) and by variables, as an operator would spell it.

    What came from the settings file is left out, so that a restart reads the file as it is by then.
    """

    flags: dict[str, str]
    variables: dict[str, str]
    stop_delay: float = 0.0
    """For how many seconds it goes on once it is told to stop."""

    @classmethod
    def of(cls, loaded: Loaded) -> "LastStart":
        """Note what was given; paths are absolute, so that a restart may come from any folder."""
        start = cls({}, {}, loaded.settings.stop_delay)
        for setting in describe_all():
            origin, value = loaded.origins[setting.name], loaded.settings.spelled(setting.name)
            if origin == "flag":
                start.flags[setting.name] = value
            elif origin.startswith("variable "):
                start.variables[setting.variable] = value
        if loaded.settings.log_file == folder_of(loaded.settings.folder).log_file:
            # where `start` sends the log unless told otherwise; a restart decides anew
            start.flags.pop("log_file", None)
        return start

    @classmethod
    def recall(cls, store: Path) -> "LastStart | None":
        """Return what the last start on a store was told, None where nothing is known of one."""
        try:
            noted = json.loads(_last_start_file(store).read_bytes())
            return cls(dict(noted["flags"]), dict(noted["variables"]), float(noted.get("stop_delay", 0.0)))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def flags_at(self, folder: Path) -> dict[str, str]:
        """Return the flags for a start on the same local folder, whatever words name that from here.

        Raises SettingsError.
        """
        named = load_only(("store", "spool"), self.flags, self.variables)
        if named.bucket is None:
            return {**self.flags, "store": str(folder)}
        return {**self.flags, "store": named.spelled("store"), "spool": str(folder)}

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the variables for such a start: its own settings, and everything else as in ``env``."""
        ours = {setting.variable for setting in describe_all()}
        return {name: value for name, value in env.items() if name not in ours} | self.variables

    def remember(self, store: Path) -> None:
        """Keep it in the store, for the owner's eyes only. Raises StartError."""
        path = _last_start_file(store)
        draft = path.with_suffix(".new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            draft.replace(path)
        except OSError as error:
            raise StartError(f"{path} cannot be written: {error.strerror or error}") from error


def _last_start_file(store: Path) -> Path:
    return folder_of(store).private / "last-start.json"


class StartFailed(StartError):
    """The daemon ended before it accepted requests. ``status`` is its exit status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def start(settings: Settings, flags: Mapping[str, str], env: Mapping[str, str]) -> Holder:
    """Start a daemon in the background; return when it accepts requests.

    ``flags`` (field names) and ``env`` are handed on to it. Raises StartError, and StartFailed with the
    daemon's own last words where it ended.
    """
    holder = running(settings.folder)
    if holder is not None:
        raise StartError(f"already running: process {holder.pid}, {holder.address or 'starting'}")
    folder = StoreFolder.adopt(settings.folder, settings.hash, settings.bucket)
    told = {"log_file": str(folder.log_file), **flags} if settings.log_file is None else dict(flags)
    words = folder.log_file.with_name("startup.log")
    secrets = {name: told.pop(name) for name in list(told) if without_password(told[name]) != told[name]}
    # everybody on the machine may read a command line, but not what variables a process was given
    env = {**env, **{describe(name).variable: value for name, value in secrets.items()}}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]
    with words.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "filestored", "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    try:
        return _wait_until_ready(child, folder, words)
    except BaseException:
        # whoever gives up on it, by Ctrl-C too, must not leave half a daemon behind
        child.terminate()
        child.wait()
        raise


def _wait_until_ready(child: "subprocess.Popen[bytes]", folder: StoreFolder, words: Path) -> Holder:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = child.poll()
        if status is not None:
            raise StartFailed(
                _last_line(words) or f"it ended at once; {folder.log_file} may say why", status if status > 0 else 1
            )
        holder = find_holder(folder.pid_file)
        if holder and holder.pid == child.pid and holder.address and is_ready(holder.address):
            return holder
        time.sleep(_LOOK_SECONDS)
    raise StartError(f"it accepted no request within {START_SECONDS:g} seconds and was stopped; see {folder.log_file}")


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").split("\n")
    said = [line for line in lines if line.strip()]
    return said[-1].removeprefix("filestored: ") if said else ""


def is_ready(address: str) -> bool:
    """Tell whether a daemon at ``http://…`` or ``https://…`` accepts requests (``/readyz``)."""
    return _answers(address, "/readyz", 2)


def is_alive(address: str, patience: float) -> bool:
    """Tell whether a worker of a daemon answers within so many seconds (``/healthz``), whatever else is wrong."""
    return _answers(address, "/healthz", patience)


def _answers(address: str, path: str, timeout: float) -> bool:
    # while a daemon starts there is time for it: before, it would have to wait
    import http.client
    import ssl

    parts = urlsplit(address)
    host = _ANYWHERE.get(parts.hostname or "", parts.hostname or "")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # the daemon asks itself: there is nobody to be deceived by a certificate for another name
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(store: Path, patience: float = STOP_SECONDS) -> int:
    """Stop the daemon on a store: it finishes running requests. Return the process id it had.

    Raises StartError where none runs, it may not be stopped, or it still runs ``patience`` seconds after the delay that
    it was started with.
    """
    holder = running(store)
    if holder is None:
        raise StartError(f"not running on {store}")
    _require_own(holder.pid, folder_of(store).pid_file)
    last = LastStart.recall(store)
    patience += last.stop_delay if last else 0.0
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except OSError as error:
        raise StartError(f"process {holder.pid} cannot be stopped: {error.strerror}") from error
    deadline = time.monotonic() + patience
    while running_pid(store) == holder.pid or not _has_ended(holder.pid):
        if time.monotonic() > deadline:
            raise StartError(f"process {holder.pid} still runs after {patience:g} seconds")
        time.sleep(_LOOK_SECONDS)
    return holder.pid


def _has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    # nobody may be there to collect what is left of it
    return state in "ZX"


def _require_own(pid: int, path: Path) -> None:
    """Raise StartError unless the process has the pid file open: in a container its number means another one here."""
    wanted = path.stat()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = entry.stat()
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return
    except PermissionError as error:
        raise StartError(f"process {pid} belongs to another user") from error
    except FileNotFoundError:
        pass
    raise StartError(f"process {pid} of this machine is not the daemon; it may run in a container: stop it there")
