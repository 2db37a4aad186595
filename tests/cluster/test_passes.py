"""What proves to a daemon that another has passed a request on: good for nothing else."""

from dataclasses import replace

import pytest

from filestored.cluster.passes import GOOD_MILLISECONDS, Origin, Passes, Request
from filestored.signing import Signer, new_key

KEY = new_key()
ORIGIN = Origin("192.0.2.7", True, "https", "files.example:8443")
REQUEST = Request("PATCH", "/v1/uploads/ab", {b"upload-offset": b"5", b"authorization": b"Bearer x", b"accept": b"*/*"})
NOW = 1_700_000_000_000


@pytest.fixture
def passes() -> Passes:
    return Passes(Signer(KEY))


def test_a_pass_says_where_the_request_came_from(passes: Passes) -> None:
    text = passes.make(REQUEST, ORIGIN, "daemon", NOW)
    assert Passes(Signer(KEY)).read(text, REQUEST, "daemon", NOW + 1000) == ORIGIN


def test_headers_that_are_not_passed_on_do_not_matter(passes: Passes) -> None:
    text = passes.make(REQUEST, ORIGIN, "daemon", NOW)
    other = replace(REQUEST, headers={**REQUEST.headers, b"accept": b"text/html"})
    assert passes.read(text, other, "daemon", NOW) == ORIGIN
    assert dict(REQUEST.passed()) == {b"upload-offset": b"5", b"authorization": b"Bearer x"}


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, method="DELETE"),
        replace(REQUEST, target="/v1/uploads/cd"),
        replace(REQUEST, target="/v1/uploads/ab?x"),
        replace(REQUEST, headers={**REQUEST.headers, b"upload-offset": b"6"}),
        replace(REQUEST, headers={**REQUEST.headers, b"content-length": b"6"}),
        replace(REQUEST, headers={b"upload-offset": b"5"}),
    ],
)
def test_a_pass_is_for_one_request(passes: Passes, request_: Request) -> None:
    assert passes.read(passes.make(REQUEST, ORIGIN, "daemon", NOW), request_, "daemon", NOW) is None


def test_a_pass_is_for_one_daemon_and_a_short_time(passes: Passes) -> None:
    text = passes.make(REQUEST, ORIGIN, "daemon", NOW)
    assert passes.read(text, REQUEST, "other", NOW) is None
    for off in (-GOOD_MILLISECONDS - 1, GOOD_MILLISECONDS + 1):
        assert passes.read(text, REQUEST, "daemon", NOW + off) is None


def test_a_signature_is_known_before_anybody_asks_for_the_time(passes: Passes) -> None:
    text = passes.make(REQUEST, ORIGIN, "daemon", NOW)
    assert passes.is_signed(text, REQUEST)
    assert not passes.is_signed(Passes(Signer(new_key())).make(REQUEST, ORIGIN, "daemon", NOW), REQUEST)
    for forged in (b"", b"x", b".", b"e30.AAAA", b"." * 5000):
        assert not passes.is_signed(forged, REQUEST)


def test_only_who_has_the_key_can_make_one(passes: Passes) -> None:
    assert passes.read(Passes(Signer(new_key())).make(REQUEST, ORIGIN, "daemon", NOW), REQUEST, "daemon", NOW) is None
    text = passes.make(REQUEST, ORIGIN, "daemon", NOW)
    payload, _, signature = text.rpartition(b".")
    for changed in (
        b"",
        b".",
        payload,
        signature,
        payload + b"x." + signature,
        payload + b"." + signature[:-1],
        b"x" * 9,
    ):
        assert passes.read(changed, REQUEST, "daemon", NOW) is None
    # the key of links is another: what the server signs for anybody who may read is no pass
    assert Signer(KEY).derived("a").sign(b"x") != Signer(KEY).derived("b").sign(b"x")


def test_what_was_passed_on_with_the_former_key_is_recognised_and_both_use_the_new_one() -> None:
    mine, theirs, new = Signer(KEY), Signer(KEY), new_key()
    mine.change_key(new)
    old, fresh = (Passes(signer).make(REQUEST, ORIGIN, "daemon", NOW) for signer in (theirs, mine))
    assert Passes(mine).read(old, REQUEST, "daemon", NOW) == ORIGIN
    assert Passes(theirs).read(fresh, REQUEST, "daemon", NOW) is None
    theirs.change_key(new)
    assert Passes(theirs).read(fresh, REQUEST, "daemon", NOW) == ORIGIN
    # another one's key is none of theirs
    assert Passes(Signer(new_key())).read(fresh, REQUEST, "daemon", NOW) is None
