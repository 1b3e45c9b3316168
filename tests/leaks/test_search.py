"""The search that the canary run rests on finds what is there, in each form, and only that."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.leaks.canaries import Canaries, find, forms, halves, needles

CANARIES = Canaries()
CANARY = CANARIES.new("it")
WANTED = needles(CANARIES.known)
HIDDEN = {
    "plain": CANARY.secret,
    "hex": CANARY.secret.hex().encode(),
    "HEX": CANARY.secret.hex().upper().encode(),
    "URL": quote(CANARY.text, safe="").encode(),
    "form": quote_plus(CANARY.text).encode(),
    "JSON": json.dumps(CANARY.text).encode(),
    "JSON with its letters": json.dumps(CANARY.text, ensure_ascii=False).encode(),
    "base64": base64.b64encode(CANARY.secret),
    "first half": CANARY.secret[:20],
    "second half": CANARY.secret[20:40],
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_canary_is_found_in_each_form(hidden: bytes) -> None:
    assert list(find(WANTED, "here", b"before " + hidden + b" after"))


@given(before=st.binary(max_size=20), after=st.binary(max_size=20), urlsafe=st.booleans())
def test_a_canary_is_found_inside_base64_whatever_surrounds_it(before: bytes, after: bytes, urlsafe: bool) -> None:  # noqa: FBT001
    write = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    assert list(find(WANTED, "here", write(before + CANARY.secret + after)))


@given(st.binary(max_size=200))
def test_nothing_is_found_where_nothing_is(content: bytes) -> None:
    assert list(find(WANTED, "here", content)) == []


@given(st.binary(min_size=32, max_size=32))
def test_bytes_that_are_no_text_have_all_forms_too(raw: bytes) -> None:
    assert {len(form) >= 24 for form in forms(raw).values()} == {True}


def test_a_finding_and_a_canary_never_show_the_value() -> None:
    shown = repr(CANARIES) + repr(CANARY) + "".join(str(one) for one in find(WANTED, "log", CANARY.secret))
    assert "it #1" in shown
    assert CANARY.secret[:12].decode() not in shown


def test_of_a_token_only_the_signature_is_secret() -> None:
    token = f"{'h' * 40}.{'c' * 90}.{'abcdefgh' * 8}"
    found = Canaries()
    found.token("token", token)
    wanted = needles(found.known)
    assert list(find(wanted, "log", token.encode()))
    assert list(find(wanted, "log", token[-64:].encode()))
    assert not list(find(wanted, "log", token[:-64].encode()))


def test_of_a_key_text_the_id_is_no_secret() -> None:
    text = "keyfob-kek-1-k4fx2mwzq7c3nabd-aaaaaaaa-bbbbbbbb-cccccccc-dddddddd-eeeeeeee-ffffffff-gggggggg"
    found = Canaries()
    found.key_text("key", text)
    wanted = needles(found.known)
    assert list(find(wanted, "log", text.replace("-", "").encode()))
    assert not list(find(wanted, "log", text[:30].encode()))


def test_what_is_short_has_no_halves() -> None:
    assert halves(b"x" * 23) == ()
    assert all(len(half) >= 12 for half in halves(b"x" * 25))
