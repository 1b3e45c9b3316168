"""When a replica may say that what it knows is current, and what a tick, an unreadable and an unsigned record do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from services.resolver.domain.policy_state import EMPTY_POLICY, PolicyState, Tick
from services.resolver.domain.snapshot import Floor
from services.resolver.state import ProjectedKnowledge, policy_apply, stale_tick
from services.resolver.trust import Trust, pinned
from shared import topics
from shared.bus.cloudevents import Message
from shared.config import Misconfigured
from shared.crypto.signing import SigningKey
from shared.events.policy import MappingRecord, TickRecord
from shared.events.registry import POLICY_RECORDS
from shared.projection.fold import Fold
from shared.projection.records import registry
from tests.fakes.clock import FakeClock
from tests.fakes.estate import Estate, hospitals, signed_message

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def trust_of(estate: Estate) -> Trust:
    return pinned(
        policy_key=estate.policy_key.verify_key.to_base64(), catalog_key=estate.catalog_key.verify_key.to_base64()
    )


def learned(estate: Estate, messages: list[Message] | None = None, *, clock: FakeClock | None = None) -> PolicyState:
    """The state after these messages, or all of the estate's."""
    fold = Fold(registry(*POLICY_RECORDS), lambda _: None)
    apply = policy_apply(trust_of(estate), clock or time.monotonic)
    state = EMPTY_POLICY
    told = estate.messages if messages is None else messages
    for change in fold.feed([one for one in told if one.topic == topics.POLICY], at_end=True):
        state = apply(state, change)
    return state


def tick(state: PolicyState) -> Tick:
    assert state.tick is not None
    return state.tick


def test_a_tick_over_everything_matches() -> None:
    estate = hospitals()
    estate.end("grant/hospital-b-hospital-b/db-dsn")
    estate.tick(at=NOW)
    clock = FakeClock(77.0)
    assert tick(learned(estate, clock=clock)) == Tick(NOW, 77.0, matched=True)


def test_a_record_that_somebody_kept_from_the_topic_shows_at_the_next_tick() -> None:
    estate = hospitals()
    estate.end("grant/hospital-b-hospital-b/db-dsn")
    estate.tick()
    suppressed = [one for one in estate.messages if b'"deleted":true' not in one.value]
    assert not tick(learned(estate, suppressed)).matched


def test_a_record_that_somebody_slipped_in_shows_at_the_next_tick() -> None:
    estate = hospitals()
    slipped_in = MappingRecord(
        id="mapping/forged", seq=99, revision=1, idp_id="idp/okta", group="strangers", profile_id="profile/hospital-a"
    )
    honest = list(estate.messages)
    last = estate.tick()
    assert tick(learned(estate, [*honest, last])).matched
    forged = signed_message(slipped_in, SigningKey.generate())
    assert not tick(learned(estate, [*honest, forged, last])).matched


def test_a_tick_that_policy_did_not_sign_changes_nothing() -> None:
    estate = hospitals()
    estate.tick(at=NOW)
    said = {"at": NOW + timedelta(hours=1), "digest": "0" * 64}
    estate.write(TickRecord, "tick", signed_by=SigningKey.generate(), **said)
    assert tick(learned(estate)).at == NOW


def test_a_record_that_cannot_be_read_denies_only_what_rests_on_it() -> None:
    estate = hospitals()
    estate.again("grant/hospital-a-hospital-a/db-dsn")
    broken = replace(estate.messages[-1], value=b'{"id":"grant/hospital-a-hospital-a/db-dsn","new":"shape"}')
    estate.keep(estate.live["grant/hospital-a-hospital-a/db-dsn"][0], broken.value)
    estate.messages[-1] = broken
    estate.tick()
    state = learned(estate)
    assert not state.grants.get(("profile/hospital-a", "reference/hospital-a/db-dsn"))
    assert state.grants.get(("profile/hospital-b", "reference/hospital-b/db-dsn"))
    assert tick(state).matched, "policy counts the record, and so must we"
    estate.again("grant/hospital-a-hospital-a/db-dsn")
    estate.tick()
    state = learned(estate)
    assert state.grants.get(("profile/hospital-a", "reference/hospital-a/db-dsn"))
    assert tick(state).matched


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "policy-tick-missing"),
        (Tick(NOW, 100.0, matched=True), None),
        (Tick(NOW - timedelta(seconds=15), 100.0, matched=True), None),
        (Tick(NOW - timedelta(seconds=16), 100.0, matched=True), "policy-tick-old"),
        (Tick(NOW, 85.0, matched=True), None),
        (Tick(NOW, 84.0, matched=True), "policy-tick-old"),
        (Tick(NOW + timedelta(hours=1), 84.0, matched=True), "policy-tick-old"),
        (Tick(NOW, 100.0, matched=False), "policy-digest"),
    ],
)
def test_a_tick_proves_something_for_fifteen_seconds_by_both_clocks(given: Tick | None, why: str | None) -> None:
    assert stale_tick(given, now=NOW, monotonic=100.0, bound_s=15.0) == why


@dataclass(slots=True)
class FakeProjection:
    """What `ProjectedKnowledge` asks of a projection."""

    snapshot: object
    seq: int = 5
    ready: bool = True
    fresh: bool = True
    reason: str | None = None
    freshness: object = field(init=False)

    def __post_init__(self) -> None:
        self.freshness = self

    def is_fresh(self) -> bool:
        return self.fresh

    async def wait_for(self, seq: int, *, timeout_s: float) -> bool:
        if self.seq >= seq:
            return True
        await asyncio.sleep(timeout_s)
        return self.seq >= seq


def knowledge(policy: FakeProjection, catalog: FakeProjection) -> ProjectedKnowledge:
    return ProjectedKnowledge(policy, catalog, 15.0, monotonic=lambda: 100.0)  # type: ignore[arg-type]


def pair() -> tuple[FakeProjection, FakeProjection]:
    state = replace(EMPTY_POLICY, tick=Tick(datetime.now(UTC), 100.0, matched=True))
    return FakeProjection(state), FakeProjection(None)


def test_every_one_of_the_proofs_is_needed() -> None:
    assert knowledge(*pair()).stale() is None
    for which, attribute, why in (
        (0, "ready", "policy-not-ready"),
        (0, "fresh", "policy-behind"),
        (1, "ready", "catalog-not-ready"),
        (1, "fresh", "catalog-behind"),
    ):
        both = pair()
        setattr(both[which], attribute, False)
        assert knowledge(*both).stale() == why
    both = pair()
    both[0].snapshot = EMPTY_POLICY
    assert knowledge(*both).stale() == "policy-tick-missing"


async def test_a_floor_is_reached_in_both_topics_or_not_at_all() -> None:
    known = knowledge(*pair())
    assert await known.reach(Floor(5, 5), within_s=0.01)
    assert not await known.reach(Floor(6, 5), within_s=0.01)
    assert not await known.reach(Floor(5, 6), within_s=0.01)


async def test_moving_on_in_one_topic_is_noticed_also_when_it_happened_before_asking() -> None:
    policy, catalog = pair()
    catalog.seq = 9
    await asyncio.wait_for(knowledge(policy, catalog).moved(Floor(5, 8), within_s=30), 1)


def test_keys_must_be_pinned() -> None:
    with pytest.raises(Misconfigured, match="KEYFOB_POLICY_KEY"):
        pinned(policy_key="", catalog_key=SigningKey.generate().verify_key.to_base64())
