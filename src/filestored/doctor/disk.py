"""The disk below the store, or its spool: what kind it is, what is left of it, and whether flushing flushes."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filestored.doctor.findings import Finding, Situation, fault, good, skipped, warning
from filestored.doctor.folder import skip_unless_own
from filestored.quantities import format_size

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "afs"}
)
_FLUSHES = 9
_BLOCK = 4096
_QUICK_SECONDS = 20e-6
_SLOW_SECONDS = 0.05
_SCARCE = 0.05
_FEW_INODES = 10_000


def check_disk(situation: Situation) -> Iterator[Finding]:
    """See what kind of file system the store, and a catalogue in a file, lie on."""
    kind = filesystem_of(situation.place)
    if kind in _IN_MEMORY:
        yield _judge_memory(situation, kind)
        return
    where = situation.catalogue
    beside = filesystem_of(_existing(where.parent)) if isinstance(where, Path) else ""
    if beside in _REMOTE:
        yield fault(
            f"the catalogue {where} is on a network file system ({beside}), which SQLite cannot work on safely",
            "put it on a local disk with --catalogue sqlite:///PATH, or into PostgreSQL",
        )
    elif kind in _REMOTE:
        yield warning(
            f"{situation.called} is on a network file system ({kind})",
            "let one machine alone use it, and prefer a local disk",
        )
    else:
        yield good(f"a file system of the kind {kind or 'that cannot be told'}")


def _judge_memory(situation: Situation, kind: str) -> Finding:
    found = f"{situation.place} is in memory ({kind}): a restart loses"
    mend = f"name a folder on a disk with {situation.option}"
    if situation.settings.bucket is None:
        return fault(f"{found} everything", mend)
    where = situation.catalogue
    if isinstance(where, Path) and situation.path in where.parents:
        return fault(f"{found} the catalogue", mend)
    return warning(f"{found} unfinished uploads", mend)


def filesystem_of(path: Path) -> str:
    """Return the kind of file system a folder is on: ``ext4``; empty where the system does not say."""
    try:
        device = path.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(lines):
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return _by_place(path, lines)


def _by_place(path: Path, lines: list[str]) -> str:
    """Find it by the folder it is mounted on: btrfs, for one, shows another device than its files have."""
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = before.split()[4]
        if Path(mounted) in (path, *path.parents) and len(mounted) >= len(best):
            best, kind = mounted, after.split()[0]
    return kind


def _existing(path: Path) -> Path:
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def check_flushing(situation: Situation) -> Iterator[Finding]:
    """Measure how long a flush takes: one that takes no time reaches no disk."""
    if "eatmydata" in os.environ.get("LD_PRELOAD", ""):
        yield fault("libeatmydata keeps flushes from the disk", "start without LD_PRELOAD")
        return
    if situation.settings.durability == "relaxed":
        yield warning(
            "nothing is flushed (--durability relaxed): a power cut may lose the last seconds", "use --durability full"
        )
        return
    if (not_own := skip_unless_own(situation)) is not None:
        yield not_own
        return
    try:
        yield _judge_flush(measure_flush(situation.place))
    except OSError as error:
        yield fault(f"{situation.place} cannot be written to: {error.strerror or error}", "see space and permissions")


def _judge_flush(seconds: float) -> Finding:
    shown = f"a flush takes {seconds * 1000:.2g} ms"
    if seconds < _QUICK_SECONDS:
        return warning(
            f"{shown}: so quick that it can hardly reach a disk",
            "see that neither the file system (barrier, nobarrier) nor a virtual disk's cache leaves flushes out",
        )
    if seconds > _SLOW_SECONDS:
        return warning(
            f"{shown}, and an upload waits for several", "use a disk with a protected write cache, or an SSD"
        )
    return good(shown)


def measure_flush(folder: Path) -> float:
    """Return how long writing a block and flushing it takes, in seconds, the median of some. Raises OSError."""
    took = []
    # without a name: whatever happens, nothing is left
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(os.urandom(_BLOCK))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def check_space(situation: Situation) -> Iterator[Finding]:
    """See how many bytes and files the disk has room for."""
    try:
        disk = os.statvfs(situation.place)
    except OSError as error:
        yield skipped(f"the free space cannot be told: {error.strerror or error}")
        return
    yield _judge_bytes(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize, situation.settings.min_free_space)
    if disk.f_files:
        yield _judge_inodes(disk.f_favail, disk.f_files)


def _judge_bytes(free: int, whole: int, reserved: int) -> Finding:
    shown = f"{_rounded(free)} free of {_rounded(whole)}"
    if free < reserved:
        return fault(
            f"{shown}, less than uploads leave free ({format_size(reserved)}): they are answered 507",
            "delete files, or make the disk larger; or lower --min-free-space",
        )
    if free < whole * _SCARCE:
        return warning(shown, "delete files, or make the disk larger, before uploads are answered 507")
    return good(shown)


def _rounded(size: int) -> str:
    rest, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if rest < 1024:
            break
        rest, unit = rest / 1024, larger
    return f"{rest:.3g} {unit}"


def _judge_inodes(free: int, whole: int) -> Finding:
    shown = f"room for {free} more files of {whole}"
    if free == 0:
        return fault(shown, "delete files, or make a file system with more inodes (mkfs.ext4 -i 16384)")
    if free < _FEW_INODES and free < whole * _SCARCE:
        return warning(shown, "delete files, or make a file system with more inodes (mkfs.ext4 -i 16384)")
    return good(shown)
