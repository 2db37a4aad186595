"""What else a copy of a store needs to take its place: the tokens, and the key that signs links."""

from collections.abc import Callable
from dataclasses import dataclass

from filestored.blobs.layout import StoreFolder
from filestored.blobs.walking import Walk
from filestored.catalogue.catalogue import Catalogue
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
        self, source: Catalogue, target: Catalogue, ledger: Ledger, *, delete: bool, told: Callable[[Finding], None]
    ) -> None:
        """``delete`` revokes at the target what was revoked at the source; ``told`` is called for what stays apart."""
        self._source = source
        self._target = target
        self._ledger = ledger
        self._delete = delete
        self._told = told

    def begin(self, folder: StoreFolder) -> None:
        """Note, before anything is copied, whether the target is new: only then its links are nobody's."""
        if self._ledger.note(_OURS) is None:
            has_blobs = next(iter(Walk(folder, failed=lambda shard, error: None)), None) is not None
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
        count = 0
        for token in here:
            if token.name in there and there[token.name].id != token.id:
                self._told(
                    Finding(token.name, "apart", "the target has another token of this name; this one stays out")
                )
                continue
            transaction.add_token(token)
            self._ledger.add_token(token.id, token.name)
            count += 1
        for token_id in self._ledger.tokens().keys() - {token.id for token in here}:
            self._settle_revoked(transaction, token_id, {token.id: token.name for token in there.values()})
        return count

    def _settle_revoked(self, transaction: Transaction, token_id: str, there: dict[str, str]) -> None:
        """Tell of a token that was revoked at the source since it was copied, or revoke it."""
        name = there.get(token_id)
        if name is None or self._delete:
            self._ledger.forget_token(token_id)
        if name is None:
            return
        if self._delete:
            transaction.remove_token(name)
        state = "deleted" if self._delete else "gone"
        self._told(Finding(name, state, "this token was revoked at the source since it was copied"))

    def _copy_key(self, transaction: Transaction) -> bool:
        key = self._source.note(KEY_NOTE)
        if key is None or key == self._target.note(KEY_NOTE):
            return key is not None
        if self._ledger.note(_OURS) != "yes":
            self._told(Finding("links", "apart", "the target has made links of its own; those of the source end here"))
            return False
        transaction.set_note(KEY_NOTE, key)
        return True
