"""What an upload says besides its bytes, and what follows from it."""

import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from filestored.client.calls import address
from filestored.client.errors import ClientError, Damaged, shown
from filestored.quantities import parse_duration

_UNKNOWN = "application/octet-stream"
_TYPE = re.compile(r"[!-~]+/[ -~]*[!-~]", re.ASCII)

Life = str | float | timedelta
"""How long a file is kept: seconds, a text like ``90m``, or a timedelta."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an upload says besides its bytes; ``hash`` is the expected one. Raises ClientError where it cannot be said.

    With ``skip`` what the caller keeps already is not sent.
    """

    name: str | None = None
    type: str | None = None
    expires_in: Life | None = None
    hash: str | None = None
    skip: bool = True

    def __post_init__(self) -> None:
        try:
            (self.name or "").encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ClientError(f"the name {self.name!a} cannot be written as UTF-8") from None
        if self.type is not None and not _TYPE.fullmatch(self.type):
            raise ClientError(f"{ascii(self.type)[:200]} is no media type: give one like text/plain")
        self.life()
        self.expected()

    def life(self) -> str | None:
        """Return the life as the server reads it. Raises ClientError where it is none."""
        if self.expires_in is None:
            return None
        life = self.expires_in.total_seconds() if isinstance(self.expires_in, timedelta) else self.expires_in
        try:
            spelled = life if isinstance(life, str) else f"{life:.3f}"
            parse_duration(spelled)
        except (ValueError, TypeError) as error:
            raise ClientError(f"expires_in {self.expires_in!r}: {error}") from None
        return spelled

    def end(self) -> datetime | None:
        """Return when the file is to end, were it stored now; None for never."""
        life = self.life()
        return None if life is None else datetime.now(UTC) + timedelta(seconds=parse_duration(life))

    def expected(self) -> str | None:
        """Return the expected hash in lower case. Raises NotStored where it could be none."""
        return None if self.hash is None else address(self.hash)

    def can_skip(self, digest: str) -> bool:
        """Tell whether a digest says enough: a hash by another function is compared by the server alone."""
        return self.skip and (self.hash is None or len(self.hash) == len(digest))

    def require_expected(self, digest: str) -> None:
        """Raise Damaged where a digest by the same function is not the one that is expected."""
        expected = self.expected()
        if expected is not None and len(expected) == len(digest) and expected != digest:
            what = shown(self.name or "the content")
            raise Damaged(f"{what} has the hash {digest}, not {expected}; nothing is stored")

    def media_type(self) -> str:
        """Return the type that is given, else the one that the name suggests."""
        return self.type or mimetypes.guess_type(self.name or "")[0] or _UNKNOWN
