"""What a request carries that one daemon passes on to another: where it came from, and proof of who passes it on.

It is signed with a key that only the daemons have. The signature is good for half a minute, one daemon, one address
and method, and the very headers that go with it: who reads it on the way cannot have anything else done by it, and what
it was for is done, since an upload goes on from its offset only once.
"""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from filestored.signing import Signer

HEADER = b"filestored-peer"
"""The header that holds it."""

PASSED_HEADERS = (
    b"authorization", b"content-type", b"content-length", b"tus-resumable", b"upload-offset", b"upload-length",
    b"upload-checksum", b"x-http-method-override",
)  # fmt: skip
"""The headers of a request that are passed on with it, and signed."""

GOOD_MILLISECONDS = 30_000
"""How far a signature's time may be from that of the database."""

_LONGEST = 4096
_PURPOSE = "requests passed on between daemons"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from before it was passed on: what the daemon it came to knows of its connection."""

    client: str
    is_proxied: bool
    scheme: str
    host: str


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request is signed: its method, its path with the query, and of its headers those that are passed on."""

    method: str
    target: str
    headers: Mapping[bytes, bytes]

    def passed(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that are passed on."""
        return [(name, self.headers[name]) for name in PASSED_HEADERS if name in self.headers]


class Passes:
    """Makes and verifies passes, in constant time."""

    def __init__(self, signer: Signer) -> None:
        """``signer`` may change its key; what was passed on a moment before is recognised all the same."""
        self._signer = signer

    def make(self, request: Request, origin: Origin, daemon: str, now: int) -> bytes:
        """Return the pass of a request for one daemon; ``now`` is the time of the database (milliseconds)."""
        said = {"to": daemon, "at": now, **asdict(origin)}
        payload = urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode())
        return payload + b"." + _signature(self._signer, payload, request)

    def is_signed(self, text: bytes, request: Request) -> bool:
        """Tell whether a daemon has made a pass for a request, whatever its time and for whichever daemon."""
        payload, _, signature = text.rpartition(b".")
        if len(text) > _LONGEST:
            return False
        signers = [signer for signer in (self._signer, self._signer.former()) if signer]
        return any(hmac.compare_digest(_signature(signer, payload, request), signature) for signer in signers)

    def read(self, text: bytes, request: Request, daemon: str, now: int) -> Origin | None:
        """Return where a request came from; None where its pass is not for this request, this daemon or this time."""
        if not self.is_signed(text, request):
            return None
        said = json.loads(urlsafe_b64decode(text.rpartition(b".")[0]))
        if said.pop("to") != daemon or abs(now - said.pop("at")) > GOOD_MILLISECONDS:
            return None
        return Origin(**said)


def _signature(signer: Signer, payload: bytes, request: Request) -> bytes:
    lines = [payload, request.method.encode(), request.target.encode("utf-8", "surrogatepass")]
    lines += [name + b": " + value for name, value in request.passed()]
    return signer.derived(_PURPOSE).sign(b"\n".join(lines)).encode()
