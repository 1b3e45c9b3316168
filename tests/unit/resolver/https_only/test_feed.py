"""Nobody who hears notices over HTTP misses one unknowingly, and no tick is passed on that policy did not sign."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.resolver.https_only.feed import Gone, NoticeFeed, Told
from shared.bus.whole_topic import Restarted
from shared.crypto.framing import from_base64url
from shared.crypto.signing import SigningKey
from shared.events.policy import TickRecord
from tests.fakes.https_door import HttpsDoor, Topic, heard
from tests.waiting import until


def told(found: list[Told] | Gone) -> list[tuple[int, str]]:
    assert isinstance(found, list)
    return [(one.offset, one.name) for one in found]


def said(one: Told) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(one.data)
    return document


async def begun(feed: NoticeFeed) -> asyncio.Task[None]:
    """The feed, its first position captured."""
    running = asyncio.create_task(feed.run())
    await asyncio.sleep(0)
    return running


async def test_events_come_in_the_order_of_the_topic_by_its_offsets(door: HttpsDoor) -> None:
    first, second = door.topic.tick(), door.topic.revoke("grant/1")
    door.topic.marker()
    third = door.topic.tick()
    await heard(door.feed, third)
    assert told(door.feed.after(-1)) == [(first, "tick"), (second, "notice"), (third, "tick")]
    assert told(door.feed.after(second)) == [(third, "tick")]
    assert told(door.feed.after(third)) == []
    assert door.feed.newest == third


async def test_markers_of_transactions_move_the_place_that_one_may_have_applied(door: HttpsDoor) -> None:
    door.topic.tick()
    door.topic.marker()
    await heard(door.feed, 1)
    assert door.feed.newest == 1


async def test_who_has_no_place_begins_with_the_newest_tick(door: HttpsDoor) -> None:
    door.topic.tick()
    newest, notice = door.topic.tick(), door.topic.revoke("grant/1")
    await heard(door.feed, notice)
    assert told(door.feed.after(door.feed.beginning())) == [(newest, "tick"), (notice, "notice")]


async def test_every_event_says_how_much_of_the_state_whoever_heard_it_has_seen(door: HttpsDoor) -> None:
    door.topic.revoke("grant/1")
    seq = door.topic.seq
    await heard(door.feed, door.topic.tick())
    found = door.feed.after(-1)
    assert isinstance(found, list)
    assert [said(one)["floor"] for one in found] == [{"policy": seq, "catalog": 0}] * 2


async def test_a_tick_is_passed_on_with_the_signature_that_it_came_with(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    (tick,) = door.feed.after(-1)  # type: ignore[misc]
    passed_on = said(tick)
    record = TickRecord.model_validate_json(from_base64url(passed_on["payload"]))
    assert (passed_on["seq"], passed_on["key_id"]) == (record.seq, door.topic.policy_key.key_id)
    assert len(from_base64url(passed_on["signature"])) == 64


async def test_a_tick_that_policy_did_not_sign_is_not_passed_on(door: HttpsDoor) -> None:
    """Who can't verify it himself must not take silence for a sign of life."""
    await heard(door.feed, door.topic.tick(by=SigningKey.generate()))
    assert told(door.feed.after(-1)) == []
    assert door.feed.trouble == "no tick of policy heard yet"


async def test_a_notice_that_can_not_be_read_takes_everybodys_place(door: HttpsDoor) -> None:
    """It may have meant anything."""
    place = door.topic.tick()
    broken = door.topic.rubbish()
    await heard(door.feed, broken)
    assert door.feed.after(place) == Gone(broken)
    assert told(door.feed.after(broken)) == []
    assert door.feed.trouble is not None
    await heard(door.feed, door.topic.tick())
    assert door.feed.trouble is None


async def test_what_the_broker_lost_takes_everybodys_place(door: HttpsDoor) -> None:
    place = door.topic.tick()
    await heard(door.feed, place)
    door.topic.put(Restarted("the broker no longer has it", 50))
    await until(lambda: door.feed.newest == 49)
    assert door.feed.after(place) == Gone(49)
    assert told(door.feed.after(49)) == []


async def test_what_left_the_ring_is_told_to_be_gone() -> None:
    topic = Topic()
    feed = NoticeFeed(topic, topic.policy_key.verify_key, kept=3)
    running = await begun(feed)
    for _ in range(5):
        newest = topic.tick()
    await heard(feed, newest)
    assert feed.after(0) == Gone(newest - 1)
    assert told(feed.after(1)) == [(2, "tick"), (3, "tick"), (4, "tick")]
    running.cancel()


async def test_large_notices_leave_the_ring_by_their_size() -> None:
    topic = Topic()
    feed = NoticeFeed(topic, topic.policy_key.verify_key, kept_bytes=10_000)
    running = await begun(feed)
    large = [topic.revoke(*(f"grant/{'x' * 100}-{index}" for index in range(40))) for _ in range(4)]
    tick = topic.tick()
    await heard(feed, tick)
    assert feed.after(large[0]) == Gone(tick - 1)
    assert told(feed.after(large[2])) == [(large[3], "notice"), (tick, "tick")]
    running.cancel()


async def test_a_flood_that_pushes_the_newest_tick_out_leaves_no_place_to_begin_at() -> None:
    topic = Topic()
    feed = NoticeFeed(topic, topic.policy_key.verify_key, kept=3)
    running = await begun(feed)
    topic.tick()
    for _ in range(3):
        newest = topic.revoke("grant/1")
    await heard(feed, newest)
    assert feed.trouble is not None
    assert feed.after(feed.beginning()) == []
    running.cancel()


async def test_a_replica_that_starts_late_knows_what_it_did_not_read() -> None:
    topic = Topic()
    topic.end = 1000
    feed = NoticeFeed(topic, topic.policy_key.verify_key)
    running = await begun(feed)
    await until(lambda: feed.newest == 999)
    newest = topic.tick()
    await heard(feed, newest)
    assert isinstance(feed.after(998), Gone)
    assert told(feed.after(999)) == [(1000, "tick")]
    running.cancel()


@given(st.lists(st.sampled_from(["tick", "notice", "marker", "rubbish"]), max_size=30), st.integers(-1, 30))
async def test_between_two_looks_nothing_is_missed_without_a_word(kinds: list[str], place: int) -> None:
    topic = Topic()
    feed = NoticeFeed(topic, topic.policy_key.verify_key, kept=5)
    running = await begun(feed)
    for kind in kinds:
        {"tick": topic.tick, "notice": lambda: topic.revoke("x/1"), "marker": topic.marker, "rubbish": topic.rubbish}[
            kind
        ]()
    await until(lambda: feed.newest == topic.end - 1)
    running.cancel()
    there = [offset for offset, kind in enumerate(kinds) if kind in {"tick", "notice"} and offset > place]
    broken = any(kind == "rubbish" for kind in kinds[place + 1 :])
    found = feed.after(place)
    assert (isinstance(found, Gone)) == (broken or len(there) > 5)
    if not isinstance(found, Gone):
        assert [one.offset for one in found] == there


def test_an_event_is_one_block_of_lines() -> None:
    assert Told(7, "tick", b'{"a":1}').frame() == b'id: 7\nevent: tick\ndata: {"a":1}\n\n'
