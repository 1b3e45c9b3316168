"""From settings to clients: what can't work ends a start with one sentence that names the setting."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from shared import wiring
from shared.bus.connection import TopicsUnsuitable
from shared.config import AdminSettings, CommonSettings, Misconfigured, Mode
from shared.crypto.signing import SigningKey
from shared.errors import TokenInvalid, Unavailable
from shared.wiring import admin_guard, kafka_settings, nobody_guard, pinned_authority, topics_ready, until_done
from tests.unit.identity.issuers import Issuer

CANARY = "hunter2-canary"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(CANARY)
    path.chmod(0o600)
    return path


class TestKafka:
    def test_settings_become_a_client(self, password: Path) -> None:
        common = CommonSettings(
            kafka_bootstrap="b1:9092,b2:9092",
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_username="sync",
            kafka_sasl_password_file=password,
            kafka_member="sync-0",
        )
        kafka = kafka_settings(common, client_id="keyfob-sync")
        assert (kafka.bootstrap, kafka.client_id, kafka.member) == ("b1:9092,b2:9092", "keyfob-sync", "sync-0")
        assert kafka.sasl_password is not None
        assert kafka.sasl_password.get_secret_value() == password.read_text()
        assert CANARY not in repr(kafka)

    def test_nothing_said_is_a_broker_without_a_password(self) -> None:
        kafka = kafka_settings(CommonSettings(), client_id="x")
        assert (kafka.security_protocol, kafka.sasl_username, kafka.sasl_password, kafka.member) == (
            "PLAINTEXT", None, None, None,
        )  # fmt: skip

    @pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
    @pytest.mark.parametrize("brokers", ["broker.example:9092", "127.0.0.1:9092,10.0.0.7:9092", "[2001:db8::1]:9092"])
    def test_production_speaks_to_other_machines_only_with_tls(
        self, password: Path, protocol: str, brokers: str
    ) -> None:
        said = {
            "kafka_bootstrap": brokers,
            "kafka_security_protocol": protocol,
            "kafka_sasl_username": "sync",
            "kafka_sasl_password_file": password,
        }
        with pytest.raises(Misconfigured, match="KEYFOB_KAFKA_SECURITY_PROTOCOL must be SSL or SASL_SSL"):
            kafka_settings(CommonSettings.model_validate(said | {"mode": Mode.PRODUCTION}), client_id="x")
        assert kafka_settings(CommonSettings.model_validate(said | {"mode": Mode.DEVELOPMENT}), client_id="x")

    @pytest.mark.parametrize("brokers", ["localhost", "localhost:9092", "127.0.0.1:9092, [::1]:9093"])
    def test_on_this_machine_it_may_do_without(self, brokers: str) -> None:
        common = CommonSettings(kafka_bootstrap=brokers, mode=Mode.PRODUCTION)
        assert kafka_settings(common, client_id="x").bootstrap == brokers

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"kafka_security_protocol": "sasl_ssl"}, "KEYFOB_KAFKA_SECURITY_PROTOCOL"),
            ({"kafka_security_protocol": "TLS"}, "KEYFOB_KAFKA_SECURITY_PROTOCOL"),
            ({"kafka_sasl_mechanism": "GSSAPI"}, "KEYFOB_KAFKA_SASL_MECHANISM"),
        ],
    )
    def test_a_word_that_is_none_of_the_choices_is_answered_by_the_choices(
        self, wrong: dict[str, str], named: str
    ) -> None:
        with pytest.raises(Misconfigured, match=rf"{named} .*(SASL_SSL|SCRAM-SHA-512)"):
            kafka_settings(CommonSettings.model_validate(wrong), client_id="x")

    @pytest.mark.parametrize("said", [{}, {"kafka_sasl_username": "sync"}, {"kafka_sasl_password_file": "password"}])
    def test_sasl_needs_a_name_and_a_password(self, password: Path, said: dict[str, str]) -> None:
        more = said | ({"kafka_sasl_password_file": password} if "kafka_sasl_password_file" in said else {})
        settings = CommonSettings.model_validate({"kafka_security_protocol": "SASL_PLAINTEXT", **more})
        with pytest.raises(Misconfigured, match="KEYFOB_KAFKA_SASL_USERNAME and KEYFOB_KAFKA_SASL_PASSWORD_FILE"):
            kafka_settings(settings, client_id="x")

    def test_certificates_that_are_not_there_are_named(self, tmp_path: Path) -> None:
        absent = tmp_path / "ca.pem"
        with pytest.raises(Misconfigured, match=str(absent)):
            kafka_settings(CommonSettings(kafka_security_protocol="SSL", kafka_ca_file=absent), client_id="x")

    def test_certificates_that_are_none_are_named(self, password: Path) -> None:
        with pytest.raises(Misconfigured, match=str(password)):
            kafka_settings(CommonSettings(kafka_security_protocol="SSL", kafka_ca_file=password), client_id="x")

    def test_a_password_that_others_may_read_ends_the_start(self, password: Path) -> None:
        password.chmod(0o644)
        with pytest.raises(Misconfigured, match="chmod 600"):
            kafka_settings(CommonSettings(kafka_sasl_password_file=password), client_id="x")


class TestAuthority:
    def test_a_pinned_key_is_the_only_one_that_counts(self) -> None:
        key = SigningKey.generate()
        authority = pinned_authority(key.verify_key.to_base64(), setting="KEYFOB_POLICY_KEY")
        assert set(authority._keys) == {key.key_id}

    @pytest.mark.parametrize("text", ["", "x", "A" * 42, "A" * 44, "ä" * 43, "A" * 42 + "="])
    def test_what_is_no_key_names_the_setting_and_not_the_text(self, text: str) -> None:
        with pytest.raises(Misconfigured) as refused:
            pinned_authority(text, setting="KEYFOB_POLICY_KEY")
        assert "KEYFOB_POLICY_KEY" in str(refused.value)
        assert not text or text not in str(refused.value)


class TestAdministrators:
    async def test_without_an_issuer_nobody_is_let_in(self) -> None:
        async with aiohttp.ClientSession() as session:
            guard = admin_guard(AdminSettings(), session, mode=Mode.PRODUCTION)
            with pytest.raises(TokenInvalid):
                await guard.verifier.verify(Issuer().token())

    async def test_a_guard_for_nobody_lets_nobody_in(self) -> None:
        with pytest.raises(TokenInvalid):
            await nobody_guard().verifier.verify(Issuer().token())

    @pytest.mark.parametrize(
        ("jwks_uri", "mode", "works"),
        [
            ("https://idp.example/jwks", Mode.PRODUCTION, True),
            ("http://idp.example/jwks", Mode.DEVELOPMENT, True),
            ("http://idp.example/jwks", Mode.PRODUCTION, False),
            ("", Mode.PRODUCTION, False),
            ("", Mode.DEVELOPMENT, False),
            ("idp.example/jwks", Mode.DEVELOPMENT, False),
        ],
    )
    async def test_an_address_that_keys_will_never_be_fetched_from_ends_the_start(
        self, jwks_uri: str, mode: Mode, *, works: bool
    ) -> None:
        entry = AdminSettings(issuer="https://idp.example", jwks_uri=jwks_uri)
        async with aiohttp.ClientSession() as session:
            if works:
                assert admin_guard(entry, session, mode=mode)
                return
            with pytest.raises(Misconfigured, match="KEYFOB_ADMIN_JWKS_URI"):
                admin_guard(entry, session, mode=mode)


class TestStarting:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wiring, "RETRY_AFTER_S", 0)

    @pytest.mark.parametrize("trouble", [Unavailable("away"), ConnectionRefusedError(), TopicsUnsuitable("x: missing")])
    async def test_a_start_waits_for_what_is_away_and_says_for_what(self, trouble: Exception) -> None:
        troubles, told = [trouble, trouble], []

        async def work() -> None:
            if troubles:
                raise troubles.pop()

        with capture_logs() as logs:
            await until_done(work, what="topics", tell=told.append)
        assert len(told) == len(logs) == 2
        assert told[0].startswith("topics: ")

    async def test_a_mistake_of_ours_is_not_waited_out(self) -> None:
        async def work() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await until_done(work, what="topics", tell=lambda _: None)

    async def test_what_others_said_is_cut_before_it_is_told(self) -> None:
        troubles, told = [OSError("x\n" * 5000)], []

        async def work() -> None:
            if troubles:
                raise troubles.pop()

        with capture_logs():
            await until_done(work, what="database", tell=told.append)
        assert "\n" not in told[0]
        assert len(told[0]) < 300

    async def test_our_topics_are_made_before_those_of_others_are_awaited(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []

        async def ensure(*_: object, replication: int) -> None:
            steps.append(f"make with {replication}")

        async def present(*_: object) -> None:
            steps.append("look")
            if len(steps) < 4:
                raise TopicsUnsuitable("policy: missing")

        monkeypatch.setattr(wiring, "ensure_topics", ensure)
        monkeypatch.setattr(wiring, "topics_present", present)
        told: list[str] = []
        with capture_logs():
            await topics_ready(
                kafka_settings(CommonSettings(), client_id="x"), made=(), read=(), replication=3, tell=told.append
            )
        assert steps == ["make with 3", "look", "look", "look"]
        assert {said.partition(":")[0] for said in told} == {"topics of others"}
