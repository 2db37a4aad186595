"""Listings against a model: whatever is stored and asked, all pages together are what sorting and filtering gives."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filestored.catalogue import listing, statements
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.listing import Pattern, Place, Query, Sort
from filestored.catalogue.records import FileRecord, UploadRecord, folded
from filestored.catalogue.statements import Prepared
from filestored.digest import Digest
from tests.postgres import Database

OWNERS = ("anna", "boris", "")
NOW = 1000

names = st.none() | st.text(st.sampled_from("aAbБбß*é\u0301Σς"), max_size=4)
records = st.lists(
    st.builds(
        FileRecord,
        st.integers(0, 40).map(lambda number: Digest(f"{number:064x}")),
        st.sampled_from(OWNERS),
        names,
        st.sampled_from(["text/plain", "image/png", "Image/PNG; q=1"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from([None, 999, 1000, 1001]),
    ),
    max_size=30,
    unique_by=lambda file: (file.digest, file.owner),
)
patterns = st.none() | st.text(st.sampled_from("aAbБß*"), max_size=4)


@pytest.fixture
def catalogue(address: Address) -> Iterator[Catalogue]:
    Catalogue.prepare(address)
    opened = Catalogue(address, durable=False)
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A catalogue in a file."""
    Catalogue.prepare(tmp_path / "catalogue.sqlite3")
    return tmp_path / "catalogue.sqlite3"


def fill(catalogue: Catalogue, files: list[FileRecord]) -> None:
    with catalogue.transaction() as transaction:
        for old in {file.digest for owner in OWNERS for file in _all(catalogue, owner)}:
            transaction.delete(transaction.find(old), are_last=True)
        for file in files:
            transaction.insert(file, is_first=not transaction.is_named(file.digest))


def _all(catalogue: Catalogue, owner: str) -> list[FileRecord]:
    return catalogue.read_page(Query(1000, Sort.NAME), owner, -1).files


def walk(catalogue: Catalogue, query: Query, owner: str | None) -> list[FileRecord]:
    found: list[FileRecord] = []
    after: Place | None = None
    for _ in range(200):
        page = catalogue.read_page(Query(query.limit, query.sort, after, query.name, query.media_type), owner, NOW)
        assert len(page.files) <= query.limit
        found += page.files
        after = page.end
        if after is None:
            return found
    raise AssertionError("the pages do not end")


def key_of(file: FileRecord, sort: Sort) -> str | int:
    by: dict[str, str | int] = {"name": folded(file.name), "size": file.size, "created_at": file.created_at}
    return by[sort.value.lstrip("-")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=records, owner=st.sampled_from([*OWNERS, None]), sort=st.sampled_from(Sort), limit=st.integers(1, 4),
    name=patterns, media_type=st.sampled_from([None, "image", "*png", "text/plain"]), scanned=st.integers(1, 5),
)  # fmt: skip
def test_all_pages_together_are_the_sorted_and_filtered_files(
    catalogue: Catalogue, files: list[FileRecord], owner: str | None, sort: Sort, limit: int, name: str | None,
    media_type: str | None, scanned: int,
) -> None:  # fmt: skip
    fill(catalogue, files)
    by_name = Pattern.parse(name) if name is not None else None
    by_type = Pattern.parse(media_type) if media_type is not None else None
    before, listing.MAX_SCANNED = listing.MAX_SCANNED, scanned
    try:
        found = walk(catalogue, Query(limit, sort, None, by_name, by_type), owner)
    finally:
        listing.MAX_SCANNED = before
    expected = [
        file
        for file in files
        if (owner is None or file.owner == owner)
        and file.is_live(NOW)
        and (by_name is None or by_name.matches(folded(file.name)))
        and (by_type is None or by_type.matches(folded(file.media_type)))
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    keys = [key_of(file, sort) for file in found]
    assert keys == sorted(keys, reverse=sort.is_descending)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["add", "delete"]), st.integers(0, 3), st.sampled_from(OWNERS))))
def test_what_each_owner_keeps_is_counted_as_it_comes_and_goes(
    catalogue: Catalogue, steps: list[tuple[str, int, str]]
) -> None:
    fill(catalogue, [])
    kept: set[tuple[int, str]] = set()
    for action, number, owner in steps:
        digest = Digest(f"{number:064x}")
        with catalogue.transaction() as transaction:
            rows = transaction.find(digest)
            mine = [file for file in rows if file.owner == owner]
            if action == "add" and not mine:
                transaction.insert(FileRecord(digest, owner, None, "a/b", 10**number, 0, None), is_first=not rows)
                kept.add((number, owner))
            elif action == "delete":
                transaction.delete(mine, are_last=len(rows) == len(mine))
                kept.discard((number, owner))
            if owner:
                assert transaction.bytes_of(owner, NOW) == sum(10**n for n, who in kept if who == owner)
    for owner in OWNERS:
        sizes = [10**number for number, who in kept if who == owner]
        usage = catalogue.usage(owner)
        assert (usage.files, usage.blobs, usage.bytes) == (len(sizes), len(sizes), sum(sizes))
    counted = catalogue.usage(None)
    numbers = {number for number, _ in kept}
    assert (counted.files, counted.blobs, counted.bytes) == (len(kept), len(numbers), sum(10**n for n in numbers))
    assert catalogue.counts_agree()
    with catalogue.transaction() as transaction:
        transaction._session.change(statements.ADD_TOTALS, id=1, blobs=77, bytes=0)
        transaction._session.change(statements.FORGET_USAGE)
    assert not catalogue.counts_agree()
    with catalogue.transaction() as transaction:
        transaction.count_anew()
    assert catalogue.counts_agree()
    assert catalogue.usage(None) == counted


def plan_of(path: Path, statement: Prepared, **values: object) -> str:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "EXPLAIN QUERY PLAN " + statement.sqlite.text, values | statement.sqlite.constants
        ).fetchall()
    return "; ".join(row[3] for row in rows)


def test_every_order_walks_along_an_index_and_sorts_nothing(path: Path) -> None:
    values = {"owner": "a", "key": 1, "id": 1, "count": 1}
    for (sort, of_all), (beginning, alike, beyond) in listing._WALKS.items():
        column = {"created_at": "created_at", "name": "folded_name", "size": "size"}[sort.value.lstrip("-")]
        whose = "" if of_all else "owner=? AND "
        index = f"ix_files_{'' if of_all else 'owner_'}{column}"
        plans = [plan_of(path, each, **values) for each in (beginning, alike, beyond)]
        assert all(index in plan and ";" not in plan for plan in plans), plans
        step = "<" if sort.is_descending else ">"
        assert f"({whose}{column}=? AND rowid{step}?)" in plans[1]
        assert f"({whose}{column}{step}?)" in plans[2]


# of all statements' parameters
VALUES: dict[str, object] = {
    **dict.fromkeys(("digest", "owner", "name", "value", "start", "stop", "folded_name", "media_type"), "a"),
    **dict.fromkeys(("secret_hash", "permissions"), "a"), **{f"digest{n}": "a" for n in range(100)},
    **dict.fromkeys(("now", "limit", "size", "created_at", "expires_at", "files", "bytes", "quota"), 1),
    **dict.fromkeys(("blobs", "length", "flushed"), 1),
    **dict.fromkeys(("details", "concat", "joined_as", "daemon", "holder", "url", "incarnation"), "a"), "id": "1",
    **dict.fromkeys(("sent_at", "age", "milliseconds", "away", "seen_before"), 1),
}  # fmt: skip

# these are about everything, and run by reindex alone; or about small tables
OF_ALL = {"COUNT_USAGE", "COUNTED_USAGE", "COUNT_TOTALS", "COUNTED_TOTALS", "KNOWN_USAGE", "FORGET_USAGE"}
SMALL = {"TOKENS", "TOTALS", "ALL_FILES", "REMOVALS", "FORGET_TOTALS", "ALL_UNDER_WAY"}


def test_no_statement_reads_more_than_it_is_about(path: Path) -> None:
    for name, statement in vars(statements).items():
        if isinstance(statement, Prepared) and name not in OF_ALL | SMALL:
            plan = plan_of(path, statement, **VALUES)
            assert not re.search(r"SCAN (?!CONSTANT ROW|daemons|leases|removals)", plan), (name, plan)
    plan = plan_of(path, statements.EXPIRED_BYTES, **VALUES)
    assert "ix_files_expires_at" in plan, plan


@pytest.fixture
def full_database(database: Database) -> Database:
    """A catalogue in PostgreSQL with so many files that its planner takes the size of what it reads seriously."""
    Catalogue.prepare(database.address)
    catalogue = Catalogue(database.address, durable=False)
    with catalogue.transaction() as transaction:
        for n in range(20_000):
            owner, expires_at = f"owner{n % 3}", None if n % 100 else n
            file = FileRecord(Digest(f"{n:064x}"), owner, f"name{n}", "a/b", n % 10, n // 10, expires_at)
            transaction.insert(file, is_first=True)
            upload = UploadRecord(f"{n:032x}", owner, "", None, 5, 5, None if n % 50 else file.digest, None, 1, n)
            transaction.add_upload(upload)
    catalogue.close()
    database.execute("VACUUM ANALYZE")
    return database


def postgres_plan_of(database: Database, statement: Prepared, **values: object) -> str:
    text, constants = statement.postgresql
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(f"EXPLAIN {text}", values | constants).fetchall()
    return "\n".join(row[0] for row in rows)


def test_on_postgresql_too_no_statement_reads_more_than_it_is_about(full_database: Database) -> None:
    keys = {"created_at": 1000, "folded_name": "name5", "size": 5}
    for (sort, of_all), walks in listing._WALKS.items():
        column = {"created_at": "created_at", "name": "folded_name", "size": "size"}[sort.value.lstrip("-")]
        index = f"ix_files_{'' if of_all else 'owner_'}{column}_id"
        plans = [
            postgres_plan_of(full_database, each, owner="owner1", key=keys[column], id=10_000, count=100)
            for each in walks
        ]
        assert all(re.search(rf"(using|on) {index}\b", plan) and "Filter" not in plan for plan in plans), plans
        # the few that are alike may be sorted
        assert "Sort" not in plans[0] + plans[2], plans
    for name, statement in vars(statements).items():
        if isinstance(statement, Prepared) and name not in OF_ALL | SMALL:
            plan = postgres_plan_of(full_database, statement, **VALUES)
            assert not re.search("Seq Scan on (files|uploads)", plan), (name, plan)
    plan = postgres_plan_of(full_database, statements.EXPIRED_BYTES, **VALUES)
    assert "ix_files_expires_at" in plan, plan


def test_on_postgresql_texts_are_compared_by_their_bytes(database: Database) -> None:
    Catalogue.prepare(database.address)
    rows = database.execute(
        "SELECT c.relname, a.attname, l.collname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_collation l ON l.oid = a.attcollation "
        "WHERE c.relkind IN ('r', 'i') AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 "
        "AND NOT starts_with(c.relname, 'alembic')"
    )
    assert len(rows) > 20
    assert {collation for _, _, collation in rows} == {"C"}


@pytest.mark.parametrize("owner", ["anna", None])
def test_on_postgresql_a_page_among_files_that_are_all_alike_reads_no_more_than_it_shows(
    database: Database, owner: str | None
) -> None:
    Catalogue.prepare(database.address)
    catalogue = Catalogue(database.address, durable=False)
    fill(catalogue, [FileRecord(Digest(f"{n:064x}"), "anna", None, "a/b", 1, 7, None) for n in range(5000)])
    database.execute("VACUUM ANALYZE")
    for sort in Sort:
        query = Query(100, sort)
        for _ in range(20):
            query = replace(query, after=catalogue.read_page(query, owner, NOW).end)
        assert query.after is not None
        _, alike, _ = listing._WALKS[sort, owner is None]
        text, constants = alike.postgresql
        values = {"owner": owner, "key": query.after.key, "id": query.after.id, "count": 101} | constants
        with psycopg.connect(database.url) as connection:
            ((told,),) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", values).fetchall()
        read = told[0]["Plan"]["Shared Hit Blocks"] + told[0]["Plan"]["Shared Read Blocks"]
        assert read < 30, (sort, told)
    catalogue.close()


@pytest.mark.parametrize("owner", ["anna", None])
def test_a_page_among_files_that_are_all_alike_reads_no_more_than_it_shows(path: Path, owner: str | None) -> None:
    catalogue = Catalogue(path, durable=False)
    fill(catalogue, [FileRecord(Digest(f"{n:064x}"), "anna", None, "a/b", 1, 7, None) for n in range(3000)])
    connection = catalogue._database.reads.connection  # type: ignore[attr-defined]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for sort in Sort:
        costs = []
        after = None
        connection.set_progress_handler(count, 50)
        try:
            for _ in range(30):
                steps = 0
                page = catalogue.read_page(Query(100, sort, after), owner, NOW)
                costs.append(steps)
                after = page.end
        finally:
            connection.set_progress_handler(None, 0)
        assert after is None or len(page.files) == 100
        assert max(costs[1:]) < 3 * costs[1] + 3, (sort, costs)
    catalogue.close()


def test_a_filter_that_few_files_match_costs_a_page_no_more(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_SCANNED", 10)
    files = [FileRecord(Digest(f"{n:064x}"), "anna", f"name-{n:03d}", "a/b", 1, n, None) for n in range(100)]
    fill(catalogue, files)
    page = catalogue.read_page(Query(5, Sort.CREATED_AT, None, Pattern.parse("name-099")), "anna", NOW)
    assert page.files == []
    assert page.end is not None
    # by name the beginning is found at once, from either end
    for sort in (Sort.NAME, Sort.NAME_DESCENDING):
        page = catalogue.read_page(Query(5, sort, None, Pattern.parse("name-05")), "anna", NOW)
        assert len(page.files) == 5


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "anything", True), ("*", "", True), ("a*c", "abc", True), ("a*c", "ab", False), ("a*c", "abcd", True),
        ("*b*d", "abcd", True), ("*d*b", "abcd", False), ("ab*b", "ab", False), ("ß", "strasse", False),
        ("STRASSE", "straße", True), ("a" + "*a" * 500, "a" * 400, False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, text: str, expected: bool) -> None:
    assert Pattern.parse(pattern).matches(folded(text)) is expected
