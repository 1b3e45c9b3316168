"""KV version 2 of Vault and OpenBao: `GET /v1/<mount>/data/<path>`, one kept-alive request a value.

Sources: the KV v2 HTTP API (developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2) and the status codes of
developer.hashicorp.com/vault/api-docs#http-status-codes: 404 for what is missing, deleted or destroyed, 403 for a
token that may not, 503 while sealed, 429, 472 and 473 from standbys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
from yarl import URL

from services.resolver.domain.facts import Reference, Source
from services.resolver.sources.credentials import Credentials
from services.resolver.sources.port import (
    AnswerUnusable,
    ReadDenied,
    ReadFailed,
    ReadValue,
    SourceSealed,
    SourceUnreachable,
    ValueMissing,
)
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.egress import Egress, NotReached, Origin
from shared.errors import BadRequest

_FAILURES: Final[Mapping[int, type[ReadFailed]]] = {
    HTTPStatus.NOT_FOUND: ValueMissing,
    HTTPStatus.FORBIDDEN: ReadDenied,
    HTTPStatus.UNAUTHORIZED: ReadDenied,
    HTTPStatus.SERVICE_UNAVAILABLE: SourceSealed,
}


@dataclass(frozen=True, slots=True)
class Kv2Reader:
    """`ValueReader` for KV v2 mounts. The egress bounds time and size."""

    egress: Egress
    credentials: Credentials
    mode: Mode

    async def read(self, source: Source, reference: Reference, *, version: str | None = None) -> ReadValue:
        """See `ValueReader`."""
        origin = _origin(source.place.origin, self.mode)
        headers = {"X-Vault-Token": self.credentials.token(source.name, origin)}
        url = _url(origin, source.place.mount, reference.path, version)
        try:
            answer = await self.egress.request("GET", url, headers=headers)
        # The egress' words may name addresses: the record and the caller get a kind, and no more.
        except NotReached:
            raise SourceUnreachable from None
        if answer.status != HTTPStatus.OK:
            raise _FAILURES.get(answer.status, SourceUnreachable)
        return _value(answer.body, reference.key)


@lru_cache(maxsize=256)
def _origin(text: str, mode: Mode) -> Origin:
    try:
        return Origin.parse(text, mode=mode)
    except BadRequest:
        raise ReadDenied from None


@lru_cache(maxsize=4096)
def _url(origin: Origin, mount: str, path: str, version: str | None) -> URL:
    """The address of one secret's data. A path that would leave the mount names nothing."""
    segments = [*mount.strip("/").split("/"), "data", *path.split("/")]
    # Quoting leaves dots as they are, so they would lead out of the mount all the same.
    if {".", "..", ""} & set(segments):
        raise ValueMissing
    query = "" if version is None else f"?version={quote(version, safe='')}"
    return URL(f"{origin}/v1/{'/'.join(quote(segment, safe='') for segment in segments)}{query}", encoded=True)


def _value(body: bytes, key: str | None) -> ReadValue:
    try:
        data = orjson.loads(body)["data"]
        # Through int: only a number may stand in records, whatever a server sends.
        version = str(int(data["metadata"]["version"]))
        entries = data["data"]
        if not isinstance(entries, dict):
            raise ValueMissing
        return ReadValue(SecretBytes(_bytes(_entry(entries, key))), version)
    # Not chained: a parser's message may quote what it read.
    except (ValueError, KeyError, TypeError):
        raise AnswerUnusable from None


def _entry(entries: dict[str, Any], key: str | None) -> object:
    # A reference to a whole secret means its only entry; which of several, nobody has said.
    if key is None:
        if len(entries) != 1:
            raise AnswerUnusable
        return next(iter(entries.values()))
    if key not in entries:
        raise ValueMissing
    return entries[key]


def _bytes(entry: object) -> bytes:
    """Text as UTF-8; anything else as the JSON that it was."""
    return entry.encode() if isinstance(entry, str) else orjson.dumps(entry)
