"""How far scrubbing has come, as the catalogue notes it: for the next scrub to go on from, and for the metrics."""

import json
import time
from dataclasses import asdict, dataclass, fields

from filestored.digest import parse_digest

NOTE = "scrub"
"""The name of the catalogue's note that holds a :class:`Pass`, as JSON."""


@dataclass(slots=True)
class Pass:
    """One pass over a store, as far as it has come; times are Unix seconds.

    ``verified_blobs`` were found to be what their names say. ``position`` is the last digest that was dealt with, ""
    where nothing was, or the pass is finished. ``finished_at`` is when a pass over the store ended last, this or one
    before, and ``last_damaged`` and ``last_missing`` what the one before this has found.
    """

    verified_blobs: int = 0
    verified_bytes: int = 0
    damaged: int = 0
    missing: int = 0
    position: str = ""
    started_at: float = 0
    finished_at: float | None = None
    last_damaged: int = 0
    last_missing: int = 0

    @classmethod
    def read(cls, note: str | None) -> "Pass":
        """Return the pass that is noted; what the note does not say, or says wrongly, counts as nothing."""
        try:
            values = json.loads(note or "{}")
        except ValueError:
            values = {}
        found = cls()
        for field in fields(cls):
            value = values.get(field.name) if isinstance(values, dict) else None
            if isinstance(value, str if field.name == "position" else int | float) and not isinstance(value, bool):
                setattr(found, field.name, value)
        return found

    @classmethod
    def recall(cls, note: str | None, *, restart: bool) -> "Pass":
        """Return the pass that was interrupted, or else, as with ``restart``, a new one that begins now."""
        noted = cls.read(note)
        if parse_digest(noted.position) and not restart:
            return noted
        now = round(time.time(), 3)
        return cls(
            started_at=now,
            # before this one, by which it is told from a finished one; also where the clock was ahead then
            finished_at=None if noted.finished_at is None else min(noted.finished_at, now - 0.001),
            last_damaged=noted.found_damaged,
            last_missing=noted.found_missing,
        )

    @property
    def is_finished(self) -> bool:
        """Whether it has come to the end of the store."""
        return not self.position and self.finished_at is not None and self.finished_at >= self.started_at

    @property
    def found_damaged(self) -> int:
        """How many blobs are known to be damaged: while a pass runs, at least what the one before has found."""
        return self.damaged if self.is_finished else max(self.damaged, self.last_damaged)

    @property
    def found_missing(self) -> int:
        """How many blobs are known to be missing: while a pass runs, at least what the one before has found."""
        return self.missing if self.is_finished else max(self.missing, self.last_missing)

    def finish(self) -> None:
        """Note that it has come to the end."""
        self.position, self.finished_at = "", max(round(time.time(), 3), self.started_at)

    def noted(self) -> str:
        """Return it as a note."""
        return json.dumps(asdict(self))
