"""One trace tells a rotation from the vault's webhook to the receipt of whoever held the old value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.dev.demo.stage import SERVER, Stage
from services.gateway.client.resolving import Wanted
from shared import topics
from shared.events.receipts import GatewayReceipt
from tests.chaos.clients import client
from tests.chaos.evidence import Kept, read_all
from tests.waiting import until


def trace_of(message: Kept) -> str:
    return message.headers.get("traceparent", "--").split("-")[1]


def about(messages: list[Kept], **wanted: Any) -> list[Kept]:
    return [each for each in messages if wanted.items() <= each.body.items()]


@pytest.mark.timeout(180)
async def test_one_trace_reaches_from_the_webhook_to_the_receipt(furnished: Stage) -> None:
    hospital, stack = furnished.hospitals[0], furnished.stack
    agent = furnished.agent("tracer", [f"staff-{hospital.profile}"])
    gateway = next(each["id"] for each in await stack.every("policy", "/v1/instances") if each["name"] == "gateway-1")
    async with (
        client(stack, "traced", token=agent.token, wanted=Wanted(SERVER)) as holder,
        agent.connect(furnished.url("gateway-1")) as database,
    ):
        assert await database.patients() == hospital.patients
        _, version = await holder.value()
        instance = holder.instance.identity.instance_id
        await hospital.rotate()
        change, notice, *dropped = await until(
            lambda: _rotation(stack.environments.kafka, hospital.path, int(version) + 1, (instance, gateway)),
            within=30,
            every=0.2,
            what="change, notice and the receipts of both holders",
        )
        assert trace_of(change)
        assert trace_of(notice) == trace_of(change)
        assert [trace_of(receipt) for receipt in dropped] == [trace_of(change)] * 2
    spans = [json.loads(line) for line in (stack.layout.root / "traces.jsonl").read_text().splitlines()]
    told = {(span["service"], span["name"]) for span in spans if span["trace_id"] == trace_of(change)}
    assert ("sync", "feed-hint") in told
    assert ("notifier", "announce") in told
    await stack.call("DELETE", "policy", f"/v1/instances/{instance}")


async def _rotation(bootstrap: str, name: str, version: int, holders: tuple[str, ...]) -> list[Kept] | None:
    """The change, its notice, and the first receipt of each holder that says it dropped what the notice ended."""
    found = await read_all(bootstrap, topics.VAULT_CHANGES, topics.NOTICES, topics.RECEIPTS)
    changes = about(found[topics.VAULT_CHANGES], reference_name=name, version=str(version))
    notices = about(found[topics.NOTICES], cause_id=changes[0].body["id"]) if changes else []
    receipts = [each for each in found[topics.RECEIPTS] if each.type == GatewayReceipt.TYPE]
    dropped = [
        next((one for one in about(receipts, instance_id=holder) if one.body["dropped_offset"] >= notice.offset), None)
        for holder in holders
        for notice in notices[:1]
    ]
    found_all = [*changes[:1], *notices[:1], *(each for each in dropped if each)]
    return found_all if len(found_all) == 2 + len(holders) else None
