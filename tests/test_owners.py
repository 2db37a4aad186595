"""Owners of the same bytes, in every order of what they do: nobody loses what it keeps."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from filestored import recovery
from filestored.access import ALL, Permission, Principal
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import Address
from filestored.catalogue.records import KEPT, NOBODY, FileChange, FileRecord, Wish, now_milliseconds
from filestored.digest import Algorithm, Digest
from filestored.errors import NotFound
from filestored.filestore import Filestore
from tests.postgres import Database, PostgresServer

USER = Permission.READ | Permission.WRITE | Permission.DELETE
OWNERS = {name: Principal(name, USER) for name in ("anna", "boris", "clara")}
BLIND = {name: Principal(name, Permission.WRITE | Permission.DELETE) for name in OWNERS}
ADMIN = Principal("root", ALL)
BODIES = [b"", b"one", b"x" * 70_000]

owners = st.sampled_from(sorted(OWNERS))
bodies = st.sampled_from(BODIES)
stores = st.sampled_from([0, 1])


def digest_of(body: bytes) -> Digest:
    return Digest(Algorithm.SHA256.new(body).hexdigest())


class Owners(RuleBasedStateMachine):
    """Two filestores on one store, as two workers have them, against a model of who keeps what."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = StoreFolder.adopt(Path(tempfile.mkdtemp()) / "store", Algorithm.SHA256)
        self.kept: dict[Digest, set[str]] = {digest_of(body): set() for body in BODIES}
        self.unclaimed: set[Digest] = set()
        self.stores: list[Filestore] = []
        self.where = self.make_catalogue()
        self._open_stores()

    def make_catalogue(self) -> Address | None:
        """Return where the catalogue is to be; None for inside the store."""
        return None

    def _open_stores(self) -> None:
        recovery.prepare(self.folder, self.where, durable=True)
        self.stores = [Filestore(self.folder, self.where, durable=False) for _ in range(2)]

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @rule(number=stores, owner=owners, body=bodies, is_blind=st.booleans())
    def add(self, number: int, owner: str, body: bytes, is_blind: bool) -> None:
        digest = digest_of(body)

        async def upload() -> bool:
            store = self.stores[number]
            with store.hold(body) as staged:
                (added,) = await store.add((BLIND if is_blind else OWNERS)[owner], [(staged, Wish(name=owner))])
            return added.is_new

        assert self.run(upload()) is (owner not in self.kept[digest])
        self.kept[digest].add(owner)
        self.unclaimed.discard(digest)

    @rule(number=stores, owner=owners, body=bodies, is_blind=st.booleans())
    def delete(self, number: int, owner: str, body: bytes, is_blind: bool) -> None:
        digest = digest_of(body)
        is_there = owner in self.kept[digest] or (digest in self.unclaimed and not is_blind)
        try:
            self.run(self.stores[number].delete((BLIND if is_blind else OWNERS)[owner], digest))
            assert is_there
            self.unclaimed.discard(digest)
        except NotFound:
            assert not is_there
        self.kept[digest].discard(owner)

    @rule(number=stores, body=bodies)
    def delete_for_all(self, number: int, body: bytes) -> None:
        digest = digest_of(body)
        is_there = bool(self.kept[digest]) or digest in self.unclaimed
        try:
            self.run(self.stores[number].delete(ADMIN, digest))
            assert is_there
        except NotFound:
            assert not is_there
        self.kept[digest].clear()
        self.unclaimed.discard(digest)

    @rule(number=stores, owner=owners, body=bodies)
    def end(self, number: int, owner: str, body: bytes) -> None:
        """Let an owner's file expire, and upkeep come by."""
        digest = digest_of(body)
        store = self.stores[number]
        change = FileChange(KEPT, KEPT, now_milliseconds() - 1)
        try:
            self.run(store.change_file(OWNERS[owner], digest, change))
            assert owner in self.kept[digest]
        except NotFound:
            assert owner not in self.kept[digest]
        assert self.run(store.end_expired()) == (1 if owner in self.kept[digest] else 0)
        self.kept[digest].discard(owner)

    @rule(body=bodies, has_row=st.booleans())
    def appear(self, body: bytes, has_row: bool) -> None:
        """Have a blob that an earlier program left, with or without the row that reindexing gives it."""
        digest = digest_of(body)
        if self.kept[digest] or digest in self.unclaimed:
            return
        shard = self.folder.path / digest[:2]
        shard.mkdir(exist_ok=True)
        (shard / digest).write_bytes(body)
        if has_row:
            with self.stores[0]._catalogue.transaction() as transaction:
                row = FileRecord(digest, NOBODY, None, "application/octet-stream", len(body), 1, None)
                transaction.insert(row, is_first=True)
        self.unclaimed.add(digest)

    @rule()
    def restart(self) -> None:
        for store in self.stores:
            store.close()
        self._open_stores()

    @invariant()
    def everybody_has_what_it_keeps_and_nothing_else_is_there(self) -> None:
        for body in BODIES:
            digest = digest_of(body)
            path = self.folder.path / digest[:2] / digest
            assert path.exists() is bool(self.kept[digest] or digest in self.unclaimed)
            assert not path.exists() or path.read_bytes() == body
            for store in self.stores:
                for name, owner in OWNERS.items():
                    self._look(store, name, owner, digest)
        for store in self.stores:
            self._count(store)

    def _look(self, store: Filestore, name: str, owner: Principal, digest: Digest) -> None:
        try:
            assert self.run(store.find_file(owner, digest))[0].owner == name
            assert name in self.kept[digest]
        except NotFound:
            assert name not in self.kept[digest]

    def _count(self, store: Filestore) -> None:
        sizes = {digest_of(body): len(body) for body in BODIES}
        for name in OWNERS:
            usage, _ = store.usage(name)
            assert usage.bytes == sum(size for digest, size in sizes.items() if name in self.kept[digest])
        named = {digest for digest, names in self.kept.items() if names}
        usage, _ = store.usage(None)
        assert named <= set(sizes)
        assert usage.blobs in range(len(named), len(named | self.unclaimed) + 1)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.loop.close()
        shutil.rmtree(self.folder.path.parent)


Owners.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOwners = Owners.TestCase


def test_owners_of_a_catalogue_in_postgresql(postgres: PostgresServer) -> None:
    class OwnersOnPostgresql(Owners):
        def make_catalogue(self) -> Address | None:
            self.database = Database(postgres)
            return self.database.address

        def teardown(self) -> None:
            super().teardown()
            self.database.drop()

    run_state_machine_as_test(
        OwnersOnPostgresql,
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
