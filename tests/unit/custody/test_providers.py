"""The keepers of installation keys on what stands in for their places, and each one's own rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from shared.config import Misconfigured, Mode
from shared.crypto.framing import frame
from shared.custody.keks import Kek
from shared.custody.providers import PROVIDERS, ProviderKind, ProviderSettings, provider_for
from shared.custody.providers.file import FileProvider
from shared.custody.providers.kms import KmsClient, KmsProvider, kms_client
from shared.custody.providers.port import (
    KekProvider,
    KeyProviderRefused,
    KeyProviderUnavailable,
    WrappedKek,
    save_new_kept,
)
from shared.custody.providers.transit import TransitProvider
from shared.egress import Answer, Egress, Origin
from shared.errors import BadRequest
from tests.unit.custody.fake_kms import ARN, FakeKms
from tests.unit.custody.fake_transit import TOKEN, FakeTransit
from tests.unit.custody.provider_contract import Keepers, ProviderContract, WrappingProviderContract, written

ORIGIN = Origin("https", "vault.example", 8200)
OTHER_ARN = ARN[:-1] + "c"


class TestFile(ProviderContract):
    @pytest.fixture
    def provider(self) -> KekProvider:
        return FileProvider()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return hold(tmp_path / "token", f"{TOKEN}\n")


def hold(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def engine() -> FakeTransit:
    return FakeTransit("keyfob", "another")


@pytest.fixture
def transit(engine: FakeTransit, token_file: Path) -> TransitProvider:
    return TransitProvider("sync", ORIGIN, "keyfob", token_file, engine)


class TestTransit(WrappingProviderContract):
    @pytest.fixture
    def keepers(self, transit: TransitProvider, tmp_path: Path) -> Keepers:
        away = FakeTransit()
        away.away = True
        return Keepers(
            transit,
            other_service=replace(transit, service="audit"),
            other_key=replace(transit, key="another"),
            denied=replace(transit, token_file=hold(tmp_path / "wrong-token", "s.nothing")),
            away=replace(transit, egress=away),
        )


async def test_transit_is_asked_for_what_its_documentation_says(transit: TransitProvider, engine: FakeTransit) -> None:
    kek = Kek.generate()
    await replace(transit, mount="transit", key="keyfob").open(await transit.keep(kek))
    (kept, plain), (opened, sealed) = engine.asked
    assert (kept, opened) == ("POST /v1/transit/encrypt/keyfob", "POST /v1/transit/decrypt/keyfob")
    assert plain.keys() == {"plaintext", "associated_data"}
    assert sealed.keys() == {"ciphertext", "associated_data"}
    bound = frame(b"keyfob/kek-transit/1", b"sync", kek.key_id.encode())
    assert plain["associated_data"] == sealed["associated_data"] == _base64(bound)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_transit_refuses_has_to_be_mended(
    transit: TransitProvider, engine: FakeTransit, status: int
) -> None:
    line = await transit.keep(Kek.generate())
    engine.answer = Answer(status, {}, b'{"errors":["hunter2"]}')
    for attempt in (transit.open(line), transit.keep(Kek.generate())):
        with pytest.raises(KeyProviderRefused) as refused:
            await attempt
        assert "hunter2" not in str(refused.value)


NONSENSE = [b"", b"hunter2", b"[]", b'{"data":null}', b'{"data":{}}', b'{"data":{"plaintext":7,"ciphertext":7}}']
NO_TEXT = [
    b'{"data":{"plaintext":"hunter2!","ciphertext":"hunter2 hunter2"}}',
    b'{"data":{"plaintext":"\xc3\xa9","ciphertext":""}}',
]


@pytest.mark.parametrize("status", [204, 301, 429, 472, 473, 500, 502, 503])
async def test_what_may_pass_is_asked_again(transit: TransitProvider, engine: FakeTransit, status: int) -> None:
    line = await transit.keep(Kek.generate())
    engine.answer = Answer(status, {"Location": "http://169.254.169.254/"}, b"hunter2")
    with pytest.raises(KeyProviderUnavailable, match=str(status)) as unavailable:
        await transit.open(line)
    assert "hunter2" not in str(unavailable.value)


@pytest.mark.parametrize("body", [*NONSENSE, *NO_TEXT])
async def test_an_answer_that_is_none_is_neither_a_key_nor_kept(
    transit: TransitProvider, engine: FakeTransit, body: bytes
) -> None:
    line = await transit.keep(Kek.generate())
    engine.answer = Answer(200, {}, body)
    for attempt in (transit.open(line), transit.keep(Kek.generate())):
        with pytest.raises(KeyProviderUnavailable) as unavailable:
            await attempt
        assert "hunter2" not in str(unavailable.value)


@pytest.mark.parametrize("length", [0, 31, 32, 33])
async def test_another_key_than_the_file_names_is_not_taken(
    transit: TransitProvider, engine: FakeTransit, length: int
) -> None:
    line = await transit.keep(Kek.generate())
    engine.answer = Answer(200, {}, json.dumps({"data": {"plaintext": _base64(bytes(length))}}).encode())
    with pytest.raises(KeyProviderRefused, match="another key than the file names"):
        await transit.open(line)


async def test_a_token_file_is_read_at_every_use_and_has_to_be_private(
    transit: TransitProvider, token_file: Path
) -> None:
    hold(token_file, "s.revoked")
    with pytest.raises(KeyProviderRefused, match="token"):
        await transit.keep(Kek.generate())
    hold(token_file, TOKEN)
    await transit.keep(Kek.generate())
    hold(token_file, TOKEN, 0o644)
    with pytest.raises(KeyProviderRefused, match="chmod 600"):
        await transit.keep(Kek.generate())


@pytest.mark.parametrize("token", ["", "two\nlines", "schlüssel"])
async def test_what_is_no_token_never_gets_into_a_header(
    transit: TransitProvider, token_file: Path, token: str
) -> None:
    hold(token_file, token)
    with pytest.raises(KeyProviderRefused, match="holds no usable token"):
        await transit.keep(Kek.generate())


async def test_what_does_not_open_again_is_not_written(transit: TransitProvider, tmp_path: Path) -> None:
    class Forgetful(FileProvider):
        async def keep(self, kek: Kek) -> str:
            return Kek.generate().to_text()

    with pytest.raises(KeyProviderRefused, match="nothing was written"):
        await save_new_kept(tmp_path / "kek", Kek.generate(), Forgetful())
    assert not written(tmp_path / "kek")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """boto3's own client, with credentials that are nobody's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "an-example")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        made = kms_client("eu-central-1")
        # Waiting between tries is botocore's business, and not what is tested here.
        made.meta.events.unregister("needs-retry.kms", unique_id="retry-config-kms")  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def place() -> FakeKms:
    return FakeKms(ARN, OTHER_ARN)


@pytest.fixture
def kms(client: Any, place: FakeKms) -> Iterator[KmsProvider]:
    place.attach(client)
    yield KmsProvider("sync", ARN, client)
    place.detach(client)


class Failing:
    """A client whose every call ends in one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encrypt(self, **_: Any) -> dict[str, Any]:
        raise self.error

    decrypt = encrypt


def failing(error: Exception) -> KmsClient:
    return Failing(error)


class TestKms(WrappingProviderContract):
    @pytest.fixture
    def keepers(self, kms: KmsProvider) -> Keepers:
        denied = botocore.exceptions.ClientError({"Error": {"Code": "AccessDeniedException"}}, "Decrypt")
        away = botocore.exceptions.EndpointConnectionError(endpoint_url="https://hunter2")
        return Keepers(
            kms,
            other_service=replace(kms, service="audit"),
            other_key=replace(kms, key_arn=OTHER_ARN),
            denied=replace(kms, client=failing(denied)),
            away=replace(kms, client=failing(away)),
        )


async def test_kms_is_asked_by_arn_with_the_service_and_the_id_in_its_context(kms: KmsProvider, place: FakeKms) -> None:
    kek = Kek.generate()
    await kms.open(await kms.keep(kek))
    assert [operation for operation, _ in place.asked] == ["Encrypt", "Decrypt"]
    for _, document in place.asked:
        assert document["KeyId"] == ARN
        assert document["EncryptionContext"] == {
            "keyfob": "kek/1",
            "keyfob-service": "sync",
            "keyfob-kek": kek.key_id,
        }


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDeniedException", KeyProviderRefused),
        ("DisabledException", KeyProviderRefused),
        ("IncorrectKeyException", KeyProviderRefused),
        ("InvalidCiphertextException", KeyProviderRefused),
        ("KMSInvalidStateException", KeyProviderRefused),
        ("UnrecognizedClientException", KeyProviderRefused),
        ("SomethingNew", KeyProviderRefused),
        ("ThrottlingException", KeyProviderUnavailable),
        ("KMSInternalException", KeyProviderUnavailable),
        ("KeyUnavailableException", KeyProviderUnavailable),
        ("DependencyTimeoutException", KeyProviderUnavailable),
    ],
)
async def test_what_kms_answers_is_told_apart_by_its_code(
    kms: KmsProvider, place: FakeKms, code: str, error: type[Exception]
) -> None:
    line = await kms.keep(Kek.generate())
    place.error = code
    with pytest.raises(error, match=code) as failed:
        await kms.open(line)
    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_process_without_aws_credentials_is_told_so(kms: KmsProvider) -> None:
    with pytest.raises(KeyProviderRefused, match="no AWS credentials"):
        await replace(kms, client=failing(botocore.exceptions.NoCredentialsError())).keep(Kek.generate())


async def test_an_arn_or_a_line_that_kms_could_not_even_be_asked_about_has_to_be_mended(kms: KmsProvider) -> None:
    with pytest.raises(KeyProviderRefused, match="not well-formed"):
        await replace(kms, key_arn="").keep(Kek.generate())
    emptied = WrappedKek(ProviderKind.AWS_KMS, Kek.generate().key_id, "")
    with pytest.raises(KeyProviderRefused):
        await kms.open(emptied.to_line())


class Blank:
    """A client whose every answer lacks what matters."""

    def encrypt(self, **_: Any) -> dict[str, Any]:
        return {"CiphertextBlob": b""}

    def decrypt(self, **_: Any) -> dict[str, Any]:
        return {"KeyId": ARN}


async def test_an_answer_of_kms_without_a_key_is_none(kms: KmsProvider) -> None:
    line = await kms.keep(Kek.generate())
    for attempt in (replace(kms, client=Blank()).open(line), replace(kms, client=Blank()).keep(Kek.generate())):
        with pytest.raises(KeyProviderUnavailable, match="not AWS KMS"):
            await attempt


async def test_a_line_of_another_provider_is_called_so(kms: KmsProvider, transit: TransitProvider) -> None:
    with pytest.raises(KeyProviderRefused, match="another provider than transit"):
        await transit.open(await kms.keep(Kek.generate()))
    with pytest.raises(KeyProviderRefused, match="another provider than aws-kms"):
        await kms.open(await transit.keep(Kek.generate()))


def test_a_wrapped_line_has_one_spelling() -> None:
    wrapped = WrappedKek(ProviderKind.TRANSIT, Kek.generate().key_id, "vault:v1:AAAA")
    line = wrapped.to_line()
    assert WrappedKek.from_line(line, ProviderKind.TRANSIT) == wrapped
    for other in (line + " ", " " + line, line.replace(" ", "  ", 1), line.replace(wrapped.key_id, "A" * 16), line[1:]):
        with pytest.raises(KeyProviderRefused):
            WrappedKek.from_line(other, ProviderKind.TRANSIT)


def settings(**given: Any) -> ProviderSettings:
    return ProviderSettings(service="sync", **given)


@pytest.fixture
def egress() -> Egress:
    return Egress(mode=Mode.PRODUCTION)


def test_each_kind_of_place_has_its_provider(egress: Egress, token_file: Path) -> None:
    assert PROVIDERS.keys() == set(ProviderKind)
    assert isinstance(provider_for(settings(), egress), FileProvider)
    asked = settings(
        kind=ProviderKind.TRANSIT, origin="https://vault.example:8200", key="keyfob", token_file=token_file
    )
    assert provider_for(asked, egress) == TransitProvider("sync", ORIGIN, "keyfob", token_file, egress)
    made = provider_for(settings(kind=ProviderKind.AWS_KMS, key=ARN, region="eu-central-1"), egress)
    assert isinstance(made, KmsProvider)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": ProviderKind.TRANSIT, "origin": "https://vault.example"},
        {"kind": ProviderKind.TRANSIT, "origin": "http://vault.example", "key": "keyfob", "token_file": Path("t")},
        {
            "kind": ProviderKind.TRANSIT,
            "origin": "https://vault.example",
            "key": "keyfob",
            "mount": "",
            "token_file": Path("t"),
        },
        {"kind": ProviderKind.AWS_KMS, "key": "alias/keyfob", "region": "eu-central-1"},
        {"kind": ProviderKind.AWS_KMS, "key": ARN},
    ],
    ids=["no key", "plain http", "no mount", "no ARN", "no region"],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_asked(given: dict[str, Any], egress: Egress) -> None:
    with pytest.raises((Misconfigured, BadRequest)):
        provider_for(settings(**given), egress)
