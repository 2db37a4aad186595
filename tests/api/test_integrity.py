import base64
import hashlib
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestored.api.integrity import Expected, expected_digests, repr_digest
from filestored.digest import Algorithm, Digest
from filestored.errors import BadRequest

SHA256 = hashlib.sha256(b"x").digest()
SHA512 = hashlib.sha512(b"x").digest()
MD5 = hashlib.md5(b"x").digest()
SHA1 = hashlib.sha1(b"x").digest()


def encoded(digest: bytes) -> bytes:
    return b":" + base64.b64encode(digest) + b":"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", []),
        (b"sha-256=" + encoded(SHA256), [("sha256", SHA256)]),
        (b" sha-256=" + encoded(SHA256) + b" ", [("sha256", SHA256)]),
        (b"sha-512=" + encoded(SHA512) + b" ,\tmd5=" + encoded(MD5), [("sha512", SHA512), ("md5", MD5)]),
        (b"sha=" + encoded(SHA1), [("sha1", SHA1)]),
        (b"sha-256=" + encoded(SHA256) + b';a=1; b="x,y";c', [("sha256", SHA256)]),
        (b"sha-256=" + encoded(SHA256).replace(b"=:", b":"), [("sha256", SHA256)]),
        (b"sha-256=" + encoded(SHA512) + b", sha-256=" + encoded(SHA256), [("sha256", SHA256)]),
        (b'unixsum=:AAA=:, new="x\\"y", crc=12, on, off=?0, d=@16, sha-256=' + encoded(SHA256), [("sha256", SHA256)]),
        (b"unknown=:AAAA:", []),
    ],
)
def test_announced_digests_are_read(header: bytes, expected: list[tuple[str, bytes]]) -> None:
    for name, field in ((b"repr-digest", "Repr-Digest"), (b"content-digest", "Content-Digest")):
        found = expected_digests({name: header})
        assert list(found) == [Expected(algorithm, digest, field) for algorithm, digest in expected]


def test_all_headers_count() -> None:
    headers = {
        b"repr-digest": b"sha-256=" + encoded(SHA256),
        b"content-digest": b"sha-512=" + encoded(SHA512),
        b"content-md5": base64.b64encode(MD5),
    }
    assert expected_digests(headers) == (
        Expected("sha256", SHA256, "Repr-Digest"),
        Expected("sha512", SHA512, "Content-Digest"),
        Expected("md5", MD5, "Content-MD5"),
    )


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        (b"repr-digest", b"sha-256", "Repr-Digest"),
        (b"repr-digest", b"sha-256=", "Repr-Digest"),
        (b"repr-digest", b"sha-256=" + SHA256.hex().encode(), "Repr-Digest"),
        (b"repr-digest", b"sha-256=" + base64.b64encode(SHA256), "Repr-Digest"),
        (b"repr-digest", b"sha-256=::", "Repr-Digest"),
        (b"repr-digest", b"sha-256=:A=A:", "Repr-Digest"),
        (b"repr-digest", b"sha-256=:A:", "Repr-Digest"),
        (b"repr-digest", b"sha-256=" + encoded(MD5), "Repr-Digest"),
        (b"repr-digest", b"SHA-256=" + encoded(SHA256), "Repr-Digest"),
        (b"repr-digest", b"sha-256=" + encoded(SHA256) + b",", "Repr-Digest"),
        (b"repr-digest", b"sha-256=" + encoded(SHA256) + b" md5", "Repr-Digest"),
        (b"repr-digest", b"sha-256 =" + encoded(SHA256), "Repr-Digest"),
        (b"content-digest", b"???", "Content-Digest"),
        (b"content-md5", MD5.hex().encode(), "Content-MD5"),
        (b"content-md5", b"", "Content-MD5"),
        (b"content-md5", b"!!!", "Content-MD5"),
    ],
)
def test_a_malformed_digest_is_refused_by_the_name_of_its_header(name: bytes, value: bytes, field: str) -> None:
    with pytest.raises(BadRequest, match=f"^{field} "):
        expected_digests({name: value})


def test_what_is_sent_can_be_read_back() -> None:
    header = repr_digest(Algorithm.SHA256, Digest(SHA256.hex()))
    assert header == b"sha-256=" + encoded(SHA256)
    assert repr_digest(Algorithm.SHA512, Digest(SHA512.hex())) == b"sha-512=" + encoded(SHA512)
    assert expected_digests({b"repr-digest": header})[0].digest == SHA256


def test_only_current_algorithms_are_announced() -> None:
    assert repr_digest(Algorithm.MD5, Digest(MD5.hex())) is None
    assert repr_digest(Algorithm.SHA1, Digest(SHA1.hex())) is None
    assert repr_digest(Algorithm.BLAKE3, Digest(SHA256.hex())) is None


@given(st.binary() | st.text('sha-256=:A=,; "\\?1(').map(str.encode))
def test_any_header_is_read_or_refused(value: bytes) -> None:
    for name in (b"repr-digest", b"content-md5"):
        try:
            found = expected_digests({name: value})
        except BadRequest:
            continue
        assert all(len(item.digest) == hashlib.new(item.algorithm).digest_size for item in found)


@pytest.mark.parametrize("unit", [b"a=:", b"a;", b'a="', b"a,", b"a;b=", b"a , "])
def test_a_long_header_costs_no_more_than_its_length(unit: bytes) -> None:
    began = time.process_time()
    with suppress(BadRequest):
        assert expected_digests({b"repr-digest": unit * 100_000}) == ()
    assert time.process_time() - began < 2
