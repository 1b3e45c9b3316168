"""The installation's key wrapped by the transit engine of OpenBao or Vault.

API: https://openbao.org/api-docs/secret/transit/, `encrypt` and `decrypt` with `associated_data`, which a key of the
type aes256-gcm96 (the default) binds:

    associated_data = frame("keyfob/kek-transit/1", service, KEK id)

The token needs `update` on `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`, and nothing more: with `create`,
`encrypt` would make a missing key instead of refusing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
from yarl import URL

from shared.config import Misconfigured, read_secret_file
from shared.crypto.framing import frame
from shared.custody.keks import Kek
from shared.custody.providers.port import KeyProviderRefused, KeyProviderUnavailable, ProviderKind, WrappedKek
from shared.egress import Egress, NotReached, Origin

DOMAIN: Final = b"keyfob/kek-transit/1"

_REFUSALS: Final[Mapping[int, str]] = {
    HTTPStatus.BAD_REQUEST: "transit refused it: it was changed, or wrapped by another key, a retired version of it, "
    "or for another service",
    HTTPStatus.UNAUTHORIZED: "transit does not know our token",
    HTTPStatus.FORBIDDEN: "our token may not use the transit key, or is no longer valid",
    HTTPStatus.NOT_FOUND: "there is no transit engine or key where the settings say",
}
"""Answers that stay the same until somebody mends something. All others may pass: sealed, a standby, too much to do."""


@dataclass(frozen=True, slots=True)
class TransitProvider:
    """`KekProvider` for one transit key. The token's file is read again at every use, so replacing it renews it."""

    service: str
    origin: Origin
    key: str
    token_file: Path
    egress: Egress
    mount: str = "transit"

    async def keep(self, kek: Kek) -> str:
        """See the port."""
        with kek.raw() as raw, raw.reveal() as view:
            plaintext = base64.b64encode(view).decode()
        ciphertext = await self._ask("encrypt", kek.key_id, "plaintext", plaintext, "ciphertext")
        return WrappedKek(ProviderKind.TRANSIT, kek.key_id, _one_word(ciphertext)).to_line()

    async def open(self, line: str) -> Kek:
        """See the port."""
        wrapped = WrappedKek.from_line(line, ProviderKind.TRANSIT)
        plaintext = await self._ask("decrypt", wrapped.key_id, "ciphertext", wrapped.ciphertext, "plaintext")
        try:
            raw = bytearray(binascii.a2b_base64(plaintext, strict_mode=True))
        except ValueError:
            raise KeyProviderUnavailable("What answered is no transit engine.") from None
        return wrapped.restored(raw)

    async def _ask(self, operation: str, key_id: str, name: str, text: str, wanted: str) -> str:
        bound = base64.b64encode(frame(DOMAIN, self.service.encode(), key_id.encode())).decode()
        where = f"{self.origin}/v1/{quote(self.mount)}/{operation}/{quote(self.key, safe='')}"
        try:
            answer = await self.egress.request(
                "POST",
                URL(where, encoded=True),
                headers={"X-Vault-Token": self._token(), "Content-Type": "application/json"},
                body=orjson.dumps({name: text, "associated_data": bound}),
            )
        except NotReached as problem:
            raise KeyProviderUnavailable(f"The transit engine at {self.origin} was not reached: {problem}.") from None
        if answer.status != HTTPStatus.OK:
            raise _failure(answer.status)
        return _member(answer.body, wanted)

    def _token(self) -> str:
        try:
            token = read_secret_file(self.token_file)
        except Misconfigured as problem:
            raise KeyProviderRefused(str(problem)) from None
        if not token or not token.isascii() or not token.isprintable():
            raise KeyProviderRefused(f"{self.token_file} holds no usable token.")
        return token


def _failure(status: int) -> KeyProviderRefused | KeyProviderUnavailable:
    if status in _REFUSALS:
        return KeyProviderRefused(f"The installation key was not to be had: {_REFUSALS[status]}.")
    return KeyProviderUnavailable(f"The transit engine answered with status {status}.")


def _member(body: bytes, name: str) -> str:
    try:
        found = orjson.loads(body)["data"][name]
    except (ValueError, TypeError, KeyError):
        found = None
    # Not quoted: whatever answered may have sent the key itself somewhere else in there.
    if not isinstance(found, str):
        raise KeyProviderUnavailable("What answered is no transit engine.")
    return found


def _one_word(ciphertext: str) -> str:
    if not ciphertext or not ciphertext.isascii() or not ciphertext.isprintable() or " " in ciphertext:
        raise KeyProviderUnavailable("What answered is no transit engine.")
    return ciphertext
