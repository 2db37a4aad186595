"""What the catalogue keeps."""

from dataclasses import dataclass

from filestored.digest import Digest


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file: what an owner keeps under a digest.

    ``size`` in bytes; ``created_at`` and ``expires_at`` in milliseconds since 1970 (UTC); ``expires_at`` None
    means for ever; ``name`` None means that nobody gave one.
    """

    digest: Digest
    owner: str
    name: str | None
    media_type: str
    size: int
    created_at: int
    expires_at: int | None

    def is_live(self, now: int) -> bool:
        """Tell whether the file is still to be had at ``now`` (milliseconds since 1970)."""
        return self.expires_at is None or now < self.expires_at
