"""Vectors of what stands in topics: policy's signed records and ticks, notices with what they end, receipts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import record_signer
from shared.crypto.framing import to_base64url
from shared.delivery.receipts import RECEIPT_DOMAIN
from shared.events.definitions import EnvironmentField, FileField, StdioServer, definition_digest
from shared.events.notices import Notice, NoticeKind, NoticeTick, Superseded
from shared.events.policy import ServerRecord, TickRecord
from shared.events.receipts import EndedLease, GatewayReceipt, LeaseEnd
from tests.unit.delivery.vector_inputs import INSTANCE_ID, INSTANCE_SEED, POLICY_SEED, signing_key

AT = datetime(2027, 1, 15, 8, 0, 0, 250_000, UTC)
RUN = "run/000102030405060708090a0b0c0d0e0f"
SERVER_ID = "server/77aa"
DEFINITION = StdioServer(
    command="/opt/tools/mcp-alchemy",
    environment={"TZ": "UTC"},
    fields=(EnvironmentField(name="DB_URL"), FileField(inject="file", name="CA_FILE"), EnvironmentField(name="REGION")),
)


def server_payload() -> bytes:
    """A definition's record as policy writes it."""
    digest = definition_digest(DEFINITION)
    return ServerRecord(
        id=SERVER_ID, seq=4, revision=1, name="patients-db", owner="alice", definition=DEFINITION, digest=digest
    ).to_json()


def tick_payload() -> bytes:
    """A tick as policy writes it."""
    return TickRecord(id="tick", seq=813, revision=813, at=AT, digest="00" * 32).to_json()


def signed_by(seed: bytes, type_: str, key: str, payload: bytes, *, topic: str = "keyfob.policy.v1") -> bytes:
    """A record's signature."""
    return record_signer(signing_key(seed))(topic=topic, type_=type_, key=key, payload=payload)[1]


def record() -> dict[str, Any]:
    """The member `server` of an answer."""
    payload, policy = server_payload(), signing_key(POLICY_SEED)
    return {
        "about": "A definition as an answer carries it; the signature covers topic, type, key and payload",
        "policy_private_key": to_base64url(POLICY_SEED),
        "policy_key": policy.verify_key.to_base64(),
        "topic": "keyfob.policy.v1",
        "key": SERVER_ID,
        "definition_digest": definition_digest(DEFINITION),
        "payload_text": payload.decode(),
        "server": {
            "type": ServerRecord.TYPE,
            "payload": to_base64url(payload),
            "signature": to_base64url(signed_by(POLICY_SEED, ServerRecord.TYPE, SERVER_ID, payload)),
            "key_id": policy.key_id,
        },
    }


def tick() -> dict[str, Any]:
    """A tick as it stands in notices."""
    payload, policy = tick_payload(), signing_key(POLICY_SEED)
    signature = signed_by(POLICY_SEED, TickRecord.TYPE, "tick", payload)
    passed_on = NoticeTick(payload=payload, signature=signature, key_id=policy.key_id)
    message = encode(passed_on, key=None, source="keyfob/notifier", event_id="tick/813", time=AT)
    return {
        "about": "A message of keyfob.notices.v1: policy's tick, passed on. Its bytes are base64url with padding",
        "policy_key": policy.verify_key.to_base64(),
        "message": as_vector(message),
        "payload_text": payload.decode(),
        "seq": 813,
        "signed_at": AT.timestamp(),
    }


def as_vector(message: Message) -> dict[str, Any]:
    """A message for any reader of JSON."""
    headers = {name: value.decode() for name, value in message.headers}
    return {"topic": message.topic, "key": message.key, "headers": headers, "value": message.value.decode()}


LEASES: list[dict[str, Any]] = [
    {
        "id": "lease/a",
        "reference_id": "reference/1",
        "version": "2",
        "rests_on": ["reference/1", "grant/1", "profile/1"],
        "floor": {"policy": 10, "catalog": 20},
    },
    {
        "id": "lease/b",
        "reference_id": "reference/1",
        "version": "3",
        "rests_on": ["reference/1", "grant/1", "profile/1"],
        "floor": {"policy": 12, "catalog": 25},
    },
    {
        "id": "lease/c",
        "reference_id": "value/9",
        "version": "1",
        "rests_on": ["grant/2", "profile/1"],
        "floor": {"policy": 10, "catalog": 20},
    },
]


def _notice(kind: NoticeKind, **more: Any) -> Notice:
    return Notice(id="notice/1", kind=kind, cause_id="change/1", at=AT, **more)


def notices() -> dict[str, Any]:
    """Which leases notices end, and how."""
    rotation, revocation = NoticeKind.ROTATION, NoticeKind.REVOCATION
    newer, none = Superseded(reference_id="reference/1", current="3"), Superseded(reference_id="reference/1")
    cases = [
        (_notice(rotation, superseded=(newer,), catalog_seq=25), {"lease/a": "drain"}),
        (_notice(rotation, superseded=(newer,), catalog_seq=20), {}),
        # The second lease did not know of it, and has the version that is good.
        (_notice(rotation, superseded=(newer,), catalog_seq=26), {"lease/a": "drain"}),
        (_notice(revocation, superseded=(none,), catalog_seq=26), {"lease/a": "kill", "lease/b": "kill"}),
        (_notice(revocation, ended=("grant/1",), policy_seq=12), {"lease/a": "kill"}),
        (
            _notice(revocation, ended=("profile/1",), policy_seq=13),
            dict.fromkeys(("lease/a", "lease/b", "lease/c"), "kill"),
        ),
        (_notice(revocation, ended=("reference/1",), policy_seq=13), {"lease/a": "kill", "lease/b": "kill"}),
        (_notice(rotation, ended=("grant/2",), policy_seq=13), {"lease/c": "kill"}),
        (
            _notice(rotation, superseded=(Superseded(reference_id="value/9", current="2"),), custody_seq=1),
            {"lease/c": "drain"},
        ),
        (_notice(revocation, ended=("grant/77",), policy_seq=99), {}),
    ]
    return {
        "about": "Each notice alone, on all of these leases: which it ends, and how. `floor` is that of the answer",
        "leases": LEASES,
        "cases": [{"notice": json.loads(notice.to_json()), "ends": ends} for notice, ends in cases],
    }


def receipt_value() -> GatewayReceipt:
    """A receipt with something in it."""
    return GatewayReceipt(
        instance_id=INSTANCE_ID,
        run=RUN,
        n=41,
        applied_offset=1200,
        dropped_offset=1199,
        open_leases=1,
        ended=(EndedLease(lease_id="lease/a", why=LeaseEnd.NOTICE, at=AT),),
        released=("access/resolver-1/00ff/7/" + "ab" * 32,),
        at=AT,
    )


def receipt_message(seed: bytes = INSTANCE_SEED, *, domain: bytes = RECEIPT_DOMAIN) -> Message:
    """A signed receipt."""
    value, key = receipt_value(), signing_key(seed)
    return encode(
        value,
        payload=value.to_json(),
        key=INSTANCE_ID,
        source=f"/{INSTANCE_ID}",
        event_id=f"{RUN}/41",
        time=AT,
        extensions={"signature": to_base64url(key.sign(domain, value.to_json())), "keyid": key.key_id},
    )


def receipt() -> dict[str, Any]:
    """A receipt as it stands in its topic."""
    return {
        "about": "A message of keyfob.receipts.v1; the signature covers the value exactly as it is",
        "private_key": to_base64url(INSTANCE_SEED),
        "public_key": signing_key(INSTANCE_SEED).verify_key.to_base64(),
        "message": as_vector(receipt_message()),
    }


def answer() -> dict[str, Any]:
    """The payload of an answer with a value, a value that is no text, and a variable."""

    def lease(name: str, reference: str, version: str) -> dict[str, Any]:
        rests_on = [reference, "grant/1", "binding/1", "profile/1", SERVER_ID, INSTANCE_ID]
        expires_at = 1_800_000_900.5
        return {
            "id": name,
            "reference_id": reference,
            "version": version,
            "expires_at": expires_at,
            "rests_on": rests_on,
        }

    return {
        "record": {"stream": "access/resolver-1/00ff", "n": 7, "hash": "ab" * 32},
        "floor": {"policy": 812, "catalog": 77},
        "subject": {"idp_id": "idp/1", "subject": "ada"},
        "subject_expires_at": 1_800_003_600,
        "context": {"profile_id": "profile/1", "name": "hospital-a"},
        "server_id": SERVER_ID,
        "server": record()["server"],
        "definition_digest": definition_digest(DEFINITION),
        "fields": [
            {
                "name": "DB_URL",
                "value": to_base64url(b"postgresql://ada:pw@db/a"),
                "lease": lease("lease/a", "reference/1", "2"),
            },
            {"name": "CA_FILE", "value": to_base64url(b"\xff\x00\xfe"), "lease": lease("lease/b", "reference/2", "1")},
            {"name": "REGION", "variable": "HOSPITAL_REGION", "lease": lease("lease/c", "variable/1", "in-place")},
        ],
    }
