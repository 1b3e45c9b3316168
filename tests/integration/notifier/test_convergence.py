"""From a change to the proof that everybody acted, on a real broker and database."""

from __future__ import annotations

from typing import Any

import asyncpg

from services.dev.contracts.examples import EXAMPLES
from shared.crypto.signing import SigningKey
from shared.events.alerts import Alert
from shared.events.custody import ValueChange
from tests.fakes.authorities import FakeGateway, resolver_receipt
from tests.integration.notifier.conftest import Running, Stage
from tests.waiting import until


def states(answer: Any) -> dict[str, str]:
    return {member["name"]: member["state"] for member in answer["members"]}


async def standing(running: Running, change_id: str, expected: dict[str, str]) -> Any:
    """The answer, once members stand as expected."""

    async def look() -> Any:
        answer = await running.convergence(change_id, wait_s=0)
        return answer if answer is not None and states(answer) == expected else None

    return await until(look, within=10, what=f"{expected}")


async def test_a_rotation_converges_when_everybody_dropped(stage: Stage) -> None:
    one, two = await stage.policy.enrol("gateway-1"), await stage.policy.enrol("gateway-2")
    await resolver_receipt(stage.bus, catalog_seq=6)
    async with stage.notifier(gateway_bound_s=60, resolver_bound_s=60) as running:
        change = await stage.rotate(seq=7)
        answer = await running.noted(change.id)
        offset = answer["offset"]
        assert states(answer) == {"gateway-1": "pending", "gateway-2": "pending", "resolver-1": "pending"}
        assert offset == await stage.offset_of(answer["notice"]["id"])

        await one.receipt(applied=offset)
        await two.receipt(applied=offset, dropped=offset - 1, leases=1)
        await resolver_receipt(stage.bus, catalog_seq=7)
        fenced = {"gateway-1": "dropped", "gateway-2": "fenced", "resolver-1": "dropped"}
        assert not (await standing(running, change.id, fenced))["converged"]

        await two.receipt(applied=offset)
        assert (await running.convergence(change.id))["converged"]
        assert await until(lambda: _converged_at(running, change.id), within=5)


async def test_a_replaced_local_value_converges_when_gateways_dropped_and_resolvers_were_heard(stage: Stage) -> None:
    one = await stage.policy.enrol("gateway-1")
    await resolver_receipt(stage.bus)
    async with stage.notifier(gateway_bound_s=60, resolver_bound_s=60) as running:
        change = next(one for one in EXAMPLES if isinstance(one, ValueChange))
        await stage.bus.send(change, key=change.value_id)
        answer = await running.noted(change.id)
        assert states(answer)["gateway-1"] == "pending"
        assert not answer["converged"]
        # No commit of theirs is waited for: what they read comes from where the change was committed.
        await resolver_receipt(stage.bus)
        await one.receipt(applied=answer["offset"])
        await standing(running, change.id, {"gateway-1": "dropped", "resolver-1": "dropped"})
        assert await until(lambda: _converged_at(running, change.id), within=5)


async def _converged_at(running: Running, change_id: str) -> Any:
    page = await running.get("/v1/notices")
    return next(item["converged_at"] for item in page["items"] if item["cause_id"] == change_id)


async def test_a_silent_gateway_is_pending_until_its_bound_and_then_expired(stage: Stage) -> None:
    await stage.policy.enrol("stopped")
    async with stage.notifier(gateway_bound_s=1.5) as running:
        change = await stage.rotate()
        early = await running.noted(change.id)
        assert states(early) == {"stopped": "pending"}
        assert not early["converged"]

        late = await running.convergence(change.id)
        assert states(late) == {"stopped": "expired"}
        assert late["converged"]
        assert late["members"][0]["at"] == early["members"][0]["until"]


async def test_a_forged_receipt_is_ignored_and_alerted(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    stranger = FakeGateway(stage.bus, "instance/nobody", "nobody")
    async with stage.notifier(gateway_bound_s=60) as running:
        change = await stage.rotate()
        offset = (await running.noted(change.id))["offset"]
        await gateway.receipt(applied=offset, key=SigningKey.generate())
        await stranger.receipt(applied=offset)

        async def concerned() -> set[str]:
            page = await running.get("/v1/alerts")
            return {alert["concerns"][0] for alert in page["items"] if alert["kind"] == "receipt-forged"}

        await until(lambda: _holds(concerned, {gateway.id, stranger.id}), within=10)
        answer = await running.convergence(change.id, wait_s=0)
        assert states(answer) == {"gateway-1": "pending"}
        assert not answer["converged"]


async def _holds(look: Any, expected: object) -> bool:
    return bool(await look() == expected)


async def test_a_receipt_of_an_instance_that_enrolled_a_moment_ago_is_no_forgery(stage: Stage) -> None:
    async with stage.notifier() as running:
        gateway = await stage.policy.enrol("new")
        await gateway.receipt(applied=0, leases=3)

        async def heard() -> Any:
            page = await running.get("/v1/instances")
            return [(item["name"], item["open_leases"]) for item in page["items"] if item["last_heard"]]

        assert await until(heard, within=10) == [("new", 3)]
        assert (await running.get("/v1/alerts"))["items"] == []


async def test_a_banned_instance_is_waited_for_until_its_bound_whatever_it_says(stage: Stage) -> None:
    gateway = await stage.policy.enrol("banned")
    async with stage.notifier() as running:
        seq = await stage.policy.ban(gateway)
        ban = await stage.change_policy(gateway.id, seq=seq, kind="instance")
        rotation = await stage.rotate()
        told = [await standing(running, change.id, {"banned": "pending"}) for change in (ban, rotation)]

        await gateway.receipt(applied=max(answer["offset"] for answer in told))
        for change in (ban, rotation):
            assert states(await running.convergence(change.id, wait_s=0)) == {"banned": "pending"}
        for change in (ban, rotation):
            await standing(running, change.id, {"banned": "expired"})
        later = await stage.rotate()
        assert states(await running.noted(later.id)) == {}


async def test_a_restarted_notifier_knows_who_was_expected_and_who_acted(stage: Stage) -> None:
    one, two = await stage.policy.enrol("gateway-1"), await stage.policy.enrol("gateway-2")
    async with stage.notifier(gateway_bound_s=60) as running:
        change = await stage.rotate()
        offset = (await running.noted(change.id))["offset"]
        await one.receipt(applied=offset)
        await standing(running, change.id, {"gateway-1": "dropped", "gateway-2": "pending"})
        await until(lambda: _written(stage), within=10, what="that gateway-1 dropped is written down")
    await stage.policy.enrol("gateway-3")

    async with stage.notifier(gateway_bound_s=60, receipts_reach_back_s=0.001) as running:
        await standing(running, change.id, {"gateway-1": "dropped", "gateway-2": "pending"})
        await two.receipt(applied=offset)
        assert (await running.convergence(change.id))["converged"]


async def _written(stage: Stage) -> bool:
    connection = await asyncpg.connect(stage.dsn)
    try:
        return bool(
            await connection.fetchval("SELECT dropped_at FROM keyfob_notifier.members WHERE name = 'gateway-1'")
        )
    finally:
        await connection.close()


async def test_two_processes_with_the_keys_of_one_instance_are_alerted(stage: Stage) -> None:
    first = await stage.policy.enrol("gateway-1")
    second = FakeGateway(stage.bus, first.id, first.name, first.key)
    async with stage.notifier() as running:
        for _ in range(2):
            await first.receipt(applied=1)
            await second.receipt(applied=1)

        async def kinds() -> list[str]:
            return [alert["kind"] for alert in (await running.get("/v1/alerts"))["items"]]

        assert await until(kinds, within=10) == ["instance-duplicated"]


async def test_an_unusable_reference_alerts_people(stage: Stage) -> None:
    async with stage.notifier() as running:
        change = await stage.rotate(state="removed")

        async def alerts() -> list[Alert]:
            return [Alert.model_validate(item) for item in (await running.get("/v1/alerts"))["items"]]

        (alert,) = await until(alerts, within=10)
        assert alert.kind == "reference-unusable"
        assert alert.concerns == (change.reference_id,)
