"""What instances were told about records is held against what is on record."""

from __future__ import annotations

import hashlib

from shared.events.access import AccessRecord, Phase
from shared.events.audit import AuditAction
from tests.integration.audit.conftest import Stage


def echo(record: AccessRecord, *, digest: str = "") -> str:
    return f"{record.stream}/{record.n}/{digest or hashlib.sha256(record.to_json()).hexdigest()}"


async def test_a_record_that_a_killed_resolver_lost_shows(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    async with stage.audit(echoes_every_s=0.1) as running:
        resolver = stage.resolver()
        first, second = await resolver.release(instance_id=gateway.id)
        lost = resolver.record(Phase.AUTHORISED)
        await gateway.receipt(applied=1, released=[echo(first), echo(second), echo(lost)])

        (alert,) = await running.records(1, action=AuditAction.ALERT_RAISED)
        assert alert.reason == "stream-tail-lost"
        assert (alert.cause_stream, alert.cause_n, alert.instance_id) == (resolver.stream, lost.n, gateway.id)
        await gateway.receipt(applied=1, released=[echo(lost)])
        await resolver.release(instance_id=gateway.id)
        assert len(await running.records(5)) in {5, 6}
        assert len(await running.records(1, action=AuditAction.ALERT_RAISED, instance=gateway.id)) == 1


async def test_an_instance_that_was_told_of_another_record_shows(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    async with stage.audit(echoes_every_s=0.1) as running:
        first, _ = await stage.resolver().release(instance_id=gateway.id)
        await running.records(2)
        await gateway.receipt(applied=1, released=[echo(first, digest="0" * 64), "nonsense", "a/b/c", "/1/" + "0" * 64])

        (alert,) = await running.records(1, action=AuditAction.ALERT_RAISED)
        assert alert.reason == "stream-contradicted"


async def test_an_echo_that_is_read_before_its_record_alarms_nobody(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    resolver = stage.resolver()
    early = resolver.record(Phase.AUTHORISED)
    await gateway.receipt(applied=1, released=[echo(early)])
    await resolver.say(early)
    async with stage.audit(echoes_every_s=0.05) as running:
        await running.records(1)
        lost = stage.resolver().record(Phase.AUTHORISED)
        await gateway.receipt(applied=1, released=[echo(lost)])
        (alert,) = await running.records(1, action=AuditAction.ALERT_RAISED)
        assert alert.cause_stream == lost.stream
