"""Comparing what arrives with the hash that names it."""

import queue
import threading

from filestored.client.steps import Answer
from filestored.digest import Algorithm, Digest, Hash

_WAITING_PIECES = 16
_WITH_THREAD = 64 * 1024


class Verifier:
    """Hashes what arrives and compares it with its name in the end; large pieces in a thread of its own."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._algorithms = [next(each for each in Algorithm if each.hex_length == len(digest))]
        self._hashes: list[Hash] = []
        self._may_be_other = False
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_WAITING_PIECES)
        self._thread: threading.Thread | None = None
        self.begin()

    def expect(self, answer: Answer) -> bool:
        """Learn from the first answer which function made the name: one with SHA-256 says so (RFC 9530).

        Where none is named SHA-256 and BLAKE3 are both worked out. Returns whether that has all to be taken in anew.
        """
        said = answer.headers.get("repr-digest", "")
        if self._algorithms != [Algorithm.SHA256] or said.startswith("sha-256="):
            return False
        self._may_be_other = not Algorithm.BLAKE3.is_available
        if self._may_be_other:
            return False
        self._algorithms = [Algorithm.SHA256, Algorithm.BLAKE3]
        self.begin()
        return True

    def begin(self) -> None:
        """Forget what was taken in."""
        self.stop()
        self._hashes = [algorithm.new() for algorithm in self._algorithms]

    def update(self, piece: bytes) -> None:
        """Take the next bytes in."""
        if self._thread is None and len(piece) >= _WITH_THREAD:
            self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
            self._thread.start()
        if self._thread is None:
            self._take(piece)
        else:
            self._waiting.put(piece)

    def is_right(self) -> bool:
        """Tell whether all that came is what the name says."""
        self.stop()
        is_right = any(hashed.hexdigest() == self._digest for hashed in self._hashes)
        if not is_right and self._may_be_other:
            # says what is missing
            Algorithm.BLAKE3.new()
        return is_right

    def stop(self) -> None:
        """Wait for what is under way and end the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (piece := self._waiting.get()) is not None:
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        for hashed in self._hashes:
            hashed.update(piece)
