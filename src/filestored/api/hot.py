"""A bounded memory of the files asked for lately."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

MAX_BYTES = 64 << 20
MAX_FILES = 4096


class Remembered(Protocol):
    """What can be kept."""

    @property
    def cost(self) -> int:
        """Bytes of memory it takes up."""


T = TypeVar("T", bound=Remembered)


class HotFiles(Generic[T]):
    """The files used last, at most 64 MiB and 4096 of them.

    Each may hold its blob open; whoever uses one asks first whether it still is what is stored.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._files: OrderedDict[str, T] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: str) -> T | None:
        """Return a remembered file, now the one used last."""
        file = self._files.get(key)
        if file is not None:
            self._files.move_to_end(key)
        return file

    def keep(self, key: str, file: T) -> None:
        """Remember a file; forget those not used for longest where there is no room."""
        self.drop(key)
        self._files[key] = file
        self._bytes += file.cost
        while self._bytes > self._max_bytes or len(self._files) > self._max_files:
            _, oldest = self._files.popitem(last=False)
            self._bytes -= oldest.cost

    def drop(self, key: str) -> None:
        """Forget a file."""
        file = self._files.pop(key, None)
        if file is not None:
            self._bytes -= file.cost

    def items(self) -> list[tuple[str, T]]:
        """Return what is remembered, the longest unused first."""
        return list(self._files.items())
