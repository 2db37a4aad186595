import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.names import (
    clean_name,
    content_disposition,
    disposition_parameters,
    guess_type,
    is_harmless_inline,
    name_from_disposition,
    parse_media_type,
)
from filestored.errors import BadRequest

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text("./\\\"'%;=*\r\n\0 aé\u202e\ud800", max_size=40)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("report.pdf", "report.pdf"),
        (" отчёт (1).pdf ", " отчёт (1).pdf "),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\fakepath/a.txt", "a.txt"),
        (".bashrc", ".bashrc"),
        ("a\r\nSet-Cookie: x\0.txt", "aSet-Cookie: x.txt"),
        ("gpj\u202excod.exe", "gpjxcod.exe"),
        ("half\ud800.txt", "half.txt"),
        ("", None),
        ("dir/", None),
        (".", None),
        ("x/..", None),
        (".\x00.", None),
        ("\x07", None),
    ],
)
def test_a_name_is_kept_but_for_its_path_and_control_characters(raw: str, name: str | None) -> None:
    assert clean_name(raw) == name


def test_a_long_name_keeps_its_extension_and_whole_characters() -> None:
    assert clean_name("ж" * 200 + ".tar.gz") == "ж" * 126 + ".gz"
    assert clean_name("ж" * 200 + ".txt") == "ж" * 125 + ".txt"
    assert clean_name("a" * 300) == "a" * 255
    assert clean_name("a." + "b" * 300) == "a." + "b" * 253
    assert clean_name("." + "b" * 300) == "." + "b" * 254


@given(ANY_TEXT)
def test_a_clean_name_is_safe_and_stays_as_it_is(raw: str) -> None:
    name = clean_name(raw)
    if name is not None:
        assert 0 < len(name.encode()) <= 255
        assert not set(name) & set("/\\")
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
        assert clean_name(name) == name


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="/\\"), min_size=1, max_size=60))
def test_an_ordinary_name_is_kept_as_given(name: str) -> None:
    assert clean_name(name) == (None if name in (".", "..") else name)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ('attachment; filename="a.txt"', "a.txt"),
        ("attachment;filename=a.txt", "a.txt"),
        ("attachment; FileName = a.txt ; size=3", "a.txt"),
        ('filename="a.txt"', "a.txt"),
        ('form-data; name="x"; filename=""', ""),
        ('form-data; name="filename=y"; filename="z"', "z"),
        (r'form-data; filename="a\"b\\c.txt"', 'a"b\\c.txt'),
        (r'form-data; filename="C:\new\a.txt"', r"C:\new\a.txt"),
        ('form-data; filename="a%22b%0D%0A%20.txt"', 'a"b\r\n%20.txt'),
        ('form-data; filename="отчёт; 1.txt"', "отчёт; 1.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        ("attachment; filename*=UTF-8''a%22%25.txt", 'a"%.txt'),
        ("attachment; filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("attachment; filename=\"x\"; filename*=utf-8''y", "y"),
        ("attachment; filename*=utf-8''y; filename=\"x\"", "y"),
        ("attachment; filename=\"x\"; filename*=utf-8''%FF", "x"),
        ("attachment; filename=\"x\"; filename*=utf-7''y", "x"),
        ("attachment; filename*=nonsense", None),
        ("attachment", None),
        ("", None),
    ],
)
def test_the_name_is_found_in_a_disposition(value: str, name: str | None) -> None:
    assert name_from_disposition(value) == name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (None, b"inline"),
        ("", b"inline"),
        ("a b.txt", b'inline; filename="a b.txt"'),
        ("é.txt", b"inline; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ('a"b.txt', b"inline; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("50%41.txt", b"inline; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("a\r\nb", b"inline; filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab"),
    ],
)
def test_a_name_is_written_so_that_old_and_new_clients_read_it(name: str | None, header: bytes) -> None:
    assert content_disposition("inline", name) == header


@given(ANY_TEXT.filter(bool))
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    header = content_disposition("attachment", name)
    assert re.fullmatch(rb"attachment; filename=\"[^\"\\]+\"(; filename\*=UTF-8''[!#$&+^_`|~A-Za-z0-9.%-]+)?", header)
    assert all(0x20 <= byte < 0x7F for byte in header)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_written_name_is_read_back(name: str) -> None:
    assert name_from_disposition(content_disposition("attachment", name).decode()) == name


@given(ANY_TEXT)
def test_any_disposition_is_read(value: str) -> None:
    disposition_parameters(value)
    name = name_from_disposition("attachment; filename=" + value)
    assert name is None or isinstance(name, str)


@pytest.mark.parametrize("unit", ['a="', ";a=", ';a="\\"', "; ", ";a", "\\", ";a \t"])
def test_a_long_disposition_costs_no_more_than_its_length(unit: str) -> None:
    began = time.process_time()
    disposition_parameters(unit * 100_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.PNG", "image/png"),
        ("a.txt", "text/plain"),
        ("a.html", "text/html"),
        ("a.js", "text/javascript"),
        ("a.svg", "image/svg+xml"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.webp", "image/webp"),
        ("a.zst", "application/zstd"),
        ("data:text/html,a.png", "image/png"),
        ("README", "application/octet-stream"),
        (".png", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("a.unheard", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_the_type_is_guessed_from_the_extension(name: str, media_type: str) -> None:
    assert guess_type(name) == media_type


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        ("text/plain", "text/plain"),
        (" Image/PNG\t", "Image/PNG"),
        ("text/plain;charset=utf-8", "text/plain; charset=utf-8"),
        ("text/plain ;\t charset=utf-8 ; ; a=b;", "text/plain; charset=utf-8; a=b"),
        ('a/b; c="x; y=z\\""; d=e', 'a/b; c="x; y=z\\""; d=e'),
        ("a/" + "b" * 253, "a/" + "b" * 253),
    ],
)
def test_a_media_type_is_kept_with_its_whitespace_in_order(text: str, media_type: str) -> None:
    assert parse_media_type(text) == media_type
    assert parse_media_type(media_type) == media_type


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain/x",
        "text /plain",
        "text/plain; a",
        "text/plain; a =b",
        'text/plain; a="b',
        "text/plain, text/html",
        "text/plain\r\nX: y",
        "text/plain\n",
        "text/plain; a=é",
        "*/*;q=\x00",
        "a/" + "b" * 254,
        "a/b" + ";c=d" * 60,
        "a/b" + " ;" * 100 + "!\x01",
    ],
)
def test_a_malformed_media_type_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_media_type(text)


@given(ANY_TEXT | st.text('a/;= \t"\\', max_size=30))
def test_a_media_type_that_is_taken_fits_a_header(text: str) -> None:
    try:
        media_type = parse_media_type(text)
    except BadRequest:
        return
    assert re.fullmatch(r"[ -~]{3,255}", media_type)
    assert parse_media_type(media_type) == media_type


@pytest.mark.parametrize("media_type", ["image/png", "IMAGE/JPEG; a=b", "audio/ogg", "video/mp4 ", "Text/Plain;x=y"])
def test_what_cannot_act_is_shown_inline(media_type: str) -> None:
    assert is_harmless_inline(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "image/svg+xml",
        "image/SVG",
        "IMAGE/Svg+Xml; charset=utf-8",
        "video/foo+xml",
        "text/html",
        "text/plain2",
        "text/xml",
        "application/pdf",
        "application/javascript",
        "application/octet-stream",
        "image",
        "image/",
        "image/png, text/html",
        "ximage/png",
        "",
    ],
)
def test_what_might_act_is_not_shown_inline(media_type: str) -> None:
    assert not is_harmless_inline(media_type)
