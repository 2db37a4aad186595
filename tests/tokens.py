"""Making tokens for a store, as the command does."""

from pathlib import Path

from filestored.access import Permission, new_token
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.digest import Algorithm
from filestored.shared import renew_tokens


def make_token(
    store: Path, name: str, permissions: str, *, expires_at: int | None = None, quota: int | None = None
) -> str:
    """Make a token, before or beside a running daemon; return its text."""
    folder = StoreFolder.adopt(store, Algorithm.SHA256)
    Catalogue.prepare(folder.catalogue_file)
    catalogue = Catalogue(folder.catalogue_file, durable=False)
    text, record = new_token(
        name, Permission.parse(permissions), now_milliseconds(), expires_at=expires_at, quota=quota
    )
    with catalogue.transaction() as transaction:
        assert transaction.add_token(record)
    catalogue.close()
    renew_tokens(folder.shared_file)
    return text


def revoke_token(store: Path, name: str) -> None:
    """Revoke a token beside a running daemon, without telling its workers: as another machine would."""
    catalogue = Catalogue(StoreFolder.adopt(store, Algorithm.SHA256).catalogue_file, durable=False)
    with catalogue.transaction() as transaction:
        assert transaction.remove_token(name)
    catalogue.close()


def bearer(token: str) -> dict[str, str]:
    """Return the headers that name a token."""
    return {"authorization": f"Bearer {token}"}
