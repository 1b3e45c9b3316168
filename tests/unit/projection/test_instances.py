"""Who receipts are judged by: what policy says of its instances, what it said last, never what it did not sign."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.bus.signatures import record_signer
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import Itself, Nobody, Resolvers
from shared.events.contract import StateRecord
from shared.events.policy import DeliveryProfile, InstanceRecord, InstanceState, ProfileRecord, TickRecord
from shared.projection.changes import Alert, Upserted
from shared.projection.fold import Fold
from shared.projection.instances import KNOWN, Instances, apply_change
from shared.projection.records import Authority
from tests.fakes.state_topic import committed, numbered

POLICY, OTHER = SigningKey.generate(), SigningKey.generate()
AUTHORITY = Authority({POLICY.key_id: POLICY.verify_key})
GATEWAY, SECOND = SigningKey.generate(), SigningKey.generate()
AT = datetime(2026, 1, 1, tzinfo=UTC)


def instance(seq: int, key: SigningKey = GATEWAY, **changes: Any) -> InstanceRecord:
    said: dict[str, Any] = {
        "id": "instance/1",
        "seq": seq,
        "revision": seq,
        "name": "gateway-1",
        "signing_key": key.verify_key.to_base64(),
        "sealing_key": "x",
        "sealing_certificate": "x",
        "allowed_servers": (),
        "enrolled_at": AT,
    }
    return InstanceRecord.model_validate(said | changes)


def tick(seq: int) -> TickRecord:
    return TickRecord(id="tick", seq=seq, revision=seq, at=AT, digest="0" * 64)


class World:
    """A snapshot that follows commits, as the directory's projection does."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.fold = Fold(KNOWN, self.alerts.append)
        self.snapshot = Instances()

    def say(self, *records: StateRecord, signer: SigningKey = POLICY) -> World:
        return self.hear(committed(*records, signer=record_signer(signer)))

    def hear(self, messages: list[Any]) -> World:
        for change in self.fold.feed(numbered(messages), at_end=True):
            self.snapshot = apply_change(self.snapshot, change)
        return self

    def key(self) -> SigningKey | None:
        """Whose key counts for the one instance."""
        known = self.snapshot.get("instance/1")
        found = None if known is None else known.voucher(AUTHORITY, Resolvers())
        return next((one for one in (GATEWAY, SECOND) if found == Itself(one.verify_key)), None)


@pytest.fixture
def world() -> World:
    return World()


def test_an_enrolled_instance_is_known_by_its_key(world: World) -> None:
    world.say(instance(3))
    known = world.snapshot.get("instance/1")
    assert known is not None
    assert (known.name, known.active, known.since_seq) == ("gateway-1", True, 3)
    assert world.key() is GATEWAY


def test_one_that_nobody_enrolled_is_not_known(world: World) -> None:
    assert world.snapshot.get("instance/1") is None
    assert list(world.snapshot.all()) == []


def test_nobody_vouches_for_a_banned_instance_until_it_is_allowed_again(world: World) -> None:
    world.say(instance(3)).say(instance(4, state=InstanceState.BANNED))
    known = world.snapshot.get("instance/1")
    assert known is not None
    assert (known.active, known.since_seq) == (False, 4)
    assert known.voucher(AUTHORITY, Resolvers()) == Nobody()
    world.say(instance(5, state=InstanceState.BANNED, deleted=True))
    removed = world.snapshot.get("instance/1")
    assert removed is not None
    assert removed.voucher(AUTHORITY, Resolvers()) == Nobody()
    assert world.say(instance(6)).key() is GATEWAY


def test_resolvers_vouch_for_an_instance_without_keys_of_its_own(world: World) -> None:
    keys = {"signing_key": "", "sealing_key": "", "sealing_certificate": ""}
    world.say(instance(3, delivery=DeliveryProfile.HTTPS, certificate="AA", **keys))
    known, resolvers = world.snapshot.get("instance/1"), Resolvers({SECOND.key_id: SECOND.verify_key})
    assert known is not None
    assert known.voucher(AUTHORITY, resolvers) is resolvers


def test_a_removed_instance_stays_with_its_key_until_its_end_has_converged(world: World) -> None:
    world.say(instance(3)).say(instance(5, deleted=True))
    known = world.snapshot.get("instance/1")
    assert known is not None
    assert (known.name, known.active) == ("gateway-1", False)
    assert 3 < known.since_seq <= 5
    assert world.key() is GATEWAY


def test_one_that_was_removed_before_anybody_looked_is_known_to_be_gone(world: World) -> None:
    world.say(instance(5, deleted=True))
    known = world.snapshot.get("instance/1")
    assert known is not None
    assert (known.active, known.since_seq, world.key()) == (False, 0, None)


def test_what_policy_did_not_sign_gives_nobody_a_key(world: World) -> None:
    assert world.say(instance(3), signer=OTHER).key() is None


def test_a_record_that_can_not_be_read_leaves_the_last_one_that_could(world: World) -> None:
    world.say(instance(3))
    (garbled,) = committed(instance(4, SECOND))
    world.hear([replace(garbled, value=b"{")])
    known = world.snapshot.get("instance/1")
    assert known is not None
    assert not known.active
    assert world.key() is GATEWAY
    assert len(world.alerts) == 1


def test_a_key_that_is_none_makes_the_record_unusable(world: World) -> None:
    (message,) = committed(instance(3, signing_key="not a key"))
    (change,) = world.fold.feed(numbered([message]), at_end=True)
    assert isinstance(change, Upserted)
    with pytest.raises(ValueError, match="base64url"):
        apply_change(world.snapshot, change)


def test_a_new_enrolment_under_the_id_brings_its_own_key(world: World) -> None:
    world.say(instance(3)).say(instance(4, SECOND))
    assert world.key() is SECOND


def test_the_newest_tick_is_kept_as_it_stands(world: World) -> None:
    world.say(tick(1)).say(tick(2))
    assert world.snapshot.tick is not None
    assert (world.snapshot.tick.seq, world.snapshot.tick.payload) == (2, tick(2).to_json())
    assert AUTHORITY.verified(world.snapshot.tick)


def test_records_that_tell_nothing_of_instances_change_nothing(world: World) -> None:
    before = world.snapshot
    profile = ProfileRecord(id="profile/1", seq=1, revision=1, name="ward")
    assert world.say(profile).say(profile.model_copy(update={"seq": 2, "deleted": True})).snapshot is before


def test_a_snapshot_that_somebody_holds_does_not_change(world: World) -> None:
    held = world.say(instance(3)).snapshot
    world.say(instance(4, state=InstanceState.BANNED))
    known = held.get("instance/1")
    assert known is not None
    assert known.active
