"""AWS KMS as moto plays it, asked by boto3's own client over HTTP: it keeps keys as the one in memory does.

moto is somebody else's understanding of KMS and IAM, in an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import boto3
import pytest
import pytest_asyncio

from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.processes import Process, plain_environment
from services.dev.platform.supervision import until_ready
from services.dev.platform.tools import tool_environment
from shared.custody.keks import Kek
from shared.custody.providers.kms import KmsProvider, kms_client
from shared.custody.providers.port import KeyProviderRefused
from tests.unit.custody.provider_contract import Keepers, WrappingProviderContract

REGION = "eu-central-1"


FURNISHING = 7
"""Calls before IAM is asked: those of `_furnished`."""
MAY = {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt", "kms:RotateKeyOnDemand"], "Resource": "*"}


@dataclass(frozen=True, slots=True)
class Place:
    """A KMS with two keys; who `allowed` may use them, who `denied` nothing. Both as (id, secret)."""

    arns: tuple[str, ...]
    allowed: tuple[str, str] = field(repr=False)
    denied: tuple[str, str] = field(repr=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    program, port = await tool_environment("moto") / "moto_server", free_port()
    url, log = f"http://{LOOPBACK}:{port}", tmp_path_factory.mktemp("moto") / "log"
    command = (str(program), "-H", LOOPBACK, "-p", str(port))
    environment = plain_environment(INITIAL_NO_AUTH_ACTION_COUNT=str(FURNISHING))
    process = Process("moto", command, env=environment, log=log)
    process.start()
    try:
        await until_ready(process, f"{url}/moto-api/", within_s=30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", url)
            patch.setenv("AWS_CONFIG_FILE", "/dev/null")
            yield await asyncio.to_thread(_furnished)
    finally:
        await process.stop()


def _furnished() -> Place:
    nobody = boto3.Session("nobody", "nothing", region_name=REGION)
    iam, kms = nobody.client("iam"), nobody.client("kms")
    arns = tuple(kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    users = [iam.create_user(UserName=name)["User"]["UserName"] for name in ("allowed", "denied")]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [MAY]})
    iam.put_user_policy(UserName="allowed", PolicyName="keys", PolicyDocument=policy)
    keys = [iam.create_access_key(UserName=user)["AccessKey"] for user in users]
    allowed, denied = ((key["AccessKeyId"], key["SecretAccessKey"]) for key in keys)
    return Place(arns, allowed, denied)


@pytest.fixture
def provider(place: Place, monkeypatch: pytest.MonkeyPatch) -> KmsProvider:
    """With the credential of who may use the keys, found where boto3 looks for one."""
    return provided(place.arns[0], place.allowed, monkeypatch)


def provided(arn: str, credential: tuple[str, str], patch: pytest.MonkeyPatch) -> KmsProvider:
    patch.setenv("AWS_ACCESS_KEY_ID", credential[0])
    patch.setenv("AWS_SECRET_ACCESS_KEY", credential[1])
    patch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps the first credential that it found
    return KmsProvider("sync", arn, kms_client(REGION))


class TestMoto(WrappingProviderContract):
    @pytest.fixture
    def keepers(self, provider: KmsProvider, place: Place, monkeypatch: pytest.MonkeyPatch) -> Keepers:
        denied = provided(place.arns[0], place.denied, monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:{free_port()}")
        return Keepers(
            provider,
            other_service=replace(provider, service="audit"),
            other_key=replace(provider, key_arn=place.arns[1]),
            denied=denied,
            away=provided(place.arns[0], place.allowed, monkeypatch),
        )

    @pytest.fixture
    def provider(self, provider: KmsProvider) -> KmsProvider:
        return provider


async def test_a_key_that_is_not_there_is_refused(provider: KmsProvider) -> None:
    missing = provider.key_arn.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    with pytest.raises(KeyProviderRefused):
        await replace(provider, key_arn=missing).keep(Kek.generate())


async def test_a_rotated_kms_key_still_opens(provider: KmsProvider) -> None:
    kek = Kek.generate()
    line = await provider.keep(kek)
    await asyncio.to_thread(boto3.client("kms", region_name=REGION).rotate_key_on_demand, KeyId=provider.key_arn)
    assert (await provider.open(line)).matches(kek)
