"""One golden example of each contract, as it would stand on the wire: what third parties test their readers with."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.events import access, alerts, audit, catalog, changes, custody, definitions, notices, policy, receipts
from shared.events.contract import Contract

_AT = datetime(2026, 11, 23, 8, 30, 0, tzinfo=UTC)
_LATER = datetime(2026, 11, 23, 8, 45, 0, tzinfo=UTC)
_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
_PROFILE, _SERVER, _REFERENCE = "profile/5b1e", "server/77aa", "reference/09c4"
_SOURCE, _INSTANCE, _GRANT, _BINDING = "source/e1d0", "instance/4f2a", "grant/8c61", "binding/2d9b"
_IDP, _MAPPING = "idp/1a2b", "mapping/6e5f"
_DEFINITION = definitions.StdioServer(
    command="/opt/tools/mcp-alchemy", fields=(definitions.EnvironmentField(name="DB_URL"),)
)
_DIGEST = definitions.definition_digest(_DEFINITION)
_ACTOR = changes.Actor(idp=_IDP, subject="alice")
_RESTS_ON = (_IDP, _MAPPING, _PROFILE, _SERVER, _BINDING, _GRANT, _REFERENCE, _SOURCE, _INSTANCE)

_STATE: tuple[Contract, ...] = (
    catalog.SourceRecord(
        id=_SOURCE,
        seq=1,
        revision=1,
        name="hospitals",
        place=catalog.KvSource(origin="https://vault.example.org:8200", mount="secret"),
    ),
    catalog.ReferenceRecord(
        id=_REFERENCE,
        seq=2,
        revision=1,
        name="hospital-a/db-url",
        source_id=_SOURCE,
        path="hospital-a",
        key="db-url",
        version="3",
        changed_at=_AT,
    ),
    policy.IdpRecord(
        id=_IDP,
        seq=1,
        revision=1,
        name="corporate",
        issuer="https://idp.example.org",
        jwks_uri="https://idp.example.org/jwks",
    ),
    policy.ProfileRecord(id=_PROFILE, seq=2, revision=1, name="hospital-a"),
    policy.MappingRecord(id=_MAPPING, seq=3, revision=1, idp_id=_IDP, group="nurses-a", profile_id=_PROFILE),
    policy.ServerRecord(
        id=_SERVER, seq=4, revision=1, name="patients-db", owner="alice", definition=_DEFINITION, digest=_DIGEST
    ),
    policy.GrantRecord(id=_GRANT, seq=5, revision=1, profile_id=_PROFILE, reference_id=_REFERENCE, ends_at=_LATER),
    policy.BindingRecord(
        id=_BINDING,
        seq=6,
        revision=1,
        profile_id=_PROFILE,
        server_id=_SERVER,
        field="DB_URL",
        origin=policy.ReferenceOrigin(reference_id=_REFERENCE),
        definition_digest=_DIGEST,
    ),
    policy.VariableRecord(
        id="variable/5d0a", seq=6, revision=1, name="HOSPITAL_DB_URL", labels={"tenant": "hospital-a"}
    ),
    policy.ChoiceRecord(
        id="choice/3c3c",
        seq=7,
        revision=1,
        idp_id=_IDP,
        subject="agent-a",
        server_id=_SERVER,
        field="DB_URL",
        profile_id=_PROFILE,
        reference_id=_REFERENCE,
    ),
    policy.InstanceRecord(
        id=_INSTANCE,
        seq=8,
        revision=1,
        name="gateway-1",
        signing_key=_KEY,
        sealing_key=_KEY,
        sealing_certificate=_KEY,
        labels={"env": "prod"},
        allowed_servers=(_SERVER,),
        enrolled_at=_AT,
    ),
    policy.TickRecord(id="tick", seq=9, revision=9, at=_AT, digest="0" * 64),
)

_EVENTS: tuple[Contract, ...] = (
    changes.VaultChange(
        id="change/aa01",
        seq=2,
        kind=changes.VaultChangeKind.ROTATED,
        reference_id=_REFERENCE,
        reference_name="hospital-a/db-url",
        source_id=_SOURCE,
        version="3",
        previous_version="2",
        state=catalog.ReferenceState.ACTIVE,
        previous_state=catalog.ReferenceState.ACTIVE,
        detected_by=changes.Detection.FEED,
        changed_at=_AT,
        detected_at=_AT,
    ),
    changes.PolicyChange(
        id="change/bb02",
        seq=10,
        action=changes.PolicyAction.DELETED,
        entity_kind="grant",
        entity_id=_GRANT,
        ended=(_GRANT,),
        actor=_ACTOR,
        at=_AT,
    ),
    custody.KeyChange(
        id="change/cc05",
        seq=11,
        action=custody.KeyAction.MADE_CURRENT,
        key_id="k4fx2mwzq7c3nabd",
        previous_key_id="a2b3c4d5e6f7ghij",
        recovery_key_id="zyxwvutsrqponm23",
        values=120,
        actor=_ACTOR,
        at=_AT,
    ),
    custody.ValueChange(
        id="change/dd06",
        seq=12,
        action=custody.ValueAction.REPLACED,
        value_id="value/3f7a",
        version=2,
        owner_kind=policy.LocalOwner.PROFILE,
        owner=_PROFILE,
        server_id=_SERVER,
        server_name="patients-db",
        field="DB_URL",
        actor=_ACTOR,
        at=_AT,
    ),
    access.AccessRecord(
        id="access/cc03",
        stream="access/resolver-1/7d",
        n=0,
        prev=access.FIRST_PREV,
        phase=access.Phase.AUTHORISED,
        at=_AT,
        resolution_id="resolution/dd04",
        instance_id=_INSTANCE,
        instance_name="gateway-1",
        subject=access.AccessSubject(idp_id=_IDP, subject="agent-a", groups=("nurses-a",)),
        server_id=_SERVER,
        server_name="patients-db",
        profile_id=_PROFILE,
        context="hospital-a",
        items=(
            access.AccessItem(
                field="DB_URL",
                reference_id=_REFERENCE,
                reference_name="hospital-a/db-url",
                source_id=_SOURCE,
                lease_id="lease/ee05",
                expires_at=_LATER,
                rests_on=_RESTS_ON,
            ),
        ),
        policy_seq=9,
        catalog_seq=2,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    ),
    notices.Notice(
        id="notice/0b8e5f5c-6f1e-5d5a-9d3c-0e4b9f3f7a11",
        kind=notices.NoticeKind.ROTATION,
        cause_id="change/aa01",
        superseded=(notices.Superseded(reference_id=_REFERENCE, current="3"),),
        catalog_seq=2,
        at=_AT,
    ),
    notices.NoticeTick(payload=b"{}", signature=b"\0" * 64, key_id="00112233"),
    receipts.GatewayReceipt(
        instance_id=_INSTANCE,
        run="run/ff06",
        n=41,
        applied_offset=1200,
        dropped_offset=1200,
        open_leases=0,
        ended=(receipts.EndedLease(lease_id="lease/ee05", why=receipts.LeaseEnd.NOTICE, at=_AT),),
        variables=("HOSPITAL_DB_URL",),
        findings=(
            receipts.Finding(
                id="finding/ff07", kind=receipts.FindingKind.REDACTED, lease_id="lease/ee05", places=2, at=_AT
            ),
        ),
        at=_AT,
    ),
    receipts.ResolverReceipt(replica_id="resolver-1", run="run/0107", policy_seq=10, catalog_seq=2, fresh=True, at=_AT),
    alerts.Alert(
        id="alert/1208",
        kind="reference-unusable",
        severity=alerts.Severity.WARNING,
        summary="A reference was removed from its source.",
        concerns=(_REFERENCE,),
        at=_AT,
    ),
    audit.AuditRecord(
        log="log/main",
        n=1,
        at=_AT,
        action=audit.AuditAction.ACCESS_RELEASED,
        decision="allowed",
        actor="agent-a",
        actor_idp=_IDP,
        instance_id=_INSTANCE,
        instance_name="gateway-1",
        server_id=_SERVER,
        server_name="patients-db",
        context="hospital-a",
        references=(audit.AuditReference(id=_REFERENCE, name="hospital-a/db-url", field="DB_URL", version="3"),),
        policy_seq=9,
        catalog_seq=2,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        cause_topic="keyfob.access.v1",
        cause_id="access/cc03",
        cause_stream="access/resolver-1/7d",
        cause_n=1,
    ),
)

EXAMPLES: tuple[Contract, ...] = (*_STATE, *_EVENTS)
