"""A client that knows only the document agrees with the vectors: so the two belong together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.integration.interop import formats
from tests.integration.interop.formats import Keys, NotGenuine, unb64
from tests.integration.interop.second_client import Lease
from tests.unit.delivery.vector_inputs import read_vector

REFUSED = read_vector("refused")


def keys() -> Keys:
    enrolment = read_vector("enrolment")
    return Keys(
        Ed25519PrivateKey.from_private_bytes(unb64(enrolment["signing_private_key"])),
        X25519PrivateKey.from_private_bytes(unb64(enrolment["sealing_private_key"])),
    )


def test_it_enrols_with_the_published_body() -> None:
    published = read_vector("enrolment")["request"]
    assert keys().enrolment(published["token"], published["name"]) == published


def test_it_signs_assertions_over_what_the_published_one_says() -> None:
    vector = read_vector("assertion")
    request, now = vector["request"], vector["verified_at"] - 5
    made = keys().assertion(
        vector["instance_id"], request["audience"], request["body"].encode(), request["token"], now=now
    )
    ours, theirs = ([json.loads(unb64(part)) for part in text.split(".")[:2]] for text in (made, vector["assertion"]))
    assert ours[0] == theirs[0]
    # The vector asks with a query; everything else but the id and the end is the same.
    differing = {name for name in theirs[1] if ours[1][name] != theirs[1][name]}
    assert differing == {"htu", "exp", "jti"}


@pytest.mark.parametrize("name", ["envelope", "answer"])
def test_it_opens_the_published_answers(name: str) -> None:
    vector = read_vector(name)
    opened = keys().open(
        json.dumps(vector["envelope"]).encode(),
        vector["instance_id"],
        [unb64(vector["resolver_key"])],
        unb64(vector["request_hash"]),
    )
    assert opened == json.loads(vector["payload"])


def test_it_hashes_requests_as_published() -> None:
    vector = read_vector("envelope")
    assert formats.request_hash(vector["assertion"], vector["body"].encode()) == unb64(vector["request_hash"])


@pytest.mark.parametrize("case", REFUSED["answers"], ids=lambda case: case["what"])
def test_it_refuses_published_forgeries_of_answers(case: dict[str, Any]) -> None:
    vector = read_vector("envelope")
    with pytest.raises(NotGenuine):
        keys().open(
            json.dumps(case["envelope"]).encode(),
            vector["instance_id"],
            [unb64(vector["resolver_key"])],
            unb64(vector["request_hash"]),
        )


def test_it_accepts_the_published_definition() -> None:
    vector = read_vector("answer")
    found = formats.definition(json.loads(vector["payload"]), unb64(vector["policy_key"]))
    assert found["command"] == "/opt/tools/mcp-alchemy"


@pytest.mark.parametrize("case", REFUSED["records"], ids=lambda case: case["what"])
def test_it_refuses_published_forgeries_of_definitions(case: dict[str, Any]) -> None:
    vector = read_vector("answer")
    with pytest.raises(NotGenuine):
        formats.definition(json.loads(vector["payload"]) | {"server": case["server"]}, unb64(vector["policy_key"]))


def test_it_accepts_the_published_tick() -> None:
    vector = read_vector("tick")
    heard = formats.tick(vector["message"]["value"].encode(), unb64(vector["policy_key"]))
    assert heard == (vector["seq"], vector["signed_at"])


@pytest.mark.parametrize("case", REFUSED["ticks"], ids=lambda case: case["what"])
def test_it_refuses_published_forgeries_of_ticks(case: dict[str, Any]) -> None:
    with pytest.raises(NotGenuine):
        formats.tick(json.dumps(case["value"]).encode(), unb64(read_vector("tick")["policy_key"]))


@pytest.mark.parametrize("case", read_vector("notices")["cases"])
def test_published_notices_end_its_leases(case: dict[str, Any]) -> None:
    leases = [
        Lease(
            one["id"],
            one["reference_id"],
            one["version"],
            frozenset(one["rests_on"]),
            (one["floor"]["policy"], one["floor"]["catalog"]),
        )
        for one in read_vector("notices")["leases"]
    ]
    ends = {lease.id: how for lease in leases if (how := lease.ended_by(case["notice"]))}
    assert ends == case["ends"]


def test_it_writes_receipts_as_published() -> None:
    published = read_vector("receipt")["message"]
    key, value, headers = keys().receipt(json.loads(published["value"]))
    assert key.decode() == published["key"]
    assert json.loads(value) == json.loads(published["value"])
    written = {name: text.decode() for name, text in headers}
    assert written.keys() == published["headers"].keys()
    # The signature is over the bytes as they are: ours have other white space.
    same = written.keys() - {"ce_signature", "ce_time"}
    assert {name: written[name] for name in same} == {name: published["headers"][name] for name in same}
