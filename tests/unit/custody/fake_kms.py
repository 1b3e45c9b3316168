"""AWS KMS in memory, behind boto3's real client: requests are made, signed and answered, and never sent.

It knows `Encrypt` and `Decrypt` of symmetric keys, with the encryption context as associated data. The shapes and error
codes are those of https://docs.aws.amazon.com/kms/latest/APIReference/; `tests/contract` asks moto's KMS the same.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class FakeKms:
    """Hang it into a client with `attach`; set `error` to have every request answered with that code."""

    def __init__(self, *arns: str) -> None:
        self.keys = {arn: AESGCM(os.urandom(32)) for arn in arns}
        self.error = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def attach(self, client: Any) -> None:
        client.meta.events.register("before-send.kms.*", self.answer, unique_id="fake-kms")

    def detach(self, client: Any) -> None:
        client.meta.events.unregister("before-send.kms.*", unique_id="fake-kms")

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        operation = request.headers["X-Amz-Target"].decode().partition(".")[2]
        document = json.loads(request.body)
        self.asked.append((operation, document))
        if self.error:
            return _response(400, {"__type": self.error, "message": "hunter2: what AWS says"})
        cipher = self.keys.get(document["KeyId"])
        if cipher is None:
            return _response(400, {"__type": "NotFoundException", "message": "hunter2"})
        associated = json.dumps(document["EncryptionContext"], sort_keys=True).encode()
        return (_encrypt if operation == "Encrypt" else _decrypt)(cipher, document, associated)


def _encrypt(cipher: AESGCM, document: dict[str, Any], associated: bytes) -> AWSResponse:
    nonce = os.urandom(12)
    blob = nonce + cipher.encrypt(nonce, base64.b64decode(document["Plaintext"]), associated)
    return _response(200, {"CiphertextBlob": base64.b64encode(blob).decode(), "KeyId": document["KeyId"]})


def _decrypt(cipher: AESGCM, document: dict[str, Any], associated: bytes) -> AWSResponse:
    blob = base64.b64decode(document["CiphertextBlob"])
    try:
        plaintext = cipher.decrypt(blob[:12], blob[12:], associated)
    except (InvalidTag, ValueError):
        return _response(400, {"__type": "InvalidCiphertextException", "message": "hunter2"})
    return _response(200, {"Plaintext": base64.b64encode(plaintext).decode(), "KeyId": document["KeyId"]})


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def _response(status: int, document: dict[str, str]) -> AWSResponse:
    headers = {"x-amzn-RequestId": "fake", "Content-Type": "application/x-amz-json-1.1"}
    return AWSResponse("https://kms.invalid", status, headers, _Raw(json.dumps(document).encode()))
