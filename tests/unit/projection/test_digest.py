"""The digest of a set of records: the same for the same set, however one came to it, and another for any other."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.projection import digest

ids = st.text("ab/-:1", max_size=8)
sets = st.dictionaries(ids, st.binary(max_size=8), max_size=8)


def of(records: dict[str, bytes]) -> int:
    total = 0
    for key, payload in records.items():
        total = digest.add(total, digest.entry(key, payload))
    return total


@given(sets, st.randoms())
def test_the_order_in_which_records_came_does_not_matter(records: dict[str, bytes], random: object) -> None:
    shuffled = list(records.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of(dict(shuffled)) == of(records)


@given(sets, ids, st.binary(max_size=8))
def test_a_record_that_came_and_went_leaves_nothing(records: dict[str, bytes], key: str, payload: bytes) -> None:
    one = digest.entry(key, payload)
    assert digest.remove(digest.add(of(records), one), one) == of(records)


@given(sets, sets)
def test_only_the_same_records_have_the_same_digest(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (of(one) == of(other)) == (one == other)


@given(sets)
def test_it_is_kept_up_to_date_step_by_step(records: dict[str, bytes]) -> None:
    """Replaced records leave what they were and bring what they are."""
    changed = {key: payload + b"!" for key, payload in records.items()}
    total = of(records)
    for key, payload in records.items():
        total = digest.add(digest.remove(total, digest.entry(key, payload)), digest.entry(key, changed[key]))
    assert total == of(changed)


def test_a_record_is_not_another_whose_key_ends_elsewhere() -> None:
    assert digest.entry("grant/1", b"2") != digest.entry("grant/", b"12")
    assert digest.entry("ab", b"c") != digest.entry("a", b"bc")


def test_it_is_the_published_sum() -> None:
    """Whoever writes a resolver in another language computes this."""
    entries = [int(hashlib.sha256(raw).hexdigest(), 16) for raw in (b"a\x00x", b"b\x00y")]
    assert of({"a": b"x", "b": b"y"}) == sum(entries) % 2**256


@pytest.mark.parametrize(("number", "text"), [(0, "0" * 64), (255, "0" * 62 + "ff"), (digest.remove(0, 1), "f" * 64)])
def test_as_text_it_has_always_64_digits(number: int, text: str) -> None:
    assert digest.text(number) == text
