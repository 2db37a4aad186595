"""The header fields of tus: what they say comes out, and nothing but BadRequest comes of what is malformed."""

import os
import re
from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from filestored.api import tus
from filestored.api.names import clean_name
from filestored.catalogue.records import now_milliseconds
from filestored.digest import Algorithm, parse_digest
from filestored.errors import BadRequest, UnknownVersion
from tests.api.tus_client import encoded

T = TypeVar("T")

LATIN = st.characters(codec="latin-1")
IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
WORDS = (
    "sha1",
    "sha256",
    "md5",
    "final;",
    "partial",
    "hash",
    "expires_in",
    "filename",
    "/v1/uploads/",
    "http://",
    "=",
    ",",
)


def nearly(*, alphabet: str = " ,;=+/0123456789abcdefXYZ-\t\r\n\x00\x85\xa0\xff") -> st.SearchStrategy[str]:
    """Make texts that look like header fields of tus, more or less."""
    return st.lists(st.sampled_from(WORDS) | st.text(alphabet, max_size=12) | IDS, max_size=8).map("".join)


HOSTILE = st.text(LATIN) | nearly()


def read(function: Callable[..., T], *arguments: object) -> T | None:
    """Return what a text is read as; None where it is refused in the one way there is."""
    try:
        return function(*arguments)
    except BadRequest:
        return None


def matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True, alphabet=LATIN)


# the version


@pytest.mark.parametrize("version", [None, b"", b"1.0", b"1.0.0, 0.2.2", b" 1.0.0", b"2.0.0"])
def test_another_version_is_refused_with_the_right_one(version: bytes | None) -> None:
    with pytest.raises(UnknownVersion) as caught:
        tus.require_version({} if version is None else {b"tus-resumable": version})
    assert caught.value.headers == ((b"tus-version", b"1.0.0"),)
    tus.require_version({b"tus-resumable": b"1.0.0"})


# ids


@given(IDS)
def test_an_id_is_32_digits_of_lower_case_hex(text: str) -> None:
    assert tus.is_id(text)


@given(st.text() | st.text("0123456789abcdefABCDEF./\n٠", min_size=30, max_size=34))
def test_nothing_else_is_an_id(text: str) -> None:
    assert tus.is_id(text) == (len(text) == 32 and set(text) <= set("0123456789abcdef"))


# lengths and offsets


@given(st.integers(0, tus.MAX_LENGTH), st.integers(0, 3))
def test_a_size_is_read_as_the_number_it_is(size: int, zeros: int) -> None:
    assert tus.size_in({b"upload-offset": b"%d" % size}, "Upload-Offset") == size
    padded = b"0" * zeros + b"%d" % size
    if len(padded) <= 20:
        assert tus.size_in({b"upload-offset": padded}, "Upload-Offset") == size


@given(HOSTILE | st.integers().map(str))
def test_any_other_size_is_refused(text: str) -> None:
    size = read(tus.size_in, {b"upload-length": text.encode("latin-1")}, "Upload-Length")
    if size is not None:
        assert re.fullmatch("[0-9]+", text, re.ASCII)
        assert 0 <= size == int(text) <= tus.MAX_LENGTH


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "1.0", "1e3", "0x10", "1_000", "1 000", "²", str(tus.MAX_LENGTH + 1), "9" * 5000]
)
def test_what_looks_like_a_size_is_none(text: str) -> None:
    with pytest.raises(BadRequest, match="Upload-Length must be a whole number"):
        tus.size_in({b"upload-length": text.encode("latin-1")}, "Upload-Length")


def test_a_size_that_is_not_there_is_none() -> None:
    assert tus.size_in({b"upload-offset": b"1"}, "Upload-Length") is None


@given(st.none() | st.integers(0, tus.MAX_LENGTH), st.none() | st.sampled_from([b"1", b"0", b"true", b"", b"2"]))
def test_a_length_is_told_now_or_later_and_not_both(length: int | None, deferred: bytes | None) -> None:
    headers = {} if length is None else {b"upload-length": b"%d" % length}
    headers |= {} if deferred is None else {b"upload-defer-length": deferred}
    if (length is None) == (deferred == b"1") and deferred in (None, b"1"):
        assert tus.length_in(headers) == length
    else:
        with pytest.raises(BadRequest):
            tus.length_in(headers)


# metadata


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["filename", "name"]))
def test_a_name_in_the_metadata_is_that_of_the_file(name: str, key: str) -> None:
    wish, expected = tus.details_in(encoded(**{key: name}))
    assert wish.name == (clean_name(name) if name else None)
    assert (wish.media_type, wish.expires_at, expected) == (None, None, None)


def test_what_tus_names_goes_before_what_uppy_names() -> None:
    wish, _ = tus.details_in(encoded(name="uppy.txt", filename="tus.txt", type="text/css", filetype="text/html"))
    assert (wish.name, wish.media_type) == ("tus.txt", "text/html")
    wish, _ = tus.details_in(encoded(name="uppy.txt", filename="", type="text/css", filetype=""))
    assert (wish.name, wish.media_type) == ("uppy.txt", "text/css")


@pytest.mark.parametrize("text", ["", " ", "filename ", "filename", "filename,filetype ", "is_confidential"])
def test_metadata_may_be_empty_and_so_may_its_values(text: str) -> None:
    wish, expected = tus.details_in(text)
    assert (wish.name, wish.media_type, wish.expires_at, expected) == (None, None, None, None)


@given(st.sampled_from(list(Algorithm)), st.binary(max_size=9), st.booleans())
def test_a_hash_in_the_metadata_is_what_the_file_must_have(algorithm: Algorithm, body: bytes, is_upper: bool) -> None:
    digest = algorithm.new(body).hexdigest()
    assert tus.details_in(encoded(hash=digest.upper() if is_upper else digest)).expected == digest


@pytest.mark.parametrize("text", ["x", "abc", "../../etc/passwd", "ab" * 31, "ab" * 33, "٠" * 64, "a" * 2900])
def test_any_other_hash_in_the_metadata_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="hash"):
        tus.details_in(encoded(hash=text))


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("90m", 5400), ("7d", 604_800)])
def test_a_life_in_the_metadata_begins_when_it_is_read(text: str, seconds: int) -> None:
    before = now_milliseconds()
    end = tus.details_in(encoded(expires_in=text)).wish.expires_at
    assert isinstance(end, int)
    assert before + seconds * 1000 <= end <= now_milliseconds() + seconds * 1000


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1y", "NaN", "9" * 400])
def test_any_other_life_in_the_metadata_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="expires_in"):
        tus.details_in(encoded(expires_in=text))


@pytest.mark.parametrize(
    "text",
    [
        "filename *", "filename YQ==,filename YQ==", ",", "filename YQ==,", " ,a", "ключ YQ==", "a\x00b YQ==",
        "filename YQ== YQ==", "filename Y", "filename =", "filename YQ==YQ==", "k" * 256 + " YQ==",
        "filename Y\nQ==", "filename YQ\xe9=", "filename -_==",
    ],
)  # fmt: skip
def test_malformed_metadata_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="Upload-Metadata"):
        tus.details_in(text)


def test_metadata_has_a_longest_length() -> None:
    longest = "k " + "QUJD" * ((tus.MAX_DETAILS_BYTES - 2) // 4)
    tus.details_in(longest)
    with pytest.raises(BadRequest, match="bytes at the most"):
        tus.details_in(longest + "QUJD")


@given(HOSTILE | st.dictionaries(st.sampled_from(["filename", "filetype", "hash", "expires_in", "x"]), st.binary()).map(
    lambda pairs: encoded(**pairs)
))  # fmt: skip
def test_whatever_stands_in_metadata_is_read_as_something_clean_or_refused(text: str) -> None:
    details = read(tus.details_in, text)
    if details is None:
        return
    wish, expected = details
    assert wish.name is None or clean_name(wish.name) == wish.name
    assert expected is None or parse_digest(expected) == expected
    assert wish.media_type is None or wish.media_type.isprintable()


@given(matching(tus.METADATA_PATTERN))
def test_metadata_that_fits_the_document_is_read(text: str) -> None:
    keys = [item.partition(" ")[0] for item in text.split(",")]
    assume(len(set(keys)) == len(keys) and len(text) <= tus.MAX_DETAILS_BYTES)
    assume(not {"filetype", "type", "hash", "expires_in"} & set(keys))
    tus.details_in(text)


# checksums


@given(st.sampled_from(list(tus.CHECKSUMS)), st.binary(max_size=100), st.booleans())
def test_a_checksum_is_that_of_the_bytes_it_was_made_of(algorithm: str, body: bytes, has_padding: bool) -> None:
    text = b64encode(Algorithm(algorithm).new(body).digest()).decode()
    value = f"{algorithm} {text if has_padding else text.rstrip('=')}"
    checksum = tus.checksum_in({b"upload-checksum": value.encode()})
    assert checksum is not None
    taken = checksum.begin()
    taken.update(body)
    assert taken.digest() == checksum.digest
    taken.update(b"more")
    assert taken.digest() != checksum.digest


@given(matching(tus.CHECKSUM_PATTERN))
def test_a_checksum_that_fits_the_document_is_read(text: str) -> None:
    checksum = tus.checksum_in({b"upload-checksum": text.encode()})
    assert checksum is not None
    assert len(checksum.digest) == len(checksum.begin().digest())


@given(HOSTILE)
def test_whatever_stands_in_a_checksum_is_read_or_refused(text: str) -> None:
    checksum = read(tus.checksum_in, {b"upload-checksum": text.encode("latin-1")})
    if checksum is not None:
        assert len(checksum.digest) == tus.CHECKSUMS[checksum.algorithm]


@pytest.mark.parametrize(
    "text",
    [
        "", "sha1", "sha1 ", "crc32 AAAAAA==", "SHA1 " + "A" * 27 + "=", "sha1 " + "A" * 43 + "=", "sha256 " + "A" * 27,
        "md5 " + "A" * 21, "sha1:" + "A" * 27 + "=", "sha1 " + "*" * 27 + "=", "blake3 " + "A" * 43 + "=",
        "sha512 " + "A" * 86 + "==",
    ],
)  # fmt: skip
def test_any_other_checksum_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        tus.checksum_in({b"upload-checksum": text.encode()})


def test_no_checksum_is_none() -> None:
    assert tus.checksum_in({}) is None


# concatenation


@given(st.lists(st.tuples(st.sampled_from(["", "http://localhost:9000", "https://a.example"]), IDS), min_size=1))
def test_the_parts_of_a_final_upload_are_named_in_their_order(parts: list[tuple[str, str]]) -> None:
    value = "final;" + " ".join(f"{base}/v1/uploads/{part}" for base, part in parts)
    concat = tus.concat_in({b"upload-concat": value.encode()})
    assert concat == value
    assert tus.parts_in(concat) == [part for _, part in parts]


def test_a_part_has_no_parts() -> None:
    assert tus.concat_in({b"upload-concat": b"partial"}) == "partial"
    assert tus.parts_in("partial") is None
    assert tus.concat_in({}) is None
    assert tus.parts_in(None) is None


@pytest.mark.parametrize("text", ["", "Partial", "partial;", "final", "finally;/v1/uploads/" + "a" * 32, "both"])
def test_any_other_concatenation_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="Upload-Concat"):
        tus.concat_in({b"upload-concat": text.encode()})


@pytest.mark.parametrize(
    "address",
    [
        "", " ", "/v1/uploads/", "/v1/uploads/xyz", "/v1/uploads/" + "A" * 32, "/v1/uploads/" + "a" * 33, "a" * 32,
        "/v1/uploads/../uploads/" + "a" * 32, "/v1/uploads/" + "a" * 32 + "?x", "ftp://x/v1/uploads/" + "a" * 32,
        "http:///v1/uploads/" + "a" * 32, "http://x/y/v1/uploads/" + "a" * 32, "x" * 50_000,
    ],
)  # fmt: skip
def test_addresses_of_no_upload_are_refused(address: str) -> None:
    for text in (f"final;{address}", f"final;/v1/uploads/{'b' * 32} {address}"):
        if address.strip() or text.endswith(";" + address):
            with pytest.raises(BadRequest, match="Upload-Concat") as caught:
                tus.parts_in(text)
            assert len(caught.value.detail) < 500


@given(matching(tus.CONCAT_PATTERN))
def test_a_concatenation_that_fits_the_document_is_read(text: str) -> None:
    concat = tus.concat_in({b"upload-concat": text.encode("latin-1")})
    assert concat == text
    assert (tus.parts_in(concat) is None) == (text == "partial")


@given(HOSTILE)
def test_whatever_stands_in_a_concatenation_is_read_as_ids_or_refused(text: str) -> None:
    concat = read(tus.concat_in, {b"upload-concat": text.encode("latin-1")})
    parts = read(tus.parts_in, concat)
    assert all(tus.is_id(part) for part in parts or [])


def test_a_name_is_never_longer_than_a_file_system_takes() -> None:
    name = tus.details_in(encoded(filename=os.urandom(1400).hex() + ".txt")).wish.name
    assert name is not None
    assert len(name) == 255
    assert name.endswith(".txt")
