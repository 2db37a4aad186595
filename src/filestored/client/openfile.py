"""A file of the fsspec file system that is open: ranges read ahead, or bytes gathered until they are stored."""

import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from fsspec.spec import AbstractBufferedFile

if TYPE_CHECKING:
    from filestored.client.filesystem import FilestoredFileSystem

_IN_MEMORY = 8 << 20


class OpenFile(AbstractBufferedFile):
    """A file open for reading at any place, or for writing from its start.

    What is written is kept aside and sent when the file is closed, under the hash in its path: bytes with another hash
    are a ValueError then, and nothing is stored. So a write that an exception ends stores nothing.
    """

    fs: "FilestoredFileSystem"

    def __init__(self, fs: "FilestoredFileSystem", path: str, mode: str, block_size: int, **options: Any) -> None:
        if mode == "ab":
            raise ValueError("what is stored does not change: a file cannot be appended to")
        self._gathered: BinaryIO | None = None
        super().__init__(fs, path, mode, block_size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        # all of it can be compared with its hash
        whole = start == 0 and end >= self.size
        return self.fs.cat_file(self.path) if whole else self.fs.cat_file(self.path, start, end)

    def _initiate_upload(self) -> None:
        self._gathered = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._gathered is not None
        self._gathered.write(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Store what was written. Raises ValueError where its hash is not that of the path."""
        gathered = self._gathered
        if gathered is None:
            return
        try:
            gathered.seek(0)
            self.fs.store(gathered, self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget what was written."""
        if self._gathered is not None:
            self._gathered.close()
            self._gathered = None
