"""One value has one spelling and one digest, however it was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import canonical, digest

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def test_members_are_sorted_and_nothing_is_spaced() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "é€"}) == '{"a":"é€","b":[1,2.5,null]}'.encode()


@given(values)
def test_canonical_bytes_read_back_and_write_the_same(value: object) -> None:
    written = canonical(value)  # type: ignore[arg-type]
    assert json.loads(written) == value
    assert canonical(json.loads(written)) == written


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), {1: "x"}, b"bytes", "\ud800"])
def test_what_json_can_not_say_exactly_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the library's
        canonical(value)  # type: ignore[arg-type]


def test_equal_values_of_different_kinds_have_different_digests() -> None:
    assert digest(b"keyfob/definition/1", {"a": 1}) == digest(b"keyfob/definition/1", {"a": 1})
    assert digest(b"keyfob/definition/1", {"a": 1}) != digest(b"keyfob/other/1", {"a": 1})
    assert digest(b"keyfob/definition/1", {"a": 1}) != digest(b"keyfob/definition/1", {"a": 2})
