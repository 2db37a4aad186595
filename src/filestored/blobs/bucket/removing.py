"""Removing objects by requests that the engine itself refuses once they are late.

An address that is signed says until when it is good, so that a request which was held up on its way, or whose sender
was, does nothing any more. What is sent by one is sent once, and never again by itself.
"""

import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loguru import logger

from filestored.blobs.address import BucketAddress
from filestored.blobs.bucket.connecting import REMOVE
from filestored.blobs.bucket.faults import Faults, RequestFault, fault_of, unreached
from filestored.blobs.presigning import presign_removals
from filestored.blobs.store import Permit
from filestored.errors import BlobStoreError, BlobStoreUnavailable

if TYPE_CHECKING:
    import httpx

    from filestored.blobs.bucket.connecting import ObjectStore

PERMIT_SECONDS = 30
"""How long an engine carries out a removal that was signed."""

_CONNECT_SECONDS = 3.0
_MOST_CONNECTIONS = 64
_MOST_READ = 64 * 1024
# what these answer is not carried out: the clocks differ by more than a permit's life, or only headers may sign
_REFUSED = frozenset({400, 401, 403, 501})
_UNSIGNED_SECONDS = 300.0
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"


class Remover:
    """Removes objects of one bucket. Every method may be called in any thread, and blocks."""

    def __init__(self, store: "ObjectStore", faults: Faults, address: BucketAddress) -> None:
        """``store`` signs, and sends what cannot be signed."""
        self._store = store
        self._faults = faults
        self._address = address
        # at once: what it loads would hold up whatever else runs by then
        self._client = _connections()
        self._unsigned_until = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def permits(self, keys: Sequence[str]) -> list[Permit]:
        """Return what lets each of these objects be removed for a while; nothing where the credentials cannot sign."""
        if not keys or time.monotonic() < self._unsigned_until:
            return []
        until = _now() + PERMIT_SECONDS
        return [Permit(address, until) for address in presign_removals(self._store, keys, PERMIT_SECONDS)]

    def remove(self, key: str, permit: Permit | None) -> None:
        """Remove an object by one request of some 12 s. Raises BlobStoreError, FileNotFoundError where there is none.

        Where a permit is refused though it is young the engine is asked by a header, as without one.
        """
        import obstore

        with self._faults.explained():
            if permit is None or not self._is_removed(permit):
                obstore.delete(self._store, key)

    def _is_removed(self, permit: Permit) -> bool:
        """Remove an object as is permitted; False where that is refused. Raises RequestFault, FileNotFoundError."""
        if _now() > permit.until:
            raise RequestFault(_late())
        status, text = self._ask(permit.address)
        if 200 <= status < 300:
            return True
        said = f"non-2xx status code: {status}\n{text}"
        if status == 404:
            raise FileNotFoundError(said)
        if status not in _REFUSED:
            raise RequestFault(fault_of(Exception(said), self._address))
        if _now() > permit.until:
            raise RequestFault(_late())
        logger.warning(
            "the bucket {} refuses signed removals ({}): is the clock of this machine right?", self._address, status
        )
        self._unsigned_until = time.monotonic() + _UNSIGNED_SECONDS
        return False

    def _ask(self, address: str) -> tuple[int, str]:
        """Send one request; return its status, and the beginning of what it says."""
        import httpx

        try:
            with self._client.stream("DELETE", address) as answer:
                return answer.status_code, _beginning(answer)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            fault = self._fault(error)
            # a connection that does not come about has carried nothing
            fault.was_sent = False
            raise RequestFault(fault) from error
        except httpx.HTTPError as error:
            raise RequestFault(self._fault(error)) from error

    def _fault(self, error: "httpx.HTTPError") -> BlobStoreError:
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return unreached(self._address, "does not answer in time")
        if _CERTIFICATE in str(error):
            return BlobStoreError(
                f"{self._address.endpoint or self._address} cannot be trusted: its certificate is not valid"
            )
        return unreached(self._address, f"cannot be reached: {str(error).lower()}".rstrip(": "))


def _connections() -> "httpx.Client":
    """Return connections that trust whom obstore trusts: the system's authorities, or those of SSL_CERT_FILE.

    They go through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name, as those of obstore do.
    """
    import httpx

    return httpx.Client(
        verify=ssl.create_default_context(),
        timeout=httpx.Timeout(REMOVE.request, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
        headers={"user-agent": "filestored"},
        follow_redirects=False,
        trust_env=True,
    )


def _beginning(answer: "httpx.Response") -> str:
    """Read an answer, as far as anybody needs it; what is lost of it does not change its status."""
    import httpx

    deadline = time.monotonic() + (REMOVE.request or 0.0)
    body = b""
    try:
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > _MOST_READ or time.monotonic() > deadline:
                break
    except httpx.HTTPError:
        pass
    return body[:_MOST_READ].decode("utf-8", "replace")


def _late() -> BlobStoreUnavailable:
    error = BlobStoreUnavailable("a removal was held up for too long, and is not carried out")
    error.was_sent = False
    return error


def _now() -> float:
    """Return seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
