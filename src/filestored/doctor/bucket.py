"""The bucket: whether it can be reached and read, is a store, and whose catalogue keeps it."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from filestored.blobs.address import BucketAddress
from filestored.doctor.catalogue import opened
from filestored.doctor.findings import Finding, Situation, fault, good, lacking, refused, skipped
from filestored.errors import (
    BlobStoreError,
    BlobStoreUnavailable,
    CatalogueError,
    CatalogueMissing,
    StartError,
)
from filestored.keeping import CATALOGUE_NOTE
from filestored.recovery import STORE_NOTE

if TYPE_CHECKING:
    from filestored.blobs.bucket.connecting import ObjectStore
    from filestored.blobs.bucket.faults import Faults
    from filestored.blobs.bucket.mark import Mark, Marks

_SECONDS = 4.0
_MEND = "see that it runs, and that --bucket-endpoint, --bucket-region and the variables of its keys are right"


class Bucket(NamedTuple):
    """A bucket as a check reaches it: by requests that are sent once, and take some seconds at most."""

    address: BucketAddress
    store: "ObjectStore"
    faults: "Faults"
    marks: "Marks"

    @classmethod
    def reach(cls, address: BucketAddress) -> "Bucket":
        """Return a bucket that is not asked anything yet. Raises StartError, LibraryMissing."""
        # only here: they bring obstore with them
        from filestored.blobs.bucket.connecting import Clock, connect
        from filestored.blobs.bucket.faults import Faults
        from filestored.blobs.bucket.mark import Marks

        store, faults = connect(address, Clock(_SECONDS, 0.0)), Faults(address)
        return cls(address, store, faults, Marks(store, faults, address))


class _Notes(NamedTuple):
    """What a catalogue says of the store that it is of, and of itself; None where it says nothing yet."""

    store: str | None
    own: str | None


def check_bucket(situation: Situation) -> Iterator[Finding]:
    """Ask the bucket what a daemon would, but for putting and removing."""
    address = situation.settings.bucket
    if address is None:
        yield skipped("the store is a folder, and no bucket")
        return
    try:
        bucket = Bucket.reach(address)
    except ImportError as error:
        yield lacking(error)
    except StartError as error:
        yield refused(str(error), _MEND)
    else:
        yield from _look(situation, bucket)


def _look(situation: Situation, bucket: Bucket) -> Iterator[Finding]:
    # only here: it brings what a store in a folder does not need
    from filestored.doctor.requests import look_at_requests

    is_well = False
    try:
        mark = bucket.marks.read()
        yield _judge_contents(bucket, mark)
        keeper = bucket.marks.keeper()
        yield _judge_keeper(situation, bucket.address, mark, keeper)
        is_well = True
    except BlobStoreError as error:
        yield refused(f"the bucket {bucket.address} cannot be used: {error.reason}", _MEND)
        if isinstance(error, BlobStoreUnavailable):
            # who has no answer yet gets none to other questions
            return
    except StartError as error:
        yield refused(str(error), "name another bucket or prefix with --store, or bring back what was there")
    yield from look_at_requests(situation, bucket, is_well=is_well)


def _judge_contents(bucket: Bucket, mark: "Mark | None") -> Finding:
    """See what lies in the bucket, and that it can be listed and read by ranges. Raises BlobStoreError, StartError."""
    from filestored.blobs.bucket.walking import names_in

    if mark is None:
        bucket.marks.require_store_layout()
        is_empty = not list(islice(names_in(bucket.store, bucket.faults, bucket.address), 1))
        return good(
            f"{bucket.address} is {'empty' if is_empty else 'laid out as a store'}: the first start makes it a store"
            + ("" if is_empty else " of all that lies there")
        )
    list(islice(names_in(bucket.store, bucket.faults, bucket.address), 1))
    try:
        reason = "" if bucket.marks.is_read_by_ranges() else "others come than were asked for"
    except BlobStoreUnavailable:
        raise
    except BlobStoreError as error:
        # the mark was read as a whole a moment before
        reason = error.reason
    if reason:
        return fault(
            f"ranges of objects in {bucket.address} cannot be read, as downloads need: {reason}",
            "see what lies between this machine and the engine, and passes ranges on wrongly",
        )
    return good(f"{bucket.address} is a store, its files named by {', '.join(mark.algorithms)}; it can be read, listed")


def _judge_keeper(situation: Situation, address: BucketAddress, mark: "Mark | None", keeper: str) -> Finding:
    """See whether the bucket and the catalogue belong together, as a start would (recovery.claim)."""
    try:
        notes = _read_notes(situation)
    except (CatalogueError, ImportError):
        return skipped("whether this catalogue keeps the bucket cannot be told: see catalogue")
    if notes.store is not None and (mark is None or notes.store != mark.id):
        return fault(
            f"the catalogue {situation.catalogue} belongs to another store than {address}",
            "name a database of its own with --catalogue; docs/operations.md says what to do where the store was "
            "restored",
        )
    if keeper and keeper != notes.own:
        return fault(
            f"the bucket {address} is kept by another catalogue than {situation.catalogue}",
            "name that one with --catalogue; where it is lost: filestored reindex --take-over",
        )
    return good("this catalogue keeps it" if keeper else "no catalogue keeps it yet: the first start notes its own")


def _read_notes(situation: Situation) -> _Notes:
    """Return what the catalogue notes. Raises CatalogueError, LibraryMissing."""
    try:
        with opened(situation) as rows:
            return _Notes(None, None) if rows is None else _Notes(rows.note(STORE_NOTE), rows.note(CATALOGUE_NOTE))
    except CatalogueMissing:
        return _Notes(None, None)
