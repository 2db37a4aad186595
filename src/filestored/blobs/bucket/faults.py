"""What an engine says is wrong, in a sentence of ours, and what it means for whoever asked."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filestored.blobs.address import BucketAddress
from filestored.errors import BlobBroken, BlobStoreError, BlobStoreUnavailable, PutLost

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,80})</Code>")
# Azure goes on with the request's number
_MESSAGE = re.compile(r"<Message>([^<]{1,300}?)\.?(?:\s*RequestId:[^<]*)?</Message>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>|expecting '([a-z0-9-]{1,40})'")
_SYSTEM = re.compile(r'kind: [A-Z][A-Za-z]+,\s*message: "([^"]{1,200})"|error: "([^"]{1,200})"')
_CERTIFICATE = re.compile(
    r"InvalidCertificate\((?:\s*[A-Za-z]+\()*\s*([A-Za-z]+)|InvalidMessage|CorruptMessage|AlertReceived"
)
# addresses that clouds give their own machines credentials at: asked only where none are given
_METADATA = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal|computeMetadata")
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName"})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidSecurity"})
_WRONG_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# whatever the status was: an error may also come after one that was sent before it
_PASSING_CODES = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
# the request was right, and another one or a bad connection came between
_LOST = frozenset({
    "BadDigest", "ConcurrentModification", "ConditionalRequestConflict", "IncompleteBody", "InvalidPart",
    "NoSuchUpload", "OperationAborted", "RequestTimeout", "XAmzContentSHA256Mismatch",
})  # fmt: skip
_BROKEN = "BrokenMPU"
# an answer without the object's tag, such as Swift's 202 to what something younger has overtaken: of one part, of many
_UNTAGGED = re.compile("ETag Header missing|invalid multipart response")
VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""What says who asks, by the kind of bucket."""

# of what obstore says of a connection that did not come about; "kind: ConnectionReset" is of one that did
_UNCONNECTED = re.compile(r"HttpError \{\s*kind: Connect,|legacy::Error\(\s*Connect,")
_PROBED_EVERY = 1.0


class RequestFault(Exception):
    """What went wrong with a request that obstore has not sent."""

    def __init__(self, fault: BlobStoreError) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def is_missing(error: BaseException) -> bool:
    """Tell whether an object is not there, as far as this answer tells: one to HEAD is silent on the bucket."""
    return isinstance(error, FileNotFoundError) and _found(_CODE, str(error)) not in _NO_BUCKET


def lacks_conditions(error: BaseException) -> bool:
    """Tell whether an engine does not know how to make an object only where there is none."""
    from obstore.exceptions import NotSupportedError

    return isinstance(error, NotSupportedError) or _found(_STATUS, str(error)) == "501"


def fault_of(error: BaseException, address: BucketAddress, *, puts: bool = False) -> BlobStoreError:
    """Return an error of obstore as one of ours; ``puts`` where it came of putting."""
    text = str(error)
    status, code = int(_found(_STATUS, text) or 0), _found(_CODE, text)
    if _METADATA.search(text):
        # a machine that has some of its own may be slow to give them
        kind = BlobStoreUnavailable if status == 0 or status in _PASSING else BlobStoreError
        return kind(f"no credentials are given: set {VARIABLES[address.scheme]}")
    if puts and (code in _LOST or _UNTAGGED.search(text)):
        return PutLost(_found(_MESSAGE, text) or "it took what was put, and does not say that it is there")
    if status == 0 and code is None:
        return _unreached(text, address)
    if code in _NO_BUCKET:
        # a daemon has seen that there is when it was started: an engine that is just starting itself may not know yet
        return BlobStoreUnavailable(f"there is no bucket {address.bucket}{_at(address)}")
    if code in _WRONG_REGION or status == 301:
        region = _REGION.search(text)
        where = f" {region[1] or region[2]}" if region else " another region"
        return BlobStoreError(f"the bucket {address.bucket} is in{where}: name its region with --bucket-region")
    if code in _WRONG_KEY or status == 401:
        return BlobStoreError(f"its key is not known or its secret is wrong: look at {VARIABLES[address.scheme]}")
    said = _found(_MESSAGE, text) or f"the answer is {code or status}"
    if status == 403:
        return BlobStoreError(f"this is not allowed: {said}; look at {VARIABLES[address.scheme]}")
    if code == _BROKEN:
        return BlobBroken(said)
    return BlobStoreUnavailable(said) if status in _PASSING or code in _PASSING_CODES else BlobStoreError(said)


def _unreached(text: str, address: BucketAddress) -> BlobStoreError:
    """Return what it means that there was no answer, or none that obstore understands."""
    certificate = _CERTIFICATE.search(text)
    if certificate:
        reason = f"its certificate is not valid: {certificate[1]}" if certificate[1] else "it does not speak TLS"
        error: BlobStoreError = BlobStoreError(f"{_name(address)} cannot be trusted: {reason}")
    elif "kind: Timeout" in text:
        return unreached(address, "does not answer in time")
    elif "kind: " in text and "HttpError" in text:
        system = _SYSTEM.search(text)
        reason = f": {(system[1] or system[2]).lower()}" if system else ""
        error = unreached(address, f"cannot be reached{reason}")
    else:
        return BlobStoreError(next(iter(text.splitlines()), "it fails"))
    # whatever fails while connecting has sent nothing
    error.was_sent = _UNCONNECTED.search(text) is None
    return error


def unreached(address: BucketAddress, what: str) -> BlobStoreUnavailable:
    """Return the error of an engine that gave no answer; ``what`` goes on after its name."""
    return BlobStoreUnavailable(f"{_name(address)} {what}")


def _name(address: BucketAddress) -> str:
    return _endpoint(address) or f"the provider of {address}"


def _at(address: BucketAddress) -> str:
    endpoint = _endpoint(address)
    return f" at {endpoint}" if endpoint else ""


def _endpoint(address: BucketAddress) -> str | None:
    # only here: that one needs this one
    from filestored.blobs.bucket.connecting import endpoint_of

    return endpoint_of(address, os.environ)


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


class Faults:
    """Turns what goes wrong into errors of ours. In an outage all but one request a second are refused at once.

    Otherwise each would wait for its own timeout, and keep a thread that others wait for.
    """

    def __init__(self, address: BucketAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._answered_at = 0.0
        self._outage: BlobStoreUnavailable | None = None
        self._probed_at = 0.0

    @contextmanager
    def explained(self, *, always: bool = False, puts: bool = False) -> Iterator[None]:
        """Do something with the bucket. Raises BlobStoreError for obstore's errors, but lets FileNotFoundError through.

        That is raised only where an object is missing. ``always`` asks the bucket in an outage, too. What ``puts`` may
        also be lost: PutLost.
        """
        from obstore.exceptions import BaseError

        if not always:
            self._require_no_outage()
        began = time.monotonic()
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            if is_missing(error):
                self._note_answer()
                raise
            fault = fault_of(error, self._address, puts=puts)
            self._note(fault, began)
            raise fault from error
        except RequestFault as error:
            self._note(error.fault, began)
            raise error.fault from error
        self._note_answer()

    def _require_no_outage(self) -> None:
        with self._lock:
            if self._outage is None:
                return
            now = time.monotonic()
            if now - self._probed_at < _PROBED_EVERY:
                error = BlobStoreUnavailable(self._outage.reason)
                error.was_sent = False
                raise error
            self._probed_at = now

    def _note(self, fault: BlobStoreError, began: float) -> None:
        with self._lock:
            # where others were answered meanwhile it is this request, and no outage
            if isinstance(fault, BlobStoreUnavailable) and self._answered_at < began:
                self._outage = fault
                self._probed_at = time.monotonic()

    def _note_answer(self) -> None:
        self._answered_at = time.monotonic()
        if self._outage is not None:
            with self._lock:
                self._outage = None
