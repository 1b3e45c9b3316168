"""The transit engine in memory, behind the way out: what encrypt and decrypt with associated data answer."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from yarl import URL

from shared.config import Mode
from shared.egress import Answer, Egress, NotReached

TOKEN = "s.of-the-service"


class FakeTransit(Egress):
    """Answers as https://openbao.org/api-docs/secret/transit/ says, or as a test set it."""

    def __init__(self, *keys: str, mount: str = "transit") -> None:
        super().__init__(mode=Mode.DEVELOPMENT)
        self.keys = {key: AESGCM(os.urandom(32)) for key in keys}
        self.mount = mount
        self.away = False
        self.answer: Answer | None = None
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def request(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        if self.away:
            raise NotReached("no connection: nobody listens")
        path = urlsplit(str(url)).path
        document = json.loads(body or b"{}")
        self.asked.append((f"{method} {path}", document))
        if self.answer is not None:
            return self.answer
        if (headers or {}).get("X-Vault-Token") != TOKEN:
            return _errors(403)
        operation, _, key = path.removeprefix(f"/v1/{self.mount}/").partition("/")
        if key not in self.keys:
            return _errors(404 if operation == "decrypt" else 403)
        return self._encrypt(key, document) if operation == "encrypt" else self._decrypt(key, document)

    def _encrypt(self, key: str, document: Mapping[str, str]) -> Answer:
        nonce, associated = os.urandom(12), base64.b64decode(document["associated_data"])
        sealed = nonce + self.keys[key].encrypt(nonce, base64.b64decode(document["plaintext"]), associated)
        return _data(ciphertext=f"vault:v1:{base64.b64encode(sealed).decode()}")

    def _decrypt(self, key: str, document: Mapping[str, str]) -> Answer:
        try:
            sealed = base64.b64decode(document["ciphertext"].removeprefix("vault:v1:"), validate=True)
            associated = base64.b64decode(document["associated_data"])
            plaintext = self.keys[key].decrypt(sealed[:12], sealed[12:], associated)
        except (ValueError, InvalidTag):
            return _errors(400)
        return _data(plaintext=base64.b64encode(plaintext).decode())


def _data(**data: str) -> Answer:
    return Answer(200, {}, json.dumps({"data": data}).encode())


def _errors(status: int) -> Answer:
    return Answer(status, {}, json.dumps({"errors": ["hunter2: what a remote system says"]}).encode())
