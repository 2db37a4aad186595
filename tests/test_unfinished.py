"""The bytes of uploads under way: one writer each, nothing behind what was flushed, and blobs that stay as they are."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filestored.digest import Algorithm, Digest
from filestored.errors import is_full
from filestored.staging import Staged, Staging
from filestored.unfinished import UnfinishedFile, UnfinishedFolder
from tests.conftest import EVERYTHING

ID = "0123456789abcdef" * 2
OTHER_ID = "f" * 32
NOBODY = 65534


class Place:
    """A folder of uploads under way, and the staging folder beside it."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.uploads = root / "uploads"
        self.uploads.mkdir()
        self.staging = staging
        self.handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        self.threads = ThreadPoolExecutor(1)
        self.area = Staging(self.handle, Algorithm.SHA256, self.threads, durable=True)
        self.folders: list[UnfinishedFolder] = []

    def open(self) -> UnfinishedFolder:
        """Return the folder as one more worker has it."""
        self.folders.append(UnfinishedFolder(self.uploads, self.area))
        return self.folders[-1]

    def close(self) -> None:
        """Let go of all."""
        for folder in self.folders:
            folder.close()
        self.threads.shutdown()
        os.close(self.handle)

    def bytes(self, upload_id: str = ID) -> bytes:
        """Return what lies under the name of an upload."""
        return (self.uploads / upload_id).read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "tmp").mkdir()
    place = Place(tmp_path, tmp_path / "tmp")
    yield place
    place.close()


@pytest.fixture
def folder(place: Place) -> UnfinishedFolder:
    return place.open()


def taken(folder: UnfinishedFolder, upload_id: str = ID) -> UnfinishedFile:
    file = folder.take(upload_id, is_new=True)
    assert file is not None
    return file


def lay(folder: UnfinishedFolder, body: bytes, upload_id: str = ID) -> None:
    """Leave the bytes of an upload in the folder."""
    with contextlib.closing(taken(folder, upload_id)) as file:
        file.append(body)


def stage(file: UnfinishedFile, body: bytes) -> Staged:
    return file.stage(Digest(Algorithm.SHA256.new(body).hexdigest()), {"md5": Algorithm.MD5.new(body).digest()})


# one writer


def test_an_upload_has_one_writer_also_among_workers(place: Place) -> None:
    here, elsewhere = place.open(), place.open()
    file = taken(here)
    assert (here.take(ID, is_new=True), elsewhere.take(ID, is_new=True)) == (None, None)
    assert here.is_taken(ID)
    assert elsewhere.is_taken(ID)
    other = taken(elsewhere, OTHER_ID)
    file.close()
    assert not elsewhere.is_taken(ID)
    taken(elsewhere).close()
    other.close()


def test_a_writer_that_was_killed_has_the_upload_no_more(place: Place) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor; "
        "from filestored.digest import Algorithm; from filestored.staging import Staging; "
        "from filestored.unfinished import UnfinishedFolder; area = Staging(-1, Algorithm.SHA256, None, durable=True); "
        "file = UnfinishedFolder(Path(sys.argv[1]), area).take(sys.argv[2], is_new=True); file.append(b'12345'); "
        "print('taken', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(place.uploads), ID]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "taken\n"
        folder = place.open()
        assert folder.take(ID, is_new=True) is None
        writer.send_signal(signal.SIGKILL)
    with contextlib.closing(taken(folder)) as file:
        assert file.read(0, 100) == b"12345"


def test_writers_that_fight_have_an_upload_one_after_the_other(place: Place) -> None:
    alone = threading.Lock()
    turns = []

    def fight(number: int) -> None:
        folder = place.open()
        for turn in range(300):
            file = folder.take(ID, is_new=True)
            if file is None:
                continue
            assert alone.acquire(blocking=False)
            file.cut(0)
            file.append(b"%d" % number * 10)
            assert file.read(0, 100) == b"%d" % number * 10
            assert place.bytes() == b"%d" % number * 10
            turns.append(number)
            alone.release()
            if turn % 3 == 0:
                # whoever has opened it already must not go on with what has no name any more
                folder.remove(ID)
            file.close()

    with ThreadPoolExecutor(4) as threads:
        for job in [threads.submit(fight, number) for number in range(4)]:
            job.result(60)
    assert len(set(turns)) > 1


def test_asking_who_writes_makes_no_file(place: Place, folder: UnfinishedFolder) -> None:
    assert not folder.is_taken(ID)
    assert folder.has(ID, 0)
    assert not folder.has(ID, 1)
    with pytest.raises(FileNotFoundError):
        folder.take(ID)
    assert folder.remove(ID) == 0
    assert folder.names() == []


# bytes


def test_what_is_new_is_empty_and_for_nobody_else_to_read(place: Place, folder: UnfinishedFolder) -> None:
    with contextlib.closing(taken(folder)) as file:
        assert (file.written, file.read(0, 10)) == (0, b"")
        assert (place.uploads / ID).stat().st_mode & 0o777 == 0o600
        assert folder.names() == [ID]


def test_bytes_go_on_from_where_they_were_cut(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"0123456789")
    with contextlib.closing(taken(folder)) as file:
        assert file.cut(4)
        assert (file.written, place.bytes()) == (4, b"0123")
        file.append(b"ab")
        file.append(memoryview(b"cd"))
        file.start_flush()
        file.flush()
        assert (file.written, place.bytes()) == (8, b"0123abcd")
        assert (file.read(2, 4), file.read(6, 100), file.read(8, 100)) == (b"23ab", b"cd", b"")
        # reading has not moved what comes next
        file.append(b"!")
    assert place.bytes() == b"0123abcd!"


def test_bytes_that_are_not_there_are_not_made_up(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"0123")
    with contextlib.closing(taken(folder)) as file:
        assert not file.cut(5)
        assert place.bytes() == b"0123"
        assert file.cut(4)
    with contextlib.closing(taken(folder, OTHER_ID)) as file:
        assert not file.cut(1)


def test_what_a_full_disk_still_took_is_counted(place: Place, folder: UnfinishedFolder) -> None:
    body = os.urandom(200_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(taken(folder)) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OSError) as caught:  # noqa: PT011
                file.append(body)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert is_full(caught.value)
        assert (file.written, place.bytes()) == (100_000, body[:100_000])
        file.append(body[100_000:])
    assert place.bytes() == body


def test_removing_tells_how_much_is_gone_and_leaves_the_rest(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"12345")
    lay(folder, b"123", OTHER_ID)
    assert sorted(folder.names()) == sorted([ID, OTHER_ID])
    assert (folder.remove(ID), folder.remove(ID)) == (5, 0)
    assert folder.names() == [OTHER_ID]


def test_the_bytes_of_a_part_are_read_by_who_holds_it(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"part")
    assert folder.has(ID, 4)
    assert not folder.has(ID, 5)
    file = folder.take(ID)
    assert file is not None
    with contextlib.closing(file):
        folder.remove(ID)
        assert (file.read(0, 3), file.read(3, 10), file.read(4, 10)) == (b"par", b"t", b"")


def test_what_lies_behind_the_offset_is_cut_off_where_nobody_writes(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"1234567")
    with contextlib.closing(taken(folder)):
        folder.cut_rest(ID, lambda _: 2)
        assert place.bytes() == b"1234567"
    folder.cut_rest(ID, lambda _: 4)
    assert place.bytes() == b"1234"
    folder.cut_rest(OTHER_ID, lambda _: 0)
    (place.staging / "blob").hardlink_to(place.uploads / ID)
    folder.cut_rest(ID, lambda _: 1)
    assert place.bytes() == b"1234"


def test_the_offset_is_asked_for_when_nobody_can_change_it(place: Place, folder: UnfinishedFolder) -> None:
    lay(folder, b"12345")
    folder.cut_rest(ID, lambda upload_id: 3 if place.open().take(upload_id) is None else 0)
    assert place.bytes() == b"123"


# what is whole


def test_what_is_staged_costs_no_copy_and_stays_until_it_is_removed(place: Place, folder: UnfinishedFolder) -> None:
    with contextlib.closing(taken(folder)) as file:
        file.append(b"whole")
        os.utime(place.uploads / ID, (1, 1))
        with stage(file, b"whole") as staged:
            path = place.staging / staged.name_in(place.handle)
            assert path.samefile(place.uploads / ID)
            assert path.stat().st_mode & 0o777 == 0o444
            # or it would be taken for what a crash has left behind
            assert path.stat().st_mtime > 1_000_000_000
            assert (staged.size, staged.digest) == (5, Algorithm.SHA256.new(b"whole").hexdigest())
            assert staged.others == {"md5": Algorithm.MD5.new(b"whole").digest()}
        assert list(place.staging.iterdir()) == []
    assert place.bytes() == b"whole"


def publish(place: Place, file: UnfinishedFile, body: bytes) -> Path:
    """Do what the blob store does with what is staged."""
    blob = place.staging / "blob"
    with stage(file, body) as staged:
        os.rename(place.staging / staged.name_in(place.handle), blob)
        staged.is_published()
    return blob


@pytest.mark.parametrize("leftover", [False, True])
def test_a_blob_does_not_change_with_an_upload_that_a_crash_left_with_the_same_bytes(
    place: Place, folder: UnfinishedFolder, leftover: bool
) -> None:
    with contextlib.closing(taken(folder)) as file:
        file.append(b"0123456789")
        blob = publish(place, file, b"0123456789")
        assert blob.samefile(place.uploads / ID)
    if leftover:
        (place.uploads / f"{ID}.copy").write_bytes(b"of a crash while it was copied, which was longer")
    with contextlib.closing(taken(folder)) as file:
        assert file.cut(10)
        file.cut(3)
        file.append(b"xyz")
        assert place.bytes() == b"012xyz"
        assert (place.uploads / ID).stat().st_mode & 0o777 == 0o600
        # the copy is locked as what it is a copy of was
        assert place.open().take(ID, is_new=True) is None
    assert blob.read_bytes() == b"0123456789"
    assert blob.stat().st_mode & 0o777 == 0o444
    assert folder.names() == [ID]


@contextlib.contextmanager
def unprivileged(*paths: Path) -> Iterator[None]:
    """Be somebody whom the modes of files hold, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_upload_that_could_not_be_published_can_be_written_to_again(place: Place, folder: UnfinishedFolder) -> None:
    with unprivileged(place.uploads, place.staging):
        with contextlib.closing(taken(folder)) as file:
            file.append(b"whole")
            with stage(file, b"whole"):
                pass
        with contextlib.closing(taken(folder)) as file:
            assert file.cut(5)
            file.append(b"!")
            with stage(file, b"whole!") as staged:
                assert staged.size == 6
    assert place.bytes() == b"whole!"


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder to which nothing in the temporary folder can be linked."""
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            if Path(name).stat().st_dev != tmp_path.stat().st_dev:
                yield Path(name)
                return
    except FileNotFoundError:
        pass
    assert not EVERYTHING, "there is no second file system"
    pytest.skip("there is no second file system")


def test_where_there_can_be_no_link_the_bytes_are_copied(tmp_path: Path, other_file_system: Path) -> None:
    body = os.urandom(3_000_001)
    with contextlib.closing(Place(tmp_path, other_file_system)) as place:
        with contextlib.closing(taken(place.open())) as file:
            file.append(body)
            with stage(file, body) as staged:
                path = other_file_system / staged.name_in(place.handle)
                assert path.read_bytes() == body
                assert path.stat().st_mode & 0o777 == 0o444
                assert (staged.size, staged.is_flushed) == (len(body), True)
            assert list(other_file_system.iterdir()) == []
            blob = publish(place, file, body)
        # the upload is alone with its bytes: it goes on with these, not with a copy
        before = (place.uploads / ID).stat().st_ino
        with contextlib.closing(taken(place.open())) as file:
            assert (place.uploads / ID).stat().st_ino == before
            file.cut(0)
    assert blob.read_bytes() == body


# what does not belong there


def test_nothing_leads_out_of_the_folder(place: Place, folder: UnfinishedFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"another's")
    (place.uploads / ID).symlink_to(outside)
    (place.uploads / OTHER_ID).mkdir()
    for upload_id in (ID, OTHER_ID):
        with pytest.raises(OSError, match=r"\[Errno"):
            folder.take(upload_id, is_new=True)
    assert folder.remove(ID) == len(str(outside))
    assert outside.read_bytes() == b"another's"
    (tmp_path / "link").symlink_to(place.uploads)
    with pytest.raises(OSError, match=r"\[Errno"):
        UnfinishedFolder(tmp_path / "link", place.area)


def test_what_is_no_file_is_never_written_to(place: Place, folder: UnfinishedFolder) -> None:
    os.mkfifo(place.uploads / ID)
    assert folder.take(ID, is_new=True) is None
