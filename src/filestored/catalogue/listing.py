"""Pages of a listing: keyset pages, whose cost does not grow with the store.

A page walks along an index from where the last one ended and looks at no more than :data:`MAX_SCANNED` files, so that
a filter few files match costs a page no more than another: such a page is short, or empty, and the next goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from filestored.catalogue import statements
from filestored.catalogue.database import Row, Session
from filestored.catalogue.records import FileRecord, folded
from filestored.catalogue.tables import files

MAX_SCANNED = 5000
"""How many files one page looks at, at most."""

# sorts behind every name that begins with what stands before it, but for some that nobody gives
_LAST = "\U0010ffff" * 2
_WIDTH = len(statements.RECORD)


class Sort(StrEnum):
    """What a listing is sorted by; a minus in front turns the order round."""

    CREATED_AT = "created_at"
    CREATED_AT_DESCENDING = "-created_at"
    NAME = "name"
    NAME_DESCENDING = "-name"
    SIZE = "size"
    SIZE_DESCENDING = "-size"

    @property
    def is_descending(self) -> bool:
        """Whether the largest comes first."""
        return self.value.startswith("-")

    @property
    def is_by_name(self) -> bool:
        """Whether places in this order are names, not numbers."""
        return self.value.endswith("name")


class Place(NamedTuple):
    """Where a file stands in an order: the value it is sorted by, and its number among equal ones."""

    key: str | int
    id: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a name or media type is to begin with; ``*`` stands for anything. Case does not count."""

    prefix: str
    rest: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read a pattern; every text is one."""
        prefix, *rest = folded(text).split("*")
        return cls(prefix, tuple(part for part in rest if part))

    def matches(self, text: str) -> bool:
        """Tell whether a folded text begins as the pattern says."""
        if not text.startswith(self.prefix):
            return False
        position = len(self.prefix)
        for part in self.rest:
            found = text.find(part, position)
            if found < 0:
                return False
            position = found + len(part)
        return True


@dataclass(frozen=True, slots=True)
class Query:
    """Which files a page is to show, and in what order; ``after`` None for the first page."""

    limit: int
    sort: Sort = Sort.CREATED_AT_DESCENDING
    after: Place | None = None
    name: Pattern | None = None
    media_type: Pattern | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some files in order; ``end`` is where the next page goes on, None where nothing follows."""

    files: list[FileRecord]
    end: Place | None


_COLUMNS = {"created_at": files.c.created_at, "name": files.c.folded_name, "size": files.c.size}
_WALKS = {
    (sort, of_all): statements.walk(_COLUMNS[sort.value.lstrip("-")], descending=sort.is_descending, of_all=of_all)
    for sort in Sort
    for of_all in (False, True)
}


def read_page(session: Session, query: Query, owner: str | None, now: int) -> Page:
    """Read a page of an owner's files, of all owners' where it is None; what has expired at ``now`` is left out."""
    rows = _walk(session, query, owner)
    found: list[FileRecord] = []
    end = None
    for scanned, row in enumerate(rows):
        if len(found) == query.limit or scanned == MAX_SCANNED:
            return Page(found, end)
        end = _place(row)
        if _is_past_prefix(query, end):
            return Page(found, None)
        file = FileRecord(*row[:_WIDTH])
        if file.is_live(now) and _matches(query, file):
            found.append(file)
    return Page(found, None)


def _walk(session: Session, query: Query, owner: str | None) -> Iterator[Row]:
    """Yield rows in order. They are read some at a time: at first what a page needs, then more and more."""
    after = query.after or _before_prefix(query)
    count, left = query.limit + 1, MAX_SCANNED + 1
    while left > 0:
        wanted = min(count, left)
        rows = _read(session, query.sort, owner, after, wanted)
        yield from rows
        if len(rows) < wanted:
            return
        after = _place(rows[-1])
        count, left = count * 2, left - wanted


def _read(session: Session, sort: Sort, owner: str | None, after: Place | None, count: int) -> list[Row]:
    """Return the next rows behind a place."""
    beginning, alike, beyond = _WALKS[sort, owner is None]
    whose = {} if owner is None else {"owner": owner}
    if after is None:
        return session.all(beginning, **whose, count=count)
    rows = session.all(alike, **whose, key=after.key, id=after.id, count=count)
    if len(rows) < count:
        rows += session.all(beyond, **whose, key=after.key, count=count - len(rows))
    return rows


def _before_prefix(query: Query) -> Place | None:
    """Return where the names with the wanted beginning start, in an order by name."""
    if not query.sort.is_by_name or query.name is None or not query.name.prefix:
        return None
    return Place(query.name.prefix + _LAST, 0) if query.sort.is_descending else Place(query.name.prefix, -1)


def _is_past_prefix(query: Query, place: Place) -> bool:
    """Tell whether all names with the wanted beginning lie behind, in an order by name."""
    if not query.sort.is_by_name or query.name is None or not isinstance(place.key, str):
        return False
    prefix = query.name.prefix
    head = place.key[: len(prefix)]
    return head < prefix if query.sort.is_descending else head > prefix


def _place(row: Row) -> Place:
    return Place(row[_WIDTH], row[_WIDTH + 1])


def _matches(query: Query, file: FileRecord) -> bool:
    if query.name is not None and not query.name.matches(folded(file.name)):
        return False
    return query.media_type is None or query.media_type.matches(folded(file.media_type))
