import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.multipart import (
    MAX_PART_HEADER_BYTES,
    MAX_PART_HEADERS,
    MAX_PARTS,
    MultipartReader,
    PartBegin,
    PartBody,
    PartEnd,
)
from filestored.errors import BadRequest, HeadersTooLarge, RequestError, TooLarge

TYPE = "multipart/form-data; boundary=b0"
FILE_HEAD = b'Content-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n'


@dataclass
class Part:
    begin: PartBegin
    body: bytes = b""
    is_complete: bool = field(default=False)


def read(*chunks: bytes, content_type: str = TYPE, finish: bool = True) -> list[Part]:
    reader = MultipartReader(content_type)
    parts: list[Part] = []
    for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartBegin):
                parts.append(Part(event))
            elif isinstance(event, PartBody):
                assert len(event.body)
                assert not parts[-1].is_complete
                parts[-1].body += event.body
            else:
                assert isinstance(event, PartEnd)
                parts[-1].is_complete = True
    if finish:
        reader.finish()
    return parts


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b0\r\n" + part + b"\r\n" for part in parts) + b"--b0--\r\n"


def test_files_and_fields_come_in_their_order() -> None:
    parts = read(
        form(
            b'Content-Disposition: form-data; name="name"\r\n\r\nreport',
            b'Content-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: text/html\r\n\r\nbytes\r\n',
            b'content-disposition: form-data; name="\xd0\xb9"; filename=""\r\n\r\n',
        )
    )
    assert [(part.begin.name, part.begin.file_name, part.body) for part in parts] == [
        ("name", None, b"report"),
        ("f", "a.txt", b"bytes\r\n"),
        ("й", "", b""),
    ]
    assert [part.begin.is_file for part in parts] == [False, True, True]
    assert parts[1].begin.headers[b"content-type"] == b"text/html"
    assert all(part.is_complete for part in parts)


@pytest.mark.parametrize(
    ("head", "is_file"),
    [
        (b'Content-Disposition: form-data; name="x"', False),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: Text/Plain; charset=utf-8', False),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: application/json', True),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: application/octet-stream', True),
        (b'Content-Disposition: form-data; name="x"\r\nContent-Type: image/svg+xml', True),
        (b"Content-Disposition: form-data; name=\"x\"; filename*=UTF-8''y", True),
        (b"X: y", False),
    ],
)
def test_a_file_name_or_another_type_makes_a_file(head: bytes, is_file: bool) -> None:
    assert read(form(head + b"\r\n\r\n1"))[0].begin.is_file is is_file


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=é",
        'multipart/form-data; boundary="a\r\nb"',
        "",
    ],
)
def test_without_a_usable_boundary_nothing_is_read(content_type: str) -> None:
    with pytest.raises(BadRequest):
        MultipartReader(content_type)


@pytest.mark.parametrize("boundary", ["b", "b" * 70, '"a b"', "----WebKitFormBoundaryx/=?", "'()+_,-./:=?"])
def test_every_boundary_of_the_rfc_is_usable(boundary: str) -> None:
    delimiter = b"--" + boundary.strip('"').encode()
    body = delimiter + b"\r\n" + FILE_HEAD + b"x\r\n" + delimiter + b"--"
    assert read(body, content_type=f"multipart/form-data; boundary={boundary}; charset=utf-8")[0].body == b"x"


def test_preamble_and_epilogue_are_ignored() -> None:
    assert [part.body for part in read(b"pre\r\n--b\r\n", form(FILE_HEAD + b"x"), b"--b0\r\nepilogue")] == [b"x"]
    assert [part.body for part in read(b"\r\n", form(FILE_HEAD + b"x"))] == [b"x"]


def test_blanks_after_a_delimiter_are_ignored() -> None:
    assert [part.body for part in read(b"--b0 \t\r\n", FILE_HEAD, b"x\r\n--b0  \r\n", FILE_HEAD, b"y\r\n--b0--")] == [
        b"x",
        b"y",
    ]


def test_what_only_looks_like_a_delimiter_is_body() -> None:
    body = b"\r\n--b\r\n--b1\r\n--b0x\r\n--b0-x\r--b0\n--b0--\r\n\r\r\n-"
    assert read(form(FILE_HEAD + body))[0].body == body


def test_a_form_without_parts_has_none() -> None:
    assert read(b"--b0--\r\n") == []


def test_a_nested_multipart_is_an_ordinary_file() -> None:
    body = b"--c\r\n\r\nx\r\n--c--"
    parts = read(
        form(b'Content-Disposition: form-data; name="f"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n' + body)
    )
    assert [(part.begin.is_file, part.body) for part in parts] == [(True, body)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b0",
        b"--b0\r\n",
        b"--b0\r\n" + FILE_HEAD + b"x",
        b"--b0\r\n" + FILE_HEAD + b"x\r\n--b0",
        b"--b0\r\n" + FILE_HEAD + b"x\r\n--b0-",
        b"--b0\n" + FILE_HEAD + b"x\n--b0--\n",
        b"--other\r\n" + FILE_HEAD + b"x\r\n--other--\r\n",
    ],
)
def test_a_form_that_ends_early_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body)


@pytest.mark.parametrize(
    "head",
    [
        b"no colon\r\n\r\n",
        b": no name\r\n\r\n",
        b"a b: c\r\n\r\n",
        b"a: b\r\n folded\r\n\r\n",
        b"a: b\0c\r\n\r\n",
        b"a: b\nc: d\r\n\r\n",
        b"a: b\rc\r\n\r\n",
        b"Content-Type: a/b\r\ncontent-type: text/plain\r\n\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        read(form(head + b"x"))


@pytest.mark.parametrize("encoding", [b"7bit", b"8BIT", b"binary"])
def test_a_transfer_encoding_that_changes_nothing_is_taken(encoding: bytes) -> None:
    assert read(form(b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\nx"))[0].body == b"x"


def test_repeated_headers_of_lists_are_one_list() -> None:
    headers = read(form(b"Repr-Digest: a\r\nRepr-Digest: b\r\n\r\nx"))[0].begin.headers
    assert headers == {b"repr-digest": b"a, b"}


def test_too_many_parts_are_refused() -> None:
    assert len(read(form(*[b"\r\n"] * MAX_PARTS))) == MAX_PARTS
    with pytest.raises(TooLarge):
        read(form(*[b"\r\n"] * (MAX_PARTS + 1)))


def test_too_many_headers_of_a_part_are_refused() -> None:
    headers = b"".join(b"h%d: x\r\n" % number for number in range(MAX_PART_HEADERS))
    assert len(read(form(headers + b"\r\nx", headers + b"\r\nx"))[1].begin.headers) == MAX_PART_HEADERS
    with pytest.raises(HeadersTooLarge):
        read(form(headers + b"one: more\r\n\r\nx"))


@pytest.mark.parametrize("step", [1 << 20, 1000])
@pytest.mark.parametrize(
    "head",
    [
        b"a: " + b"b" * MAX_PART_HEADER_BYTES,
        b"a: " + b" " * MAX_PART_HEADER_BYTES,
        b"a" * (MAX_PART_HEADER_BYTES + 1),
        b"a: " + b"b" * 9000 + b"\r\nc: " + b"d" * 9000,
    ],
)
def test_too_long_headers_of_a_part_are_refused_before_they_end(head: bytes, step: int) -> None:
    body = b"--b0\r\n" + head
    with pytest.raises(HeadersTooLarge):
        read(*(body[start : start + step] for start in range(0, len(body), step)), b"\r\n", finish=False)


def test_a_large_body_is_not_copied() -> None:
    reader = MultipartReader(TYPE)
    reader.feed(b"--b0\r\n" + FILE_HEAD)
    chunk = bytes(1 << 17)
    (event,) = reader.feed(chunk)
    assert isinstance(event, PartBody)
    assert isinstance(event.body, memoryview)
    assert event.body.obj is chunk
    assert event.body.nbytes == len(chunk)


def test_a_malformed_body_writes_nothing_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(BadRequest):
        read(b"--b0\r\n: \r\n")
    assert not caplog.records


@given(st.data())
def test_however_the_body_is_split_the_parts_are_the_same(data: st.DataObject) -> None:
    bodies = data.draw(
        st.lists(
            st.lists(
                st.sampled_from([b"\r\n", b"\r", b"\n", b"--b", b"\r\n--b", b"\r\n--b0x", b"0", b"-", b"x", bytes(50)]),
                max_size=8,
            ).map(b"".join),
            max_size=4,
        )
    )
    bodies = [body for body in bodies if b"\r\n--b0" not in b"\r\n" + body.replace(b"\r\n--b0x", b"")]
    preamble = data.draw(st.sampled_from([b"", b"\r\n", b"pre-b0\r\n"]))
    raw = preamble + form(*(FILE_HEAD + body for body in bodies)) + b"epilogue"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=20)))
    chunks = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert [part.body for part in read(*chunks)] == bodies
    single = read(*(raw[index : index + 1] for index in range(len(raw))))
    assert single == read(raw) == read(*chunks)


@given(
    st.lists(
        st.binary(max_size=30)
        | st.sampled_from(
            [b"--b0", b"\r\n", b"\r\n--b0\r\n", b"--b0--", FILE_HEAD, b"Content-Type:", b": ", b"\r\n\r\n"]
        )
    )
)
def test_any_bytes_are_read_or_refused_in_order(chunks: list[bytes]) -> None:
    with suppress(RequestError):
        assert all(part.is_complete for part in read(*chunks))


@given(st.text())
def test_any_content_type_is_read_or_refused(text: str) -> None:
    with suppress(BadRequest):
        MultipartReader(f"multipart/form-data; boundary={text}")


@pytest.mark.parametrize("unit", [b"\r", b"\r\n", b"\r\n--b", b"\r\n--b0x", b"\r\n--b0-", b"x"])
def test_no_body_is_slow_to_read(unit: bytes) -> None:
    reader = MultipartReader(TYPE)
    reader.feed(b"--b0\r\n" + FILE_HEAD)
    chunk = unit * (131072 // len(unit))
    began = time.process_time()
    for _ in range(16):
        reader.feed(chunk)
    assert time.process_time() - began < 2
