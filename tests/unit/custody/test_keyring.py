"""Several keys are live while they are changed: all of them open, one seals, and a missing one is named at start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import Misconfigured
from shared.crypto.secret import SecretBytes
from shared.custody.contexts import ValueContext
from shared.custody.keks import Kek
from shared.custody.keyring import AlreadyCurrent, Keyring, KeysMissing, Rewrapped
from shared.custody.seals import SealedValue
from shared.custody.wraps import kek_id_of
from shared.errors import SealInvalid
from tests.thoroughness import examples

CONTEXT = ValueContext("profile/a", "server/b", "DB_URL", 1)
OLD, NEW, THIRD = Kek.generate(), Kek.generate(), Kek.generate()


def sealed(ring: Keyring, context: ValueContext = CONTEXT) -> SealedValue:
    return ring.seal(SecretBytes(b"value"), context=context)


def test_what_is_new_is_sealed_under_the_current_key() -> None:
    for ring in (Keyring(OLD), Keyring(NEW, OLD), Keyring(OLD, NEW, THIRD)):
        assert kek_id_of(sealed(ring).wrap) == ring.current.id_bytes


def test_every_live_key_opens() -> None:
    made = sealed(Keyring(OLD))
    for ring in (Keyring(OLD), Keyring(NEW, OLD), Keyring(THIRD, NEW, OLD)):
        assert ring.open(made, context=CONTEXT).matches(b"value")


def test_a_key_that_is_not_live_fails_like_a_changed_row() -> None:
    made, ring = sealed(Keyring(OLD)), Keyring(NEW)
    with pytest.raises(SealInvalid) as refused:
        ring.open(made, context=CONTEXT)
    assert str(refused.value) == str(SealInvalid())
    with pytest.raises(SealInvalid):
        ring.rewrap(made.wrap, context=CONTEXT)


def test_a_live_key_under_another_ones_name_does_not_open() -> None:
    made, ring = sealed(Keyring(OLD)), Keyring(NEW, OLD)
    with pytest.raises(SealInvalid):
        ring.open(replace(made, wrap=made.wrap[:1] + NEW.id_bytes + made.wrap[11:]), context=CONTEXT)


def test_rewrapping_brings_a_row_to_the_current_key_and_leaves_its_seal() -> None:
    made = sealed(Keyring(OLD))
    outcome = Keyring(NEW, OLD).rewrap(made.wrap, context=CONTEXT)
    assert isinstance(outcome, Rewrapped)
    moved = replace(made, wrap=outcome.wrap)
    assert Keyring(NEW).open(moved, context=CONTEXT).matches(b"value")
    assert repr(outcome) == "Rewrapped()"


def test_rewrapping_again_writes_nothing() -> None:
    ring = Keyring(NEW, OLD)
    assert ring.rewrap(sealed(ring).wrap, context=CONTEXT) == AlreadyCurrent()


def test_a_row_of_another_context_is_not_rewrapped() -> None:
    with pytest.raises(SealInvalid):
        Keyring(NEW, OLD).rewrap(sealed(Keyring(OLD)).wrap, context=replace(CONTEXT, version=2))


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
@settings(max_examples=examples(20))
def test_a_rotation_that_is_interrupted_anywhere_goes_on_and_loses_nothing(
    already: list[bool], data: st.DataObject
) -> None:
    old, ring = Keyring(OLD), Keyring(NEW, OLD)
    contexts = [replace(CONTEXT, version=number) for number in range(len(already))]
    rows = [sealed(ring if done else old, context) for done, context in zip(already, contexts, strict=True)]
    written = [0] * len(rows)
    for stop in (data.draw(st.integers(0, len(rows))), len(rows)):
        for at in range(stop):
            match ring.rewrap(rows[at].wrap, context=contexts[at]):
                case Rewrapped(wrap):
                    rows[at] = replace(rows[at], wrap=wrap)
                    written[at] += 1
                case AlreadyCurrent():
                    pass
        assert all(
            ring.open(row, context=context).matches(b"value") for row, context in zip(rows, contexts, strict=True)
        )
    assert written == [0 if done else 1 for done in already]
    assert all(
        Keyring(NEW).open(row, context=context).matches(b"value") for row, context in zip(rows, contexts, strict=True)
    )


def test_a_start_with_every_key_that_rows_need_says_nothing() -> None:
    Keyring(NEW, OLD).expect([OLD.key_id, OLD.key_id])
    Keyring(NEW).expect([])


def test_a_missing_key_ends_the_start_with_one_sentence_that_names_it() -> None:
    with pytest.raises(KeysMissing) as missing:
        Keyring(NEW).expect([OLD.key_id, NEW.key_id])
    assert str(missing.value) == (
        f"Values here are sealed under installation keys that were not given: {OLD.key_id} (given: {NEW.key_id}); "
        "put their files back, or restore them with `keyfob keys recover`."
    )
    assert isinstance(missing.value, Misconfigured)


def test_several_missing_keys_are_all_named_and_very_many_are_counted() -> None:
    ids = sorted(Kek.generate().key_id for _ in range(7))
    with pytest.raises(KeysMissing, match=rf"not given: {ids[0]}, {ids[1]} \(given"):
        Keyring(NEW).expect(ids[:2])
    with pytest.raises(KeysMissing, match=rf"{ids[4]} and 2 more \(given"):
        Keyring(NEW).expect(ids)


def test_the_same_key_given_twice_is_one_key() -> None:
    assert Keyring(OLD, Kek.from_text(OLD.to_text())).key_ids == {OLD.key_id}


def test_two_keys_that_claim_one_id_are_refused() -> None:
    impostor = Kek.generate()
    impostor.id_bytes = OLD.id_bytes
    with pytest.raises(ValueError, match="two installation keys"):
        Keyring(OLD, impostor)


def test_a_ring_shows_only_ids() -> None:
    assert repr(Keyring(OLD, NEW)) == f"Keyring({OLD.key_id}, {NEW.key_id})"
