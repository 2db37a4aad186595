"""docs/client.md names everything that is public, and nothing that is not there."""

import inspect
import re
from pathlib import Path

import pytest

import filestored.client
from filestored import AsyncClient, Client
from filestored.client.errors import ClientError
from filestored.client.filesystem import FilestoredFileSystem

TEXT = (Path(__file__).parent.parent.parent / "docs" / "client.md").read_text()


def options_of(call: object) -> list[str]:
    """Return the names of a call's parameters, those of any name left out."""
    parameters = inspect.signature(call).parameters.values()  # type: ignore[arg-type]
    return [each.name for each in parameters if each.name != "self" and each.kind is not each.VAR_KEYWORD]


def methods_of(kind: type) -> dict[str, list[str]]:
    """Return the public methods of a class with the names of their parameters."""
    return {name: options_of(call) for name, call in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}


def test_the_methods_in_the_table_are_those_of_the_client() -> None:
    rows = re.findall(r"^\| `(\w+)\((.*?)\)`", TEXT, re.MULTILINE)
    documented = {name: re.findall(r"\w+", parameters) for name, parameters in rows}
    assert documented == methods_of(Client)


def test_both_clients_have_the_same_methods() -> None:
    assert methods_of(AsyncClient) == methods_of(Client)
    assert options_of(AsyncClient) == options_of(Client)


def test_every_public_name_is_documented() -> None:
    for name in filestored.client.__all__:
        assert re.search(rf"\b{name}\b", TEXT), name


@pytest.mark.parametrize(("kind", "heading"), [(Client, "From Python"), (FilestoredFileSystem, "Through fsspec")])
def test_every_option_has_a_row(kind: type, heading: str) -> None:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = section.partition("| option |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(options_of(vars(kind)["__init__"]))


def test_every_error_has_a_row_with_its_exit_status() -> None:
    table = TEXT.partition("| error |")[2].partition("\n\n")[0]
    documented = {name: int(status) for name, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", table, re.MULTILINE)}
    errors = [getattr(filestored.client, name) for name in filestored.client.__all__]
    assert documented == {
        error.__name__: error.exit_status
        for error in errors
        if isinstance(error, type) and issubclass(error, ClientError)
    }
