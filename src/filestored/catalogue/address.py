"""Where a catalogue is: the path of an SQLite file, or the address of a PostgreSQL database."""

import re
from dataclasses import dataclass, field
from pathlib import Path

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*@|(?<=://)([^:/?#]*):.*@")
_SECRET = re.compile(r"((?:^|[?&])(?:password|sslpassword|oauth_client_secret)=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """``postgresql://user:password@host:port/database``, as libpq takes it. As a text it has no password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return without_password(self.url)

    @property
    def has_password(self) -> bool:
        """Whether there is something in it that nobody else may see."""
        return str(self) != self.url


Address = Path | PostgresAddress


def without_password(text: str) -> str:
    """Return a text with ``***`` in place of the password of an address in it."""
    return _SECRET.sub(r"\g<1>***", _PASSWORD.sub(lambda match: f"{match[1] or match[2] or ''}:***@", text, count=1))
