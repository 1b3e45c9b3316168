"""A gateway's findings: what becomes an alert, and how often."""

from __future__ import annotations

import pytest

from shared.crypto.signing import SigningKey
from shared.events.receipts import Finding, FindingKind
from tests.fakes.enrolled import T0
from tests.unit.notifier.test_members import World


@pytest.fixture
def world() -> World:
    return World()


def finding(number: int, kind: FindingKind = FindingKind.GUESSED, lease: str = "lease/1") -> Finding:
    return Finding(id=f"finding/{number}", kind=kind, lease_id=lease, places=1, at=T0)


async def test_a_guess_is_an_alert_once_for_each_lease(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    for number in range(3):
        await world.members.take([gateway.receipt(findings=(finding(number),))])
    await world.members.take([gateway.receipt(findings=(finding(9, lease="lease/2"),))])
    assert world.alarms() == ["value-guessed", "value-guessed"]


async def test_the_alert_names_lease_and_instance(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(findings=(finding(1),))])
    alert = world.alarm._waiting.get_nowait()
    assert alert.concerns == ("lease/1", gateway.id)
    assert "gateway-1" in alert.summary


async def test_that_a_value_was_replaced_is_on_record_and_alarms_nobody(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(findings=(finding(1, FindingKind.REDACTED),))])
    assert world.alarms() == []


async def test_a_forged_finding_is_told_as_a_forgery_and_as_nothing_else(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(findings=(finding(1),), key=SigningKey.generate())])
    assert world.alarms() == ["receipt-forged"]
