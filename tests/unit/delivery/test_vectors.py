"""The published vectors hold: with our code, and with plain libraries that know only the documents."""

import hashlib
import json
import struct
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey

from services.gateway.client.identity import Identity, Keys
from services.gateway.client.leases import Floor, Lease, LeaseBook
from services.gateway.client.notices import Passed, Ticked, interpret
from services.gateway.client.resolving import verified_server
from shared.bus.cloudevents import Message, decode
from shared.crypto import SealingPublicKey, VerifyKey, canonical, digest
from shared.crypto.framing import from_base64url, to_base64url
from shared.delivery import (
    AssertionRefused,
    ReplayWindow,
    Request,
    open_answer,
    request_hash,
    verify_assertion,
    verify_certificate,
)
from shared.delivery.messages import EnrolAnswer, EnrolRequest, decode_answer, parse_request
from shared.delivery.receipts import receipt_verifies
from shared.errors import SealInvalid, SignatureInvalid, Unavailable
from shared.events.notices import Notice
from shared.events.policy import ServerRecord
from shared.events.receipts import GatewayReceipt
from tests.unit.delivery.make_vectors import vectors
from tests.unit.delivery.vector_inputs import read_vector as read
from tests.unit.delivery.vector_inputs import sealing_key, signing_key

RANDOMISED = {"sealing": ("sealed",), "envelope": ("envelope",), "answer": ("envelope",)}


@pytest.mark.parametrize("name", sorted(vectors()))
def test_what_we_compute_today_is_what_was_published(name: str) -> None:
    published, computed = read(name), vectors()[name]
    for member in RANDOMISED.get(name, ()):
        published.pop(member)
        computed.pop(member)
    assert published == computed


def test_a_published_signature_verifies() -> None:
    vector = read("signing")
    key = VerifyKey.from_base64(vector["public_key"])
    parts = [from_base64url(part) for part in vector["parts"]]
    key.verify(from_base64url(vector["signature"]), vector["domain"].encode(), *parts)
    assert key.key_id == vector["key_id"]


def test_a_plain_library_verifies_a_published_signature() -> None:
    vector = read("signing")
    message = b"keyfob/signature/1\x00"
    for part in (vector["domain"].encode(), *map(from_base64url, vector["parts"])):
        message += struct.pack(">I", len(part)) + part
    assert message.hex() == vector["signed_bytes_hex"]
    key = Ed25519PublicKey.from_public_bytes(from_base64url(vector["public_key"]))
    key.verify(from_base64url(vector["signature"]), message)


def test_published_sealed_bytes_open() -> None:
    vector = read("sealing")
    key = sealing_key(from_base64url(vector["private_key"]))
    opened = key.open(from_base64url(vector["sealed"]), context=from_base64url(vector["context"]))
    assert to_base64url(opened) == vector["plaintext"]


def test_published_canonical_bytes_and_digest() -> None:
    vector = read("canonical")
    assert canonical(vector["value"]).hex() == vector["canonical_hex"]
    assert digest(vector["domain"].encode(), vector["value"]) == vector["digest"]


def test_a_published_certificate_verifies() -> None:
    vector = read("certificate")
    verify_certificate(
        vector["sealing_key_signature"],
        signing_key=VerifyKey.from_base64(vector["signing_key"]),
        sealing_key=SealingPublicKey.from_base64(vector["sealing_key"]),
    )


def test_a_published_assertion_verifies() -> None:
    vector = read("assertion")
    verified = verify_assertion(
        vector["assertion"],
        Request(**{**vector["request"], "body": vector["request"]["body"].encode()}),
        key_of={vector["instance_id"]: VerifyKey.from_base64(vector["public_key"])}.get,
        seen=ReplayWindow(),
        now=vector["verified_at"],
    )
    assert verified.instance_id == vector["instance_id"]


def test_a_jose_library_reads_a_published_assertion() -> None:
    vector = read("assertion")
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": vector["public_key"]})
    with warnings.catch_warnings():
        # The name EdDSA is older than RFC 9864, and the one that every library knows.
        warnings.simplefilter("ignore", SecurityWarning)
        token = jwt.decode(vector["assertion"], key, algorithms=["EdDSA"])
    assert token.header == {"alg": "EdDSA", "typ": "keyfob-assertion+jwt", "kid": vector["instance_id"]}
    body, subject_token = (vector["request"][name].encode() for name in ("body", "token"))
    assert from_base64url(token.claims["bh"]) == hashlib.sha256(body).digest()
    assert from_base64url(token.claims["ath"]) == hashlib.sha256(subject_token).digest()


def test_a_jose_library_makes_an_assertion_that_we_accept() -> None:
    vector = read("assertion")
    public = signing_key(from_base64url(vector["private_key"])).verify_key
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": public.to_base64(), "d": vector["private_key"]}
    request = Request(**{**vector["request"], "body": vector["request"]["body"].encode()})
    claims = request.claims() | {"iat": 100, "exp": 130, "jti": "made-elsewhere"}
    header = {"typ": "keyfob-assertion+jwt", "kid": "instance/x", "alg": "Ed25519"}
    made = jwt.encode(header, claims, OKPKey.import_key(jwk), algorithms=["Ed25519"])
    verified = verify_assertion(made, request, key_of=lambda _id: public, seen=ReplayWindow(), now=110)
    assert verified.assertion_id == "made-elsewhere"


def test_a_published_envelope_opens() -> None:
    vector = read("envelope")
    hashed = request_hash(vector["assertion"].encode(), vector["body"].encode())
    assert to_base64url(hashed) == vector["request_hash"]
    opened = open_answer(
        json.dumps(vector["envelope"]).encode(),
        instance_id=vector["instance_id"],
        instance_hpke_key=sealing_key(from_base64url(vector["instance_private_key"])),
        resolver_keys=[VerifyKey.from_base64(vector["resolver_key"])],
        request_hash=hashed,
    )
    assert opened.decode() == vector["payload"]


def test_a_plain_hpke_library_opens_a_published_envelope() -> None:
    vector = read("envelope")
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    key = X25519PrivateKey.from_private_bytes(from_base64url(vector["instance_private_key"]))
    sealed = from_base64url(vector["envelope"]["sealed"])
    assert suite.decrypt(sealed, key, bytes.fromhex(vector["context_hex"])).decode() == vector["payload"]


def test_a_published_enrolment_is_one_that_we_read_and_prove() -> None:
    vector = read("enrolment")
    asked = parse_request(json.dumps(vector["request"]).encode(), EnrolRequest)
    verify_certificate(
        asked.sealing_key_signature,
        signing_key=VerifyKey.from_base64(asked.signing_key),
        sealing_key=SealingPublicKey.from_base64(asked.sealing_key),
    )
    assert EnrolAnswer.model_validate(vector["answer"]).model_dump(exclude_none=True)["labels"] == {"region": "north"}
    key = Ed25519PublicKey.from_public_bytes(from_base64url(asked.signing_key))
    key.verify(from_base64url(asked.sealing_key_signature), bytes.fromhex(vector["certified_bytes_hex"]))


def test_a_published_answer_opens_and_holds_what_it_says() -> None:
    vector = read("answer")
    opened = open_answer(
        json.dumps(vector["envelope"]).encode(),
        instance_id=vector["instance_id"],
        instance_hpke_key=sealing_key(from_base64url(vector["instance_private_key"])),
        resolver_keys=[VerifyKey.from_base64(vector["resolver_key"])],
        request_hash=from_base64url(vector["request_hash"]),
    )
    assert opened.decode() == vector["payload"]
    answer = decode_answer(opened)
    assert verified_server(answer, identity(vector["policy_key"])).digest == answer.definition_digest
    held = {one.name: one.value for one in answer.fields}
    assert held["DB_URL"] is not None
    assert held["DB_URL"].matches(vector["values"]["DB_URL"].encode())
    assert held["CA_FILE"] is not None
    assert held["CA_FILE"].matches(bytes.fromhex(vector["values"]["CA_FILE_hex"]))
    assert (held["REGION"], answer.fields[2].variable) == (None, "HOSPITAL_REGION")


def test_a_published_record_and_a_published_tick_are_policys() -> None:
    record, tick = read("record"), read("tick")
    assert server_of(record["server"], record["policy_key"]).id == record["key"]
    heard = interpret(message_of(tick["message"]), VerifyKey.from_base64(tick["policy_key"]))
    assert heard == Ticked(offset=-1, seq=tick["seq"], signed_at=tick["signed_at"])


@pytest.mark.parametrize("case", read("notices")["cases"])
def test_published_notices_end_what_they_say(case: dict[str, Any]) -> None:
    book = LeaseBook()
    book.add(lease_of(one) for one in read("notices")["leases"])
    fenced = book.fence(7, Notice.model_validate(case["notice"]))
    assert {one.lease.id: one.urgency.name.lower() for one in fenced} == case["ends"]


def test_a_published_receipt_verifies() -> None:
    vector = read("receipt")
    message = message_of(vector["message"])
    receipt = decode(message, GatewayReceipt)
    assert receipt_verifies(message, receipt, VerifyKey.from_base64(vector["public_key"]))
    assert (receipt.n, message.key) == (41, receipt.instance_id)


class TestRefused:
    """What the published vectors say must be refused is refused, for the reason that they give."""

    @pytest.mark.parametrize("case", read("refused")["assertions"], ids=lambda case: case["what"])
    def test_assertions(self, case: dict[str, Any]) -> None:
        vector = read("assertion")
        seen = ReplayWindow()
        with pytest.raises(AssertionRefused) as refused:
            verify_assertion(
                case["assertion"],
                Request(**{**vector["request"], "body": vector["request"]["body"].encode()}),
                key_of={vector["instance_id"]: VerifyKey.from_base64(vector["public_key"])}.get,
                seen=seen,
                now=vector["verified_at"],
            )
        assert refused.value.reason == case["reason"]
        assert len(seen) == 0

    @pytest.mark.parametrize("case", read("refused")["answers"], ids=lambda case: case["what"])
    def test_answers(self, case: dict[str, Any]) -> None:
        vector = read("envelope")
        with pytest.raises(SealInvalid if case["refused_at"] == "open" else SignatureInvalid):
            open_answer(
                json.dumps(case["envelope"]).encode(),
                instance_id=vector["instance_id"],
                instance_hpke_key=sealing_key(from_base64url(vector["instance_private_key"])),
                resolver_keys=[VerifyKey.from_base64(vector["resolver_key"])],
                request_hash=from_base64url(vector["request_hash"]),
            )

    @pytest.mark.parametrize("case", read("refused")["records"], ids=lambda case: case["what"])
    def test_records(self, case: dict[str, Any]) -> None:
        with pytest.raises(Unavailable):
            server_of(case["server"], read("record")["policy_key"])

    @pytest.mark.parametrize("case", read("refused")["ticks"], ids=lambda case: case["what"])
    def test_ticks(self, case: dict[str, Any]) -> None:
        vector = read("tick")
        message = message_of(vector["message"] | {"value": json.dumps(case["value"])})
        assert interpret(message, VerifyKey.from_base64(vector["policy_key"])) == Passed(offset=-1)

    @pytest.mark.parametrize("case", read("refused")["receipts"], ids=lambda case: case["what"])
    def test_receipts(self, case: dict[str, Any]) -> None:
        message = message_of(case["message"])
        receipt = decode(message, GatewayReceipt)
        assert not receipt_verifies(message, receipt, VerifyKey.from_base64(read("receipt")["public_key"]))


def message_of(vector: dict[str, Any]) -> Message:
    headers = tuple((name, value.encode()) for name, value in vector["headers"].items())
    return Message(topic=vector["topic"], key=vector["key"], value=vector["value"].encode(), headers=headers)


def lease_of(vector: dict[str, Any]) -> Lease:
    return Lease(
        id=vector["id"],
        reference_id=vector["reference_id"],
        version=vector["version"],
        rests_on=frozenset(vector["rests_on"]),
        decided=Floor(**vector["floor"]),
        expires_at=2e9,
        expires_at_monotonic=2e9,
    )


def identity(policy_key: str) -> Identity:
    enrolled = EnrolAnswer.model_validate(read("enrolment")["answer"] | {"policy_key": policy_key})
    return Identity(Keys(signing_key(bytes(32)), sealing_key(bytes(32))), enrolled)


def server_of(signed: dict[str, Any], policy_key: str) -> ServerRecord:
    """The definition in an answer that has every field of the published one."""
    payload = json.loads(read("answer")["payload"]) | {"server": signed}
    return verified_server(decode_answer(json.dumps(payload).encode()), identity(policy_key))
