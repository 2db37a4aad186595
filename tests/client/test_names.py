"""Names that a server tells never are paths, hidden or hostile, whatever they are."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.client.names import harmless_name, name_in


@given(st.text(max_size=400))
def test_any_name_is_one_plain_part_of_a_path(name: str) -> None:
    local = harmless_name(name, "fallback")
    assert local == os.path.basename(local)
    assert local not in ("", ".", "..")
    assert not local.startswith(".")
    assert len(local.encode()) <= 255
    assert local.isprintable() or not any(ord(sign) < 32 for sign in local)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (None, None), ("", None), ("inline", None), ("attachment; filename=\"a b.txt\"", "a b.txt"),
        ("attachment; filename=\"_.txt\"; filename*=UTF-8''%D0%AF.txt", "Я.txt"),
        ("attachment; filename*=utf-8'en'a%20b", "a b"), ("inline; filename=plain.txt", "plain.txt"),
        ("inline; filename*=UTF-8''%FF", "\ufffd"), ("attachment; filename=\"..\\\\..\\\\x\"", "..\\..\\x"),
    ],
)  # fmt: skip
def test_the_name_in_a_header(disposition: str | None, name: str | None) -> None:
    assert name_in(disposition) == name


@given(st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=200))
def test_no_header_is_too_strange(disposition: str) -> None:
    name_in(disposition)
    name_in(f"attachment; filename={disposition}")
