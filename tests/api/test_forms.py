"""Fields and files of a form that are not what they seem."""

import hashlib
import os

import httpx
import pytest

Field = tuple[str, tuple[str | None, bytes] | tuple[str | None, bytes, str]]


def send(client: httpx.Client, *fields: Field) -> httpx.Response:
    return client.post("/", files=list(fields))


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512"])
def test_a_hash_of_another_algorithm_may_come_before_the_file(client: httpx.Client, algorithm: str) -> None:
    body = os.urandom(100)
    right = (None, hashlib.new(algorithm, body).hexdigest().encode())
    file = ("file", ("a.bin", body))
    assert send(client, ("file_hash", right), file).text == hashlib.sha256(body).hexdigest()
    wrong = (None, hashlib.new(algorithm, b"else").hexdigest().encode())
    assert send(client, ("file_hash", wrong), file).status_code == 422
    late = send(client, ("file", ("a.bin", os.urandom(100))), ("file_hash", right))
    assert (late.status_code, "before the file" in late.json()["detail"]) == (400, True)


def test_the_stores_own_hash_may_come_before_or_after_it(client: httpx.Client) -> None:
    body = os.urandom(100)
    right = ("file_hash", (None, hashlib.sha256(body).hexdigest().encode()))
    file = ("file", ("a.bin", body))
    assert send(client, right, file).status_code == send(client, file, right).status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "text/csv", "application/json", "application/ld+json"])
def test_a_field_of_text_is_no_file_whatever_its_type(client: httpx.Client, media_type: str) -> None:
    body = os.urandom(100)
    answer = send(client, ("meta", (None, b'{"a": 1}', media_type)), ("file", ("a.bin", body)))
    assert (answer.status_code, answer.text) == (200, hashlib.sha256(body).hexdigest())


def test_a_file_without_a_name_is_one_all_the_same(client: httpx.Client) -> None:
    body = os.urandom(100)
    answer = send(client, ("file", (None, body, "application/octet-stream")))
    assert (answer.status_code, answer.text) == (200, hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("media_type", ["text/csv", "application/json"])
def test_text_that_has_a_type_is_the_file_where_there_is_no_other(client: httpx.Client, media_type: str) -> None:
    body = os.urandom(50).hex().encode()
    answer = send(client, ("file", (None, body, media_type)))
    assert (answer.status_code, answer.text) == (200, hashlib.sha256(body).hexdigest())


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"


def test_a_field_for_a_file_in_which_none_was_chosen_is_passed_over(client: httpx.Client) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    none = b'name="one"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n'
    body = os.urandom(50).hex().encode()
    both = client.post("/", content=form(none, b'name="two"; filename="a"\r\n\r\n' + body), headers=headers)
    assert (both.status_code, both.text) == (200, hashlib.sha256(body).hexdigest())
    # an empty file that has a name is one, and so is one that is all there is
    for part in (none, b'name="one"; filename="empty"\r\n\r\n'):
        alone = client.post("/", content=form(part), headers=headers)
        assert (alone.status_code, alone.text) == (200, hashlib.sha256(b"").hexdigest())
