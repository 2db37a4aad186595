"""The bounds on what clients can ask for."""

from dataclasses import dataclass
from pathlib import Path

MULTIPART_OVERHEAD = 1 << 20
"""How much larger than ``max_upload_size`` a multipart body may be: its framing, in bytes."""

DRAINED_BYTES = 64 << 20
DRAINED_SECONDS = 10
DRAINED_SECONDS_AT_STOP = 1
"""How much of a refused body is still taken in, and for how long, so that the client reads the refusal; less
while the daemon stops."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds; None where there is no limit."""

    max_upload_size: int | None = None
    max_uploads: int | None = 512
    max_uploads_per_client: int | None = None
    body_timeout: float = 30
    send_timeout: float = 60
    buffer: int = 256 * 1024
    cache_control: str = "private, max-age=31536000, immutable"
    certificate: Path | None = None
    """This daemon's own certificate chain, where it has one: other daemons may have the same."""
