"""docs/http-api.md and the program have the same addresses and the same errors."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from filestored.api.forwarding import PARTS
from filestored.errors import RequestError
from tests.conftest import Daemon
from tests.documents.pages import blocks, in_code, read, rows, section

TEXT = read("docs/http-api.md")
METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}


@pytest.fixture(scope="module")
def operations(daemon: Daemon) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the server says that it answers, by address and method."""
    paths = httpx.get(f"{daemon.url}/openapi.json").json()["paths"]
    return {
        (path, method.upper()): operation
        for path, item in paths.items()
        for method, operation in item.items()
        if method in METHODS
    }


def documented() -> Iterator[tuple[tuple[str, str], str]]:
    for addresses, methods, needs in rows(section(TEXT, "## All addresses")):
        for address in in_code(addresses):
            for method in in_code(methods):
                yield (address, method), needs


def test_every_address_and_method_is_documented_and_there(operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    addresses = [address for address, _ in documented()]
    assert sorted(addresses) == sorted(operations)


def test_every_address_needs_what_the_document_says(operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    for address, needs in documented():
        said = operations[address]["description"].partition(".")[0]
        named = set(re.findall(r"`(read|write|delete|admin)`", said))
        assert set(in_code(needs)) == named, address
        assert ("open to all" in needs and address != ("/", "GET")) is not bool(named), address
        assert ("link" in needs) is ("signed link" in said), address


def test_the_address_for_other_daemons_is_told() -> None:
    assert f"`GET {PARTS}/{{upload}}`" in TEXT


def errors(kind: type[RequestError] = RequestError) -> Iterator[type[RequestError]]:
    for each in kind.__subclasses__():
        yield each
        yield from errors(each)


def test_every_error_is_documented_and_there() -> None:
    there_are = {
        (f"`{error.code}`", str(error.status), error.title)
        for error in errors()
        if error.__module__ == "filestored.errors"
    }
    table = rows(section(TEXT, "## Errors"))
    assert len(table) == len(there_are) > 15
    assert {(code, status, title) for code, status, title, _ in table} == there_are


def test_the_example_of_an_error_has_the_members_of_one(daemon: Daemon) -> None:
    ((language, shown),) = blocks(section(TEXT, "## Errors"))
    answer = httpx.get(f"{daemon.url}/{'0' * 64}")
    assert language == "json"
    assert answer.headers["content-type"] == "application/problem+json"
    pattern = re.escape(shown.strip()).replace("…", "0*")
    assert re.fullmatch(pattern, answer.text), answer.text
