"""Which key may become current, and when not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.resolver.custody.facts import (
    Generation,
    KeyState,
    ReplicaKeys,
    check_recovery,
    choose_next,
    recovery_id_of,
    waiting_keys,
)
from services.resolver.custody.keys import cut_id
from shared.custody import Kek, RecoveryKey, seal_for_recovery
from shared.errors import ChoiceNeeded, Conflict
from shared.events.changes import Actor

OLD, NEW, NEWER = (letter * 16 for letter in "abc")
SAFE = RecoveryKey.generate()
AT = datetime(2026, 11, 23, tzinfo=UTC)


def generation(key_id: str = OLD, *, recovery: bytes | None = None) -> Generation:
    return Generation(1, key_id, KeyState.CURRENT, recovery, AT, Actor(idp="keyfob", subject="resolver-1"))


def replica(name: str, *key_ids: str) -> ReplicaKeys:
    return ReplicaKeys(name, frozenset(key_ids), 0.1)


def test_the_one_key_that_everybody_has_and_nobody_used_is_next() -> None:
    replicas = [replica("one", OLD, NEW, NEWER), replica("two", OLD, NEW)]
    assert waiting_keys([generation()], replicas) == (NEW,)
    assert choose_next(None, [generation()], replicas) == NEW
    assert choose_next(NEW, [generation()], replicas) == NEW


def test_a_key_that_one_replica_lacks_is_not() -> None:
    replicas = [replica("one", OLD, NEW), replica("two", OLD)]
    with pytest.raises(Conflict, match="every replica"):
        choose_next(None, [generation()], replicas)
    with pytest.raises(Conflict, match="directory of two yet"):
        choose_next(NEW, [generation()], replicas)


def test_where_nobody_is_heard_nothing_is_chosen() -> None:
    assert waiting_keys([generation()], []) == ()
    with pytest.raises(Conflict, match="any replica"):
        choose_next(NEW, [generation()], [])


def test_of_several_one_must_be_named() -> None:
    with pytest.raises(ChoiceNeeded) as choice:
        choose_next(None, [generation()], [replica("one", OLD, NEWER, NEW)])
    assert choice.value.choices == (NEW, NEWER)


def test_a_key_that_was_current_never_is_again() -> None:
    with pytest.raises(Conflict, match="twice"):
        choose_next(OLD, [generation()], [replica("one", OLD)])


def test_an_installation_that_can_be_recovered_stays_so() -> None:
    kek = Kek.generate()
    blob = seal_for_recovery(kek, SAFE.public)
    before = generation(kek.key_id, recovery=blob)
    assert before.recovery_key_id == SAFE.public.key_id
    with pytest.raises(Conflict, match=f"{SAFE.public.key_id}.*--recovery"):
        check_recovery(before, None)
    check_recovery(before, blob)


def test_one_that_never_could_may_go_on_like_that_or_begin() -> None:
    check_recovery(generation(), None)
    check_recovery(None, None)
    check_recovery(generation(), seal_for_recovery(Kek.generate(), SAFE.public))


def test_a_blob_that_nobody_can_read_restores_nothing() -> None:
    assert recovery_id_of(None) is None
    assert recovery_id_of(b"\x02nonsense") is None


def test_what_is_no_key_id_is_not_said_again() -> None:
    assert cut_id(OLD) == OLD
    assert cut_id("<script>") == "of that name"
