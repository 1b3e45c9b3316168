"""The installation's key wrapped by AWS KMS, with a symmetric key.

API: https://docs.aws.amazon.com/kms/latest/APIReference/, `Encrypt` and `Decrypt`, both with the key's ARN, so that a
blob of somebody else's key does not open, and with an encryption context that is bound to the ciphertext and may stand
in key policies (`kms:EncryptionContext:keyfob-service`) and in CloudTrail:

    {"keyfob": "kek/1", "keyfob-service": <service>, "keyfob-kek": <KEK id>}

boto3 finds its own credentials (a role, best) and its own way to AWS: the guard of `shared.egress` is not on it, and
nothing but the region and the ARN of the settings decides where it goes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from shared.custody.keks import Kek
from shared.custody.providers.port import KeyProviderRefused, KeyProviderUnavailable, ProviderKind, WrappedKek
from shared.errors import cut

CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 5.0
TRIES: Final = 3

_PASSING: Final = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestTimeout",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)
"""Error codes by which KMS asks to be asked again; under all others somebody has to mend something first."""


class KmsClient(Protocol):
    """The two calls of boto3's KMS client that are used."""

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803 - AWS's names
        """`Encrypt`; the answer has `CiphertextBlob`."""
        ...

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803 - AWS's names
        """`Decrypt`; the answer has `Plaintext`."""
        ...


@dataclass(frozen=True, slots=True)
class KmsProvider:
    """`KekProvider` for one symmetric KMS key, named by its ARN. boto3 blocks, so it is asked in a thread."""

    service: str
    key_arn: str
    client: KmsClient

    async def keep(self, kek: Kek) -> str:
        """See the port."""
        with kek.raw() as raw, raw.reveal() as view:
            plaintext = bytes(view)
        blob = await self._ask(self.client.encrypt, "CiphertextBlob", kek.key_id, Plaintext=plaintext)
        return WrappedKek(ProviderKind.AWS_KMS, kek.key_id, base64.b64encode(blob).decode()).to_line()

    async def open(self, line: str) -> Kek:
        """See the port."""
        wrapped = WrappedKek.from_line(line, ProviderKind.AWS_KMS)
        try:
            blob = binascii.a2b_base64(wrapped.ciphertext, strict_mode=True)
        except ValueError:
            raise KeyProviderRefused("This is not the line of a key that is kept by aws-kms.") from None
        plaintext = await self._ask(self.client.decrypt, "Plaintext", wrapped.key_id, CiphertextBlob=blob)
        return wrapped.restored(bytearray(plaintext))

    async def _ask(self, call: Callable[..., Mapping[str, Any]], wanted: str, key_id: str, **what: bytes) -> bytes:
        context = {"keyfob": "kek/1", "keyfob-service": self.service, "keyfob-kek": key_id}
        try:
            answer = await asyncio.to_thread(call, KeyId=self.key_arn, EncryptionContext=context, **what)
        except ClientError as problem:
            raise _failure(str(problem.response.get("Error", {}).get("Code", ""))) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise KeyProviderRefused("There are no AWS credentials for this process: give it a role.") from None
        except ParamValidationError:
            raise KeyProviderRefused(
                "AWS KMS can't be asked this: the key's ARN or its file is not well-formed."
            ) from None
        except BotoCoreError as problem:
            # Its text may quote an address or a file: the type says enough.
            raise KeyProviderUnavailable(f"AWS KMS gave no answer ({type(problem).__name__}).") from None
        found = answer.get(wanted)
        if not isinstance(found, bytes) or not found:
            raise KeyProviderUnavailable("What answered is not AWS KMS.")
        return found


def _failure(code: str) -> KeyProviderRefused | KeyProviderUnavailable:
    if code in _PASSING:
        return KeyProviderUnavailable(f"AWS KMS asks to be asked again ({code}).")
    return KeyProviderRefused(
        f"AWS KMS refused ({cut(code, 60)}): the key's ARN, its state and policy, and our role decide, and the file "
        "must be the one that was made for this service."
    )


def kms_client(region: str) -> KmsClient:
    """A client for one region, bounded in time; `ValueError` for a region that boto3 can't spell an address with."""
    # Here, since no other provider needs them, and both together take longer to load than a service to start.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # type: ignore[import-untyped] # noqa: PLC0415

    bounds = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
    )
    return cast("KmsClient", boto3.client("kms", region_name=region, config=bounds))
