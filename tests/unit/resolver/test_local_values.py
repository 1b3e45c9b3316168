"""What a local value is called and bound to: one name for one place, and none for two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.resolver.domain.local_values import Owner, Slot
from shared.events.policy import LocalOwner

IDS = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)
OWNERS = st.builds(Owner, st.sampled_from(LocalOwner), st.text(max_size=20), IDS)
SLOTS = st.builds(Slot, OWNERS, IDS, st.text(max_size=20))


@given(SLOTS, SLOTS)
def test_different_slots_have_different_names_and_contexts(one: Slot, other: Slot) -> None:
    same = one == other
    assert (one.id == other.id) is same
    assert (one.context(1).framed() == other.context(1).framed()) is same


def test_the_name_of_a_slot_never_changes() -> None:
    # A golden value: leases, records and rows go by it.
    slot = Slot(Owner(LocalOwner.SUBJECT, "alice", "idp/1a2b"), "server/77aa", "DB_URL")
    assert slot.owner.text == "subject\nidp/1a2b\nalice"
    assert slot.id == "value/ef1c762203111edcaa8e1f7562f08dd5"


def test_a_version_is_bound_too() -> None:
    slot = Slot(Owner(LocalOwner.PROFILE, "profile/1"), "server/1", "F")
    assert slot.context(1).framed() != slot.context(2).framed()
