"""Fetching an issuer's public keys (JWKS, RFC 7517 §5) over HTTP, bounded in size and time, redirects off.

The address comes from an admin's configuration, never from a token. The session is given, so that the guarded
way out decides which addresses may be reached at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from shared.errors import Unavailable, cut

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_DOCUMENT: Final = 256 * 1024
"""Bytes. Large providers publish about 20 keys, some 30 KiB."""
LONGEST_FETCH_S: Final = 5.0
"""Seconds from the connection to the last byte."""


@dataclass(frozen=True, slots=True)
class JwksFetcher:
    """An aiohttp adapter for the port `shared.identity.signers.FetchJwks`."""

    session: aiohttp.ClientSession
    allow_http: bool = False
    """Plain HTTP, for the development issuer on loopback only."""

    async def __call__(self, uri: str) -> Mapping[str, Any]:
        """Fetch the document at `uri`; `Unavailable` when it can't be had or isn't a JSON object with `keys`."""
        if not uri.startswith("https://") and not (self.allow_http and uri.startswith("http://")):
            detail = "The identity provider's keys must be fetched over https."
            raise Unavailable(detail, retry_after_s=60.0)
        try:
            body = await self._read(uri)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            detail = f"The identity provider's keys can't be fetched: {cut(type(problem).__name__)}."
            raise Unavailable(detail, retry_after_s=5.0) from problem
        return _parse(body)

    async def _read(self, uri: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=LONGEST_FETCH_S)
        wanted = {"Accept": "application/jwk-set+json, application/json"}
        # Redirects off: where the keys are is for the admin to say, not for whoever answers there.
        async with self.session.get(uri, timeout=timeout, allow_redirects=False, headers=wanted) as answer:
            if answer.status != HTTPStatus.OK:
                raise Unavailable(
                    f"The identity provider answered {answer.status} instead of its keys.", retry_after_s=5.0
                )
            # Counted while it comes: an announced length proves nothing.
            body = bytearray()
            async for chunk in answer.content.iter_chunked(16 * 1024):
                body += chunk
                if len(body) > LARGEST_DOCUMENT:
                    raise Unavailable("The identity provider's keys are too large.", retry_after_s=60.0)
            return bytes(body)


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise Unavailable("The identity provider's key document is not a JWKS.", retry_after_s=60.0)
    return document
