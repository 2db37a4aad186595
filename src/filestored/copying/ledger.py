"""What has been copied from one store to another, so that what goes at the source can be told from what never came.

An SQLite file of its own. Losing it costs only that: deletions before are not noticed, and tokens revoked
at the target come back.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from filestored.catalogue.records import now_milliseconds
from filestored.copying.entries import Entry
from filestored.digest import Digest
from filestored.errors import StartError

_TABLES = """
CREATE TABLE IF NOT EXISTS copied(digest TEXT, owner TEXT, hash TEXT, expires_at INTEGER, run INTEGER,
                                  PRIMARY KEY(digest, owner)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens(id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


class Ledger:
    """The ledger of one pair of stores, open and locked for one run. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or begin it. Raises StartError where another copy is using it, or it cannot be written."""
        self._path = path
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                opened.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._rows = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
                opened.callback(self._rows.close)
                self._rows.execute("PRAGMA journal_mode=WAL")
                # what a power cut takes is found to be there by the next run, and noted again
                self._rows.execute("PRAGMA synchronous=NORMAL")
                self._rows.executescript(_TABLES)
            except BlockingIOError:
                raise StartError("another copy between these stores is running") from None
            except (OSError, sqlite3.Error) as error:
                raise StartError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
            self._run = int(self.note("run") or 0) + 1
            self.set_note("run", str(self._run))
            self._opened = opened.pop_all()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._explained():
            return self._rows.execute(statement, values)

    def _add_all(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self._explained():
            self._rows.executemany(statement, rows)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise StartError where it cannot be read or written any more."""
        try:
            yield
        except sqlite3.Error as error:
            raise StartError(f"what was noted of the copy ({self._path}) cannot be used: {error}") from error

    def note(self, name: str) -> str | None:
        """Return what is noted under a name."""
        row = self._execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, value: str) -> None:
        """Note something."""
        self._execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    # files

    def add(self, entry: Entry, hash_: str, *, by_owner: bool) -> None:
        """Note that an entry is at the target, under a hash; ``by_owner`` where each owner's file is one there too."""
        expiries = {file.owner: file.expires_at for file in entry.files} if by_owner and entry.files else {"": None}
        rows = [(entry.digest, owner, hash_, expires_at, self._run) for owner, expires_at in expiries.items()]
        self._add_all("INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?, ?)", rows)

    def hash_of(self, digest: Digest) -> str | None:
        """Return the hash that a blob has at the target, None where it was not copied."""
        row = self._execute("SELECT hash FROM copied WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else str(row[0])

    def meet(self, digest: str) -> None:
        """Note that a blob is at the source still, though it cannot be copied."""
        self._execute("UPDATE copied SET run = ? WHERE digest = ?", (self._run, digest))

    def not_met(self) -> Iterator[tuple[Digest, str, str]]:
        """Give digest, owner and hash of what was copied earlier and not met this time, but for what has expired."""
        self._execute("DELETE FROM copied WHERE run < ? AND expires_at <= ?", (self._run, now_milliseconds()))
        rows = self._execute("SELECT digest, owner, hash FROM copied WHERE run < ?", (self._run,))
        for digest, owner, hash_ in rows.fetchall():
            yield Digest(digest), owner, hash_

    # tokens

    def tokens(self) -> dict[str, str]:
        """Return the tokens that were copied: their names by their ids."""
        return dict(self._execute("SELECT id, name FROM tokens").fetchall())

    def add_token(self, token_id: str, name: str) -> None:
        """Note that a token was copied."""
        self._execute("INSERT OR REPLACE INTO tokens VALUES (?, ?)", (token_id, name))
