"""What is said of a blob is not believed: neither its hash nor its size."""

import itertools
from collections.abc import Iterable, Iterator

import pytest

from filestored.copying.entries import CopyFault, Entry, Proof, all_algorithms
from filestored.digest import Algorithm, Digest
from tests.bad_days.consistency import sha256


class Given:
    """The pieces that a server sends."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        """See Pieces."""


def proof(body: bytes, said: int, pieces: Iterable[bytes]) -> Proof:
    """Return the proof of a blob of which something is said."""
    digest = Digest(sha256(body))
    return Proof(Entry(digest, all_algorithms(digest), said, ()), Given(pieces), lambda count: None)


def test_the_right_bytes_come_through_and_tell_what_names_them() -> None:
    proved = proof(b"abc", 3, [b"a", b"bc"])
    assert b"".join(proved) == b"abc"
    assert proved.algorithm == Algorithm.SHA256


@pytest.mark.parametrize(
    ("said", "pieces", "reason"),
    [
        (999_999, [b"abc"], "it has 3 bytes instead of 999999"),
        (2, [b"a", b"bc"], "it has more than its 2 bytes"),
        (3, [b"abd"], "its 3 bytes have the hash"),
        (3, [], "its 0 bytes have the hash"),
    ],
)
def test_a_wrong_size_or_hash_is_a_fault(said: int, pieces: list[bytes], reason: str) -> None:
    with pytest.raises(CopyFault, match=reason):
        b"".join(proof(b"abc", said, pieces))


def test_bytes_without_end_are_not_gathered() -> None:
    given = proof(b"abc", 5, itertools.repeat(b"xx"))
    taken: list[bytes] = []
    with pytest.raises(CopyFault):
        taken.extend(given)
    assert len(b"".join(taken)) <= 5
