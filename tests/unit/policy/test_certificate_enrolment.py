"""An instance of the profile `https` comes in by a certificate request, and only if an admin promised that profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from services.policy.api.desk import Desk
from shared.delivery.certificates import read_peer
from shared.events.policy import InstanceRecord
from tests.fakes.pki import DAY, authority, request_for
from tests.unit.policy.front import Front, front_desk
from tests.unit.policy.stories import NOON
from tests.unit.policy.test_enrolment_over_http import Gateway, enrol


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca")


@pytest.fixture
def desk(files: Path) -> Iterator[Desk]:
    """A front that has an authority for instances."""
    desk = front_desk()
    # The application is made once for all tests, which takes longer than all of them: what it holds is put back.
    object.__setattr__(desk, "instance_ca", authority(files, "instance-ca", valid=3650 * DAY).instance_ca())
    yield desk
    object.__setattr__(desk, "instance_ca", None)


@pytest.fixture
def front(desk: Desk) -> Front:
    del desk
    return Front()


class Plain:
    """A key made on the spot, and the request that it makes."""

    def __init__(self, name: str = "plain-1") -> None:
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())

    def request(self, token: str, **other: Any) -> dict[str, Any]:
        return {"token": token, "name": self.name, "certificate_request": request_for(self.key)} | other


async def promise(front: Front, name: str = "plain-1", profile: str = "https", **other: Any) -> Mapping[str, Any]:
    return await front.create("enrolments", name=name, delivery=profile, allowed_servers=["*"], **other)


async def come(front: Front, plain: Plain, token: str, *, expect: int = 200, **other: Any) -> Any:
    body = plain.request(token, **other)
    return await front.ask("POST", "/v1/enrol/certificate", body, token="", expect=expect)


async def test_it_gets_a_certificate_that_names_it_and_is_the_one_in_its_record(front: Front) -> None:
    plain = Plain()
    answer = await come(front, plain, (await promise(front, labels={"env": "prod"}))["token"])
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    der = certificate.public_bytes(Encoding.DER)
    peer = read_peer(der)
    assert peer is not None
    assert (peer.instance_id, answer["labels"]) == (answer["instance_id"], {"env": "prod"})
    assert certificate.public_key() == plain.key.public_key()
    shown = await front.ask("GET", "/v1/instances/plain-1")
    assert (shown["delivery"], shown["certificate_sha256"]) == ("https", peer.thumbprint.hex())
    assert (shown["signing_key"], shown["sealing_key"]) == ("", "")
    assert (await front.ask("GET", "/v1/enrolments/plain-1"))["delivery"] == "https"


async def test_nothing_that_the_request_asks_for_is_in_the_certificate(front: Front) -> None:
    answer = await come(front, Plain(), (await promise(front))["token"])
    extensions = x509.load_pem_x509_certificate(answer["certificate"].encode()).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "instance/x" not in str(names)


async def test_an_answer_that_got_lost_is_given_again_with_the_same_certificate(front: Front) -> None:
    plain, token = Plain(), (await promise(front))["token"]
    first = await come(front, plain, token)
    commits = front.world.ledger.seq
    assert await come(front, plain, token) == first
    assert front.world.ledger.seq == commits
    await come(front, Plain(), token, expect=401)
    front.world.ledger.now = NOON + timedelta(hours=1)
    await come(front, plain, token, expect=401)


@pytest.mark.parametrize("member", ["delivery", "profile", "labels", "allowed_servers", "instance_id"])
async def test_a_request_says_nothing_of_what_an_admin_says(front: Front, member: str) -> None:
    token = (await promise(front))["token"]
    await come(front, Plain(), token, expect=400, **{member: "sealed"})
    assert (await front.ask("GET", "/v1/enrolments/plain-1"))["state"] == "open"


async def test_a_token_for_one_profile_is_not_good_for_the_other_and_not_used_up(front: Front) -> None:
    sealed = (await promise(front, "gateway-1", "sealed"))["token"]
    plain = (await promise(front))["token"]
    problem = await come(front, Plain("gateway-1"), sealed, expect=400)
    assert "profile sealed" in problem["detail"]
    problem = await enrol(front, Gateway("plain-1"), plain, expect=400)
    assert "profile https" in problem["detail"]
    await come(front, Plain(), plain)
    await enrol(front, Gateway(), sealed)


async def test_the_profile_is_sealed_unless_an_admin_says_otherwise(front: Front) -> None:
    promised = await front.create("enrolments", name="gateway-1")
    assert promised["entity"]["delivery"] == "sealed"
    await enrol(front, Gateway(), promised["token"])
    (record,) = [one for one in front.world.living() if isinstance(one, InstanceRecord)]
    assert (record.delivery, record.certificate) == ("sealed", "")


async def test_a_key_belongs_to_one_instance(front: Front) -> None:
    plain = Plain()
    await come(front, plain, (await promise(front))["token"])
    second = (await promise(front, "plain-2"))["token"]
    assert "Another instance has that key" in (await come(front, plain, second, expect=409, name="plain-2"))["detail"]


async def test_a_bad_token_is_refused_like_every_other(front: Front) -> None:
    reply = await front.send("POST", "/v1/enrol/certificate", Plain().request("kfe_" + "x" * 43), token="")
    sealed = await front.send("POST", "/v1/enrol", Gateway().request("kfe_" + "x" * 43), token="")
    assert (reply.status, reply.body) == (sealed.status, sealed.body) == (401, reply.body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"token": "x"}'])
async def test_rubbish_is_refused(front: Front, body: bytes) -> None:
    assert (await front.send("POST", "/v1/enrol/certificate", body, token="")).status == 400


async def test_where_there_is_no_authority_nobody_is_promised_that_profile_or_let_in(desk: Desk) -> None:
    object.__setattr__(desk, "instance_ca", None)
    front = Front()
    body = {"name": "plain-1", "delivery": "https"}
    problem = await front.ask("POST", "/v1/enrolments", body, expect=400)
    assert "KEYFOB_POLICY_INSTANCE_CA_FILE" in problem["detail"]
    assert (await front.send("POST", "/v1/enrol/certificate", Plain().request("x"), token="")).status == 404


async def test_an_unknown_profile_is_refused(front: Front) -> None:
    assert (await front.send("POST", "/v1/enrolments", {"name": "x", "delivery": "plain"})).status == 400
