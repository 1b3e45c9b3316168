"""The relay publishes every commit once, in order, whatever dies in between; and refuses where histories part."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from services.dev.platform import Broker
from shared.outbox import relay as relay_module
from shared.outbox.relay import Publishing, Refused, Relay, Standby
from shared.outbox.store import OutboxStore
from tests.integration.bus.conftest import SCHEMA, Service, seqs_of
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)


async def at_work(relay: Relay) -> None:
    await until(lambda: isinstance(relay.state, Publishing), within=30)


async def caught_up(relay: Relay, seq: int) -> None:
    await until(lambda: relay.published_seq >= seq, within=30)


async def waiting_in(service: Service) -> list[int]:
    return [row.seq for row in await service.run_sql("SELECT DISTINCT seq FROM outbox ORDER BY seq")]


async def test_commits_reach_both_topics_whole_and_in_order(service: Service) -> None:
    async with service.relaying() as relay:
        await asyncio.gather(*(service.commit(f"{number}", f"{number}b") for number in range(30)))
        await caught_up(relay, 30)
        await until(lambda: _is_empty(service))
    assert await service.published_seqs() == [seq for seq in range(1, 31) for _ in range(2)]
    assert seqs_of(await service.published(service.changes)) == list(range(1, 31))
    assert await service.run_sql("SELECT published_seq FROM relay_progress") == [(30,)]


async def _is_empty(service: Service) -> bool:
    return not await waiting_in(service)


async def test_what_was_committed_while_no_relay_ran_is_published_later(service: Service) -> None:
    for number in range(3):
        await service.commit(str(number))
    async with service.relaying() as relay:
        await caught_up(relay, 3)
    assert await service.published_seqs() == [1, 2, 3]


async def test_a_commit_larger_than_a_batch_stays_whole(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.outbox.store.BATCH_ROWS", 5)
    await service.commit("a", "b")
    await service.commit(*(str(number) for number in range(20)))
    await service.commit("c")
    async with service.relaying() as relay:
        await caught_up(relay, 3)
    assert await service.published_seqs() == [1] * 2 + [2] * 20 + [3]


async def test_the_second_relay_waits_and_takes_over(service: Service) -> None:
    async with service.relaying() as second_to_come:
        await at_work(second_to_come)
        async with service.relaying() as standby:
            await until(lambda: isinstance(standby.state, Standby), within=30)
            assert standby.ready
            await service.commit("a")
            await caught_up(second_to_come, 1)
            assert standby.published_seq == 0
    async with service.relaying() as successor:
        await service.commit("b")
        await caught_up(successor, 2)
    assert await service.published_seqs() == [1, 2]


async def test_a_relay_that_stalled_and_wakes_up_late_is_fenced_and_publishes_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stalls between reading commit 1 and publishing it; its successor publishes 1 and 2; then it wakes up."""
    stalled, wake = asyncio.Event(), asyncio.Event()
    attempts: list[Any] = []
    publish = relay_module.publish_commits

    async def publish_late(producer: Any, commits: Any) -> None:
        if not stalled.is_set():
            stalled.set()
            await wake.wait()
            attempts.append(commits)
            try:
                await publish(producer, commits)
            except BaseException as error:
                attempts.append(error)
                raise
        else:
            await publish(producer, commits)

    monkeypatch.setattr(relay_module, "publish_commits", publish_late)
    monkeypatch.setattr(relay_module, "_until_lost", _never_lost)
    async with service.relaying() as former:
        await at_work(former)
        await service.commit("a", colour="old")
        await stalled.wait()
        await _take_its_lock_away(service)
        async with service.relaying() as successor:
            await service.commit("a", colour="new")
            await caught_up(successor, 2)
            before = await service.published()
            wake.set()
            await until(lambda: len(attempts) == 2, within=30)
            assert isinstance(attempts[1], Exception)
            await until(lambda: isinstance(former.state, Standby), within=30)
            assert await service.published() == before
    assert await service.published_seqs() == [1, 2]


async def _take_its_lock_away(service: Service) -> None:
    """As after a network partition: the server ends the session, and `_never_lost` keeps that from the client."""
    ended = await service.run_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert ended == [(True,)]


async def _never_lost(work: asyncio.Task[None], _: asyncio.Event) -> None:
    await work


async def test_a_crash_between_the_kafka_commit_and_the_deletion_publishes_nothing_twice(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: Any) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as dying:
        dying.setattr(OutboxStore, "forget_through", crash)
        await service.commit("a")
        await service.commit("b")
        async with service.relaying() as relay:
            await caught_up(relay, 2)
            await until(lambda: not isinstance(relay.state, Publishing), within=30)
            await caught_up(relay, 2)
    assert await waiting_in(service) == [1, 2]
    async with service.relaying() as relay:
        await service.commit("c")
        await caught_up(relay, 3)
        await until(lambda: _is_empty(service))
    assert await service.published_seqs() == [1, 2, 3]


async def test_an_outcome_that_stayed_unknown_is_read_from_the_topic(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first transaction is committed, the second one aborted, and the relay is told neither."""
    publish = relay_module.publish_commits
    unknown = iter((publish, _aborted))

    async def uncertain(producer: Any, commits: Any) -> None:
        doing = next(unknown, None)
        if doing is None:
            return await publish(producer, commits)
        await doing(producer, commits)
        raise KafkaError

    monkeypatch.setattr(relay_module, "publish_commits", uncertain)
    async with service.relaying() as relay:
        await service.commit("a")
        await caught_up(relay, 1)
        await service.commit("b")
        await caught_up(relay, 2)
    assert await service.published_seqs() == [1, 2]
    assert seqs_of(await service.published(service.changes)) == [1, 2]


async def _aborted(producer: Any, commits: Any) -> None:
    await producer.begin_transaction()
    for message in commits[0].messages:
        await producer.send(message.topic, message.value, message.key.encode(), headers=list(message.headers))
    await producer.flush()
    await producer.abort_transaction()


async def test_losing_the_database_stops_publishing_at_once_and_it_comes_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = asyncio.Event()
    publish = relay_module.publish_commits

    async def slow_once(producer: Any, commits: Any) -> None:
        if not entered.is_set():
            entered.set()
            await asyncio.sleep(3600)
        await publish(producer, commits)

    monkeypatch.setattr(relay_module, "publish_commits", slow_once)
    async with service.relaying() as relay:
        await service.commit("a")
        await entered.wait()
        await _take_its_lock_away(service)
        await until(lambda: not isinstance(relay.state, Publishing), within=5)
        await caught_up(relay, 1)
    assert await service.published_seqs() == [1]


async def test_a_database_restored_to_an_earlier_moment_is_refused(service: Service) -> None:
    async with service.relaying() as relay:
        for name in "abc":
            await service.commit(name)
        await caught_up(relay, 3)
        await until(lambda: _is_empty(service))
    await _restore_to(service, 2)
    async with service.relaying() as relay:
        await until(lambda: isinstance(relay.state, Refused), within=30)
        assert not relay.ready
        assert "rewound" in str(relay.reason)
        await service.commit("d")
        await service.commit("e")
        assert isinstance(relay.state, Refused)
    assert await service.published_seqs() == [1, 2, 3]


async def test_it_is_still_refused_after_the_restored_database_went_on(service: Service) -> None:
    async with service.relaying() as relay:
        for name in "abc":
            await service.commit(name)
        await caught_up(relay, 3)
        await until(lambda: _is_empty(service))
    await _restore_to(service, 2)
    for name in "de":
        await service.commit(name)
    async with service.relaying() as relay:
        await until(lambda: isinstance(relay.state, Refused), within=30)
        assert "rewound" in str(relay.reason)
    assert await service.published_seqs() == [1, 2, 3]


async def _restore_to(service: Service, seq: int) -> None:
    await service.run_sql("UPDATE commit_counter SET seq = :seq", seq=seq)
    await service.run_sql("UPDATE relay_progress SET published_seq = :seq", seq=seq)


async def test_a_topic_that_lost_commits_is_refused(service: Service) -> None:
    await service.run_sql("UPDATE commit_counter SET seq = 5")
    await service.run_sql("UPDATE relay_progress SET published_seq = 5")
    await service.commit("a")
    async with service.relaying() as relay:
        await until(lambda: isinstance(relay.state, Refused), within=30)
        assert "behind" in str(relay.reason)
    assert await service.published() == []


async def test_a_hole_in_the_outbox_is_refused(service: Service) -> None:
    for name in "abc":
        await service.commit(name)
    await service.run_sql("DELETE FROM outbox WHERE seq = 2")
    async with service.relaying() as relay:
        await until(lambda: isinstance(relay.state, Refused), within=30)
        assert "commit 2" in str(relay.reason)
    assert await service.published_seqs() == [1]


async def test_it_finds_the_tail_behind_markers_and_strangers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.outbox.tail.FIRST_STEP", 2)
    async with service.relaying() as relay:
        await service.commit("a")
        await caught_up(relay, 1)
    producer = service.kafka.producer()
    await producer.start()
    for number in range(20):
        await producer.send_and_wait(service.state.name, b"{}", f"stranger/{number}".encode())
    await producer.stop()
    async with service.relaying() as relay:
        await service.commit("b")
        await caught_up(relay, 2)
    assert [seq for seq in await service.published_seqs() if seq > 0] == [1, 2]


async def test_a_restart_of_the_broker_loses_and_doubles_nothing(
    service_on_own_broker: Service, own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "PUBLISH_WITHIN_S", 1.0)
    service = service_on_own_broker
    async with service.relaying() as relay:
        await service.commit("before")
        await caught_up(relay, 1)
        await own_broker.stop()
        for number in range(5):
            await service.commit(f"while-{number}")
        assert "broker" in str(await until(lambda: relay.reason, within=60))
        await own_broker.start()
        await caught_up(relay, 6)
        await service.commit("after")
        await caught_up(relay, 7)
    assert await service.published_seqs() == [1, 2, 3, 4, 5, 6, 7]
    assert seqs_of(await service.published(service.changes)) == [1, 2, 3, 4, 5, 6, 7]


async def test_restarts_in_the_middle_of_a_stream_of_commits_lose_and_double_nothing(service: Service) -> None:
    """A relay that is cancelled as soon as it has published something, again and again, while commits keep coming."""
    written = asyncio.create_task(_write(service, 60))
    while not written.done():
        async with service.relaying() as relay:
            await at_work(relay)
            await until(partial(_moved_or_done, relay, relay.published_seq, written), within=30, every=0.001)
    async with service.relaying() as relay:
        await caught_up(relay, 60)
    assert await service.published_seqs() == list(range(1, 61))
    assert seqs_of(await service.published(service.changes)) == list(range(1, 61))


def _moved_or_done(relay: Relay, seq: int, written: asyncio.Task[None]) -> bool:
    return relay.published_seq > seq or written.done()


async def _write(service: Service, count: int) -> None:
    for number in range(count):
        await service.commit(str(number))
        await asyncio.sleep(0.02)


async def test_kill_9_in_the_middle_of_a_stream_of_commits_loses_and_doubles_nothing(service: Service) -> None:
    """Eight processes in turn, each killed as soon as it has published something; commits keep coming throughout."""
    enough = asyncio.Event()
    writing = asyncio.create_task(_write_until(service, enough))
    published = 0
    for _ in range(8):
        process = await _relay_process(service)
        try:
            published = await until(partial(_published_beyond, service, published), within=60, every=0.02)
        finally:
            process.kill()
            await process.wait()
    enough.set()
    last = await writing
    async with service.relaying() as relay:
        await caught_up(relay, last)
    assert await service.published_seqs() == list(range(1, last + 1))
    assert seqs_of(await service.published(service.changes)) == list(range(1, last + 1))


async def _write_until(service: Service, enough: asyncio.Event) -> int:
    while True:
        last = await service.commit("a")
        if enough.is_set():
            return last
        await asyncio.sleep(0.02)


async def _published_beyond(service: Service, seq: int) -> int:
    (row,) = await service.run_sql("SELECT published_seq FROM relay_progress")
    return int(row.published_seq) if row.published_seq > seq else 0


async def _relay_process(service: Service) -> asyncio.subprocess.Process:
    given = {
        "database": service.url.render_as_string(hide_password=False),
        "bootstrap": service.kafka.bootstrap,
        "schema": SCHEMA,
        "state_topic": service.state.name,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fakes.relay_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()
    return process
