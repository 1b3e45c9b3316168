"""Vectors of what must be refused: each says what was changed, and in which step a reader finds it out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared.crypto.framing import frame, from_base64url, to_base64url
from shared.crypto.signing import PREFIX
from shared.delivery.envelope import ANSWER_DOMAIN, request_hash
from shared.events.policy import ServerRecord, TickRecord
from tests.unit.delivery import topic_vectors
from tests.unit.delivery.vector_inputs import (
    ASSERTED_AT,
    BODY,
    FOLDER,
    INSTANCE_ID,
    INSTANCE_SEED,
    POLICY_SEED,
    RESOLVER_SEED,
    STRANGER_SEED,
    assertion,
    request,
    signing_key,
)

HEADER = {"alg": "EdDSA", "typ": "keyfob-assertion+jwt", "kid": INSTANCE_ID}
CLAIMS = {**request().claims(), "iat": ASSERTED_AT, "exp": ASSERTED_AT + 60, "jti": "AAECAwQFBgcICQoLDA0ODw"}
OTHER_INSTANCE = "instance/5e5e5e5e"


def refused() -> dict[str, Any]:
    """All of them, by step."""
    return {
        "about": "Each of these must be refused. The inputs that are not given here are those of the named file",
        "stranger_public_key": signing_key(STRANGER_SEED).verify_key.to_base64(),
        "assertions": list(_assertions()),
        "answers": list(_answers()),
        "records": list(_records()),
        "ticks": list(_ticks()),
        "receipts": list(_receipts()),
    }


def signed_assertion(header: Any, claims: Any, seed: bytes = INSTANCE_SEED) -> str:
    """What a careless or hostile instance could send."""
    unsigned = f"{_part(header)}.{_part(claims)}"
    return f"{unsigned}.{to_base64url(signing_key(seed).sign_bytes(unsigned.encode()))}"


def _part(value: Any) -> str:
    return to_base64url(json.dumps(value, separators=(",", ":")).encode())


def _assertions() -> Iterator[dict[str, Any]]:
    """At `verified_at` of assertion.json, for its request."""
    good = assertion()
    unsigned, _, signature = good.rpartition(".")
    shorter = to_base64url(from_base64url(signature)[:-1])
    framed = to_base64url(signing_key(INSTANCE_SEED).sign(b"keyfob/assertion/1", unsigned.encode()))
    cases: list[tuple[str, str, str]] = [
        ("signed by another key", "bad-signature", signed_assertion(HEADER, CLAIMS, STRANGER_SEED)),
        ("the signature of another use: with prefix and frame", "bad-signature", f"{unsigned}.{framed}"),
        ("truncated in the signature", "bad-signature", f"{unsigned}.{shorter}"),
        ("truncated to two parts", "malformed", unsigned),
        ("padding behind the signature", "malformed", good + "=="),
        ("not signed at all", "malformed", f"{_part(HEADER | {'alg': 'none'})}.{_part(CLAIMS)}."),
        ("another typ", "malformed", signed_assertion(HEADER | {"typ": "JWT"}, CLAIMS)),
        ("a member more in the header", "malformed", signed_assertion(HEADER | {"crit": ["exp"]}, CLAIMS)),
        (
            "an instance that nobody enrolled",
            "unknown-instance",
            signed_assertion(HEADER | {"kid": OTHER_INSTANCE}, CLAIMS),
        ),
    ]
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("for another resolver", "another-request", {"aud": "https://resolver-2.example"}),
        ("a slash behind the origin", "another-request", {"aud": "https://resolver.example/"}),
        ("without the query", "another-request", {"htu": "/v1/resolve"}),
        ("another method", "another-request", {"htm": "GET"}),
        ("the hash of another body", "another-request", {"bh": to_base64url(bytes(32))}),
        ("the hash of another token", "another-token", {"ath": to_base64url(bytes(32))}),
        ("61 s long", "lifetime-too-long", {"exp": ASSERTED_AT + 61}),
        ("expired at the moment", "expired", {"iat": ASSERTED_AT - 55, "exp": ASSERTED_AT + 5}),
        ("from 11 s in the future", "issued-in-the-future", {"iat": ASSERTED_AT + 16, "exp": ASSERTED_AT + 46}),
        ("times that are no integers", "malformed", {"exp": ASSERTED_AT + 60.5}),
        ("without an id", "malformed", {"jti": ""}),
    ]
    for what, reason, text in cases:
        yield {"what": what, "reason": reason, "assertion": text}
    for what, reason, change in changes:
        yield {"what": what, "reason": reason, "assertion": signed_assertion(HEADER, CLAIMS | change)}


def _answers() -> Iterator[dict[str, Any]]:
    """To the request of envelope.json, with its keys; made from the sealed bytes that were published there."""
    sealed = from_base64url(json.loads((FOLDER / "envelope.json").read_text())["envelope"]["sealed"])
    hashed = request_hash(assertion().encode(), BODY.encode())
    repeated = request_hash(signed_assertion(HEADER, CLAIMS | {"jti": "another"}).encode(), BODY.encode())
    kid = signing_key(RESOLVER_SEED).key_id

    def answer(what: str, at: str, *, by: bytes = RESOLVER_SEED, key_id: str = kid, **over: Any) -> dict[str, Any]:
        parts = {"instance": INSTANCE_ID, "hashed": hashed, "sealed": sealed} | over
        signature = signing_key(by).sign(ANSWER_DOMAIN, parts["instance"].encode(), parts["hashed"], parts["sealed"])
        envelope = {
            "v": 1,
            "kid": key_id,
            "sealed": to_base64url(over.get("sent", parts["sealed"])),
            "signature": to_base64url(signature),
        }
        return {"what": what, "refused_at": at, "envelope": envelope}

    yield answer(
        "signed by a key that is not pinned", "key", by=STRANGER_SEED, key_id=signing_key(STRANGER_SEED).key_id
    )
    yield answer("signed by another key under a pinned one's id", "signature", by=STRANGER_SEED)
    yield answer("signed for another instance", "signature", instance=OTHER_INSTANCE)
    yield answer("signed for another request: its assertion had another id", "signature", hashed=repeated)
    yield answer("truncated on its way", "signature", sent=sealed[:-1])
    yield answer("truncated before it was signed", "open", sealed=sealed[:-1])
    yield answer("cut to nothing before it was signed", "open", sealed=b"")
    yield answer("another byte in the encapsulated key", "open", sealed=bytes([sealed[0] ^ 1]) + sealed[1:])
    yield answer(
        "the same reflected: our own signing key", "key", by=INSTANCE_SEED, key_id=signing_key(INSTANCE_SEED).key_id
    )
    yield {"what": "another version", "refused_at": "form", "envelope": answer("", "")["envelope"] | {"v": 2}}
    yield {"what": "a member more", "refused_at": "form", "envelope": answer("", "")["envelope"] | {"aad": ""}}


def _records() -> Iterator[dict[str, Any]]:
    """Instead of `server` in record.json."""
    payload = topic_vectors.server_payload()
    good = topic_vectors.record()["server"]

    def record(what: str, signature: bytes, **over: Any) -> dict[str, Any]:
        return {"what": what, "server": {**good, "signature": to_base64url(signature)} | over}

    def sign(
        seed: bytes = POLICY_SEED, type_: str = ServerRecord.TYPE, key: str = topic_vectors.SERVER_ID, **topic: str
    ) -> bytes:
        return topic_vectors.signed_by(seed, type_, key, payload, **topic)

    changed = payload.replace(b"/opt/tools/mcp-alchemy", b"/bin/sh")
    yield record("signed by another key", sign(STRANGER_SEED))
    yield record("signed by the resolver", sign(RESOLVER_SEED))
    yield record("another command", sign(), payload=to_base64url(changed))
    yield record("signed under the key of another server", sign(key="server/other"))
    yield record("signed in another topic", sign(topic="keyfob.catalog.v1"))
    yield record("another type, though signed", sign(type_="keyfob.policy.profile.v1"), type="keyfob.policy.profile.v1")


def _ticks() -> Iterator[dict[str, Any]]:
    """Instead of the value of the message in tick.json."""
    payload, good = topic_vectors.tick_payload(), json.loads(topic_vectors.tick()["message"]["value"])

    def tick(what: str, signature: bytes, said: bytes = payload) -> dict[str, Any]:
        return {"what": what, "value": good | {"payload": _padded(said), "signature": _padded(signature)}}

    later = payload.replace(b"2027-", b"2028-")
    yield tick("signed by another key", topic_vectors.signed_by(STRANGER_SEED, TickRecord.TYPE, "tick", payload))
    yield tick(
        "signed by the instance itself", topic_vectors.signed_by(INSTANCE_SEED, TickRecord.TYPE, "tick", payload)
    )
    yield tick("another time", topic_vectors.signed_by(POLICY_SEED, TickRecord.TYPE, "tick", payload), later)
    yield tick("signed as another record", topic_vectors.signed_by(POLICY_SEED, ServerRecord.TYPE, "tick", payload))
    yield tick("signed without prefix", signing_key(POLICY_SEED).sign_bytes(frame(b"keyfob/record/v1", payload)))


def _padded(data: bytes) -> str:
    text = to_base64url(data)
    return text + "=" * (-len(text) % 4)


def _receipts() -> Iterator[dict[str, Any]]:
    """Instead of the message in receipt.json."""
    good = topic_vectors.as_vector(topic_vectors.receipt_message())
    value = topic_vectors.receipt_value()

    def receipt(what: str, **over: Any) -> dict[str, Any]:
        return {"what": what, "message": good | over}

    other = topic_vectors.as_vector(topic_vectors.receipt_message(STRANGER_SEED))
    record = topic_vectors.as_vector(topic_vectors.receipt_message(domain=b"keyfob/record/v1"))
    plain = to_base64url(signing_key(INSTANCE_SEED).sign_bytes(PREFIX + value.to_json()))
    yield receipt("signed by another key", headers=other["headers"])
    yield receipt("signed for another use", headers=record["headers"])
    yield receipt("signed without frame", headers=good["headers"] | {"ce_signature": plain})
    yield receipt("more was dropped", value=value.model_copy(update={"dropped_offset": 1200}).to_json().decode())
    yield receipt("a space more", value=good["value"] + " ")
    yield receipt("under another instance's key", key=OTHER_INSTANCE)
    yield receipt("without a signature", headers={k: v for k, v in good["headers"].items() if k != "ce_signature"})
