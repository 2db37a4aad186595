"""What else a copy of a store needs to take its place: the tokens, and the key that signs links."""

from collections.abc import Callable, Set
from dataclasses import dataclass

from filestored.blobs.store import BlobStore
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import TokenRecord
from filestored.catalogue.transaction import Transaction
from filestored.copying.copier import Finding
from filestored.copying.ledger import Ledger
from filestored.signing import KEY_NOTE

_OURS = "takes the key over"


@dataclass(frozen=True, slots=True)
class Access:
    """How many tokens came over or were there, and whether the links made at the source work at the target."""

    tokens: int = 0
    has_key: bool = False


class TakeOver:
    """Brings tokens and key from one catalogue to another."""

    def __init__(
        self, source: Catalogue, target: Catalogue, ledger: Ledger, *, told: Callable[[Finding], None]
    ) -> None:
        """``told`` is called for what stays apart."""
        self._source = source
        self._target = target
        self._ledger = ledger
        self._told = told

    def begin(self, blobs: BlobStore) -> None:
        """Note, before anything is copied, whether the target is new: only then its links are nobody's."""
        if self._ledger.note(_OURS) is None:
            has_blobs = next(iter(blobs.walk(failed=lambda shard, error: None)), None) is not None
            is_new = not (has_blobs or self._target.usage(None).files or self._target.tokens())
            self._ledger.set_note(_OURS, "yes" if is_new else "no")

    def run(self) -> Access:
        """Bring them over; a token that the target has already stays what it is there."""
        with self._target.transaction() as transaction:
            count = self._copy_tokens(transaction)
            has_key = self._copy_key(transaction)
        return Access(count, has_key)

    def _copy_tokens(self, transaction: Transaction) -> int:
        there = {token.name: token for token in self._target.tokens()}
        here = self._source.tokens()
        copied = self._ledger.tokens()
        count = 0
        for token in here:
            if token.name in there and there[token.name].id != token.id:
                self._told(
                    Finding(token.name, "apart", "the target has another token of this name; this one stays out")
                )
            elif token.name not in there and token.id in copied:
                self._told(Finding(token.name, "apart", "it was revoked at the target since it was copied"))
            else:
                transaction.add_token(token)
                self._ledger.add_token(token.id, token.name)
                count += 1
        self._tell_revoked(copied.keys() - {token.id for token in here}, there)
        return count

    def _tell_revoked(self, revoked: Set[str], there: dict[str, TokenRecord]) -> None:
        """Tell of the tokens that were revoked at the source since they were copied, and work at the target."""
        for token in there.values():
            if token.id in revoked:
                self._told(Finding(token.name, "gone", "this token was revoked at the source since it was copied"))

    def _copy_key(self, transaction: Transaction) -> bool:
        key = self._source.note(KEY_NOTE)
        if key is None or key == self._target.note(KEY_NOTE):
            return key is not None
        if self._ledger.note(_OURS) != "yes":
            reason = "the target had tokens or files before, and may have made links; those of the source end here"
            self._told(Finding("links", "apart", reason))
            return False
        transaction.set_note(KEY_NOTE, key)
        return True
