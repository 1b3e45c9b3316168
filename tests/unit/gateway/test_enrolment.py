"""Becoming an instance: once, with keys that nobody else has seen."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.gateway.client.enrolment import take_up
from services.gateway.client.identity import load_identity
from services.gateway.client.posting import Posted, check_url
from shared.config import Misconfigured, Mode
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import VerifyKey
from shared.delivery.enrolment import verify_certificate
from shared.delivery.messages import EnrolAnswer, EnrolRequest, parse_request
from shared.errors import Unavailable
from tests.fakes.installation import Installation

POLICY = "http://policy.test"


class Policy:
    """Enrols whoever brings the token, once."""

    def __init__(self) -> None:
        self.enrolled: list[EnrolRequest] = []
        self.answer: EnrolAnswer = Installation().identity.enrolled
        self.status = 200

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        assert url == f"{POLICY}/v1/enrol"
        request = parse_request(body, EnrolRequest)
        if self.status != 200:
            return Posted(self.status, {}, b"{}")
        if request.token.get_secret_value() != "single-use" or self.enrolled:
            return Posted(404, {}, b"{}")
        self.enrolled.append(request)
        return Posted(200, {}, self.answer.model_dump_json().encode())


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("single-use\n")
    path.chmod(0o600)
    return path


async def test_it_enrols_once_and_is_the_same_instance_after_a_restart(tmp_path: Path, token_file: Path) -> None:
    policy, directory = Policy(), tmp_path / "identity"
    first = await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=policy)
    again = await take_up(directory, policy_url="", token_file=None, name="one", post=policy)
    assert first.instance_id == again.instance_id
    assert first.keys.signing.verify_key == again.keys.signing.verify_key
    assert len(policy.enrolled) == 1
    asked = policy.enrolled[0]
    verify_certificate(
        asked.sealing_key_signature,
        signing_key=VerifyKey.from_base64(asked.signing_key),
        sealing_key=SealingPublicKey.from_base64(asked.sealing_key),
    )
    assert asked.signing_key == first.keys.signing.verify_key.to_base64()


async def test_what_it_keeps_is_for_its_owner_only(tmp_path: Path, token_file: Path) -> None:
    directory = tmp_path / "identity"
    await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=Policy())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


async def test_an_enrolment_that_was_cut_off_is_repeated_with_the_same_keys(tmp_path: Path, token_file: Path) -> None:
    policy, directory = Policy(), tmp_path / "identity"
    policy.status = 503
    with pytest.raises(Unavailable):
        await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=policy)
    keys = (directory / "signing.pem").read_bytes()
    assert load_identity(directory) is None
    policy.status = 200
    await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=policy)
    assert (directory / "signing.pem").read_bytes() == keys


async def test_a_token_that_is_used_up_stops_with_a_sentence(tmp_path: Path, token_file: Path) -> None:
    policy = Policy()
    await take_up(tmp_path / "one", policy_url=POLICY, token_file=token_file, name="one", post=policy)
    with pytest.raises(Misconfigured) as refused:
        await take_up(tmp_path / "two", policy_url=POLICY, token_file=token_file, name="two", post=policy)
    assert "single-use" not in str(refused.value)


def open_to_others(path: Path) -> None:
    path.chmod(0o644)


async def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path, token_file: Path) -> None:
    open_to_others(token_file)
    with pytest.raises(Misconfigured):
        await take_up(tmp_path / "one", policy_url=POLICY, token_file=token_file, name="one", post=Policy())


async def test_without_an_identity_and_without_a_token_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        await take_up(tmp_path / "one", policy_url="", token_file=None, name="one", post=Policy())


@pytest.mark.parametrize("damage", ["", "{}", "nonsense"])
async def test_a_damaged_identity_is_not_replaced_silently(tmp_path: Path, token_file: Path, damage: str) -> None:
    directory = tmp_path / "identity"
    await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=Policy())
    (directory / "identity.json").write_text(damage)
    with pytest.raises(Misconfigured):
        load_identity(directory)


async def test_a_pinned_key_that_is_none_shows_at_start(tmp_path: Path, token_file: Path) -> None:
    directory = tmp_path / "identity"
    await take_up(directory, policy_url=POLICY, token_file=token_file, name="one", post=Policy())
    path = directory / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "policy_key": "A" * 42 + "B"}))
    with pytest.raises(Misconfigured):
        load_identity(directory)


@pytest.mark.parametrize("url", ["ftp://x", "resolver", "http://resolver.example", "https://x/?a=1", "https://x/#a"])
def test_addresses_that_would_carry_tokens_in_the_clear_are_refused(url: str) -> None:
    with pytest.raises(Misconfigured):
        check_url(url, Mode.PRODUCTION)


@pytest.mark.parametrize("url", ["https://gateway:password@resolver.example", "https://password@resolver.example"])
def test_an_address_with_a_password_in_it_is_refused_and_not_quoted(url: str) -> None:
    """Addresses stand in log lines and in what agents are told."""
    with pytest.raises(Misconfigured) as refused:
        check_url(url, Mode.DEVELOPMENT)
    assert "password@" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://[::1", "https://x:99999", "https://x:port", "https://", "", "https:///x"])
def test_what_is_no_address_is_a_sentence_at_start(url: str) -> None:
    with pytest.raises(Misconfigured):
        check_url(url, Mode.DEVELOPMENT)


@pytest.mark.parametrize("url", ["https://resolver.example/", "http://127.0.0.1:8080", "http://localhost:1"])
def test_https_and_loopback_are_addresses(url: str) -> None:
    assert check_url(url, Mode.PRODUCTION) == url.rstrip("/")
