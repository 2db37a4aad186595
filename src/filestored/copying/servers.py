"""A server as a side of a copy: what HTTP tells and takes, through the client."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filestored.access import ANONYMOUS, is_token_name
from filestored.api.names import clean_name, parse_media_type
from filestored.catalogue.records import NOBODY, UNKNOWN_TYPE, FileRecord, now_milliseconds
from filestored.client import Client, File, NotStored
from filestored.client import Damaged as DamagedDownload
from filestored.client.blocking import Stream
from filestored.copying.entries import (
    CopyFault,
    Entry,
    Gone,
    Origin,
    Pieces,
    Proof,
    Taken,
    Trouble,
    all_algorithms,
    prove,
)
from filestored.copying.ledger import Ledger
from filestored.digest import Digest, parse_digest
from filestored.errors import BadRequest
from filestored.importing.source import milliseconds, within_bounds
from filestored.importing.underway import UnderWay


class ServerOrigin:
    """The files that a server lists: the token's own, with ``admin`` everybody's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.algorithms = [client.algorithm()]
        self.sees_all = "admin" in client.caller().permissions

    def __iter__(self) -> Iterator[Entry | Trouble]:
        """Give all files, the oldest first: what is uploaded meanwhile comes at the end."""
        for file in self._client.list(sort="created_at"):
            yield self._judge(file)

    def _judge(self, file: File) -> Entry | Trouble:
        """Take nothing for granted of what a server says: it becomes names on a disk, and rows."""
        digest = parse_digest(file.hash)
        owner = file.owner or NOBODY
        if digest is None or not (owner in (NOBODY, ANONYMOUS) or is_token_name(owner)):
            return Trouble(file.hash[:128], "failed", "what the server says of it makes no sense")
        created_at = within_bounds(milliseconds(file.created_at))
        expires_at = None if file.expires_at is None else milliseconds(file.expires_at)
        record = FileRecord(
            digest, owner, clean_name(file.name or ""), _media_type(file.type), file.size, created_at, expires_at
        )
        # what a server says of an algorithm is a guess where it has had several with hashes of that length
        return Entry(digest, all_algorithms(digest), file.size, (record,))

    def open(self, entry: Entry) -> Pieces:
        """See Origin."""
        try:
            return StreamPieces(self._client.stream(entry.digest))
        except NotStored:
            raise Gone(f"{entry.digest} was deleted meanwhile") from None

    def path_of(self, entry: Entry) -> Path | None:
        """See Origin."""
        return None

    def has(self, digest: Digest, owner: str) -> bool:
        """See Origin. What another owner keeps, the listing has shown."""
        try:
            found = self._client.info(digest).owner or NOBODY
        except NotStored:
            return False
        return owner in (NOBODY, found)


class StreamPieces:
    """A download under way."""

    def __init__(self, opening: AbstractContextManager[Stream]) -> None:
        self._opening = opening
        self._stream = opening.__enter__()

    def __iter__(self) -> Iterator[bytes]:
        # the client judges by the algorithm that the server names; who has the pieces proves them by every possible one
        with suppress(DamagedDownload):
            yield from self._stream

    def close(self) -> None:
        """See Pieces."""
        self._opening.__exit__(None, None, None)


class ServerDestination:
    """A server that takes uploads. Every file becomes the token's own."""

    is_folder = False

    def __init__(self, client: Client, ledger: Ledger, under_way: UnderWay, read: Callable[[int], None]) -> None:
        """``read`` is told how many bytes were read."""
        self._client = client
        self._ledger = ledger
        self._under_way = under_way
        self._read = read
        self.algorithm = client.algorithm()

    async def settled(self, entries: Sequence[Entry]) -> set[Entry]:
        """See Destination."""
        hashes = {entry: self._hash_there(entry) for entry in entries}
        asked = {hash_ for hash_ in hashes.values() if hash_ is not None}
        missing = await self._under_way.read(self._client.missing, asked) if asked else set()
        return {entry for entry, hash_ in hashes.items() if hash_ is not None and hash_ not in missing}

    def _hash_there(self, entry: Entry) -> str | None:
        """Return the hash that a blob has at the server, as far as that is known."""
        known = self._ledger.hash_of(entry.digest)
        return known or (entry.digest if self.algorithm in entry.algorithms else None)

    async def take(self, entry: Entry, origin: Origin) -> Taken:
        """See Destination."""
        return await self._under_way.read(self._take, entry, origin)

    def _take(self, entry: Entry, origin: Origin) -> Taken:
        pieces = origin.open(entry)
        try:
            file = self._put(entry, origin.path_of(entry), pieces)
        finally:
            pieces.close()
        return Taken(file.hash, was_sent=file.is_new)

    def _put(self, entry: Entry, path: Path | None, pieces: Pieces) -> File:
        """Upload a blob under what is said of it. A file is read twice: it is proved before any of it is sent."""
        life = _seconds_left(entry)
        file = entry.files[0] if entry.files else None
        # an empty name keeps that of the path from being taken
        name = (file.name if file else None) or ""
        media_type = file.media_type if file else UNKNOWN_TYPE
        if path is None:
            expected = entry.digest if entry.algorithms == (self.algorithm,) else None
            proving = Proof(entry, pieces, self._read)
            return self._client.put(iter(proving), name=name, type=media_type, expires_in=life, hash=expected)
        expected = entry.digest if prove(entry, pieces, self._read) == self.algorithm else None
        return self._client.put(path, name=name, type=media_type, expires_in=life, hash=expected)

    async def verify(self, entry: Entry) -> bool | None:
        """See Destination. What is damaged at a server is for its own scrub to take away."""
        hash_ = self._hash_there(entry)
        return None if hash_ is None else await self._under_way.read(self._verify, hash_)

    def _verify(self, hash_: str) -> bool | None:
        try:
            with self._client.stream(hash_) as stream:
                for piece in stream:
                    self._read(len(piece))
        except NotStored:
            return None
        except DamagedDownload as error:
            raise CopyFault("damaged", f"at the target: {error}") from None
        return True


def _seconds_left(entry: Entry) -> float | None:
    """Return how long whoever keeps a blob longest still does; None for ever. Raises Gone where it is over."""
    ends = [file.expires_at for file in entry.files]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends) or not ends:
        return None
    left = (max(known) - now_milliseconds()) / 1000
    if left <= 0:
        raise Gone(f"{entry.digest} has expired meanwhile")
    return left


def _media_type(text: str) -> str:
    try:
        return parse_media_type(text)
    except BadRequest:
        return UNKNOWN_TYPE
