"""One trusted issuer's public keys: fetched from its configured address, never from one in a token.

An unknown key id asks for the keys again, at most once in `SHORTEST_RENEWAL_S` however many tokens name
made-up ids, and callers that ask at the same time share one fetch. A set is renewed in the background once it
is older than `RENEW_AFTER_S`, so that a key which the issuer withdrew stops counting, and is not used at all
beyond `TRUSTED_FOR_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from shared.crypto.framing import from_base64url
from shared.errors import Unavailable

_log = structlog.get_logger(__name__)

FetchJwks: TypeAlias = Callable[[str], Awaitable[Mapping[str, Any]]]
"""The port: a JWKS document by its address. `Unavailable` when it can't be had; nothing else is expected."""

SHORTEST_RENEWAL_S: Final = 30.0
"""Between two successful fetches for one issuer: what a flood of unknown key ids can cost it."""
RETRY_AFTER_FAILURE_S: Final = 5.0
"""After a failed fetch; shorter, since until then nobody with a new key can be served."""
RENEW_AFTER_S: Final = 300.0
"""A withdrawn key counts at most this long (while the issuer answers)."""
TRUSTED_FOR_S: Final = 3600.0
"""Without an answer for an hour the keys are not used: an issuer that is away issues no tokens either, and
access tokens seldom live longer."""
MOST_KEYS: Final = 100
SMALLEST_RSA_BITS: Final = 2048
"""NIST SP 800-131A."""


@dataclass(slots=True)
class IssuerKeys:
    """One issuer's keys by key id. `generation` is a new object whenever the set of keys is another one."""

    uri: str
    fetch: FetchJwks
    clock: Callable[[], float] = time.monotonic
    generation: object = field(default_factory=object)
    _document: Mapping[str, Any] | None = None
    _keys: Mapping[str, Key] = field(default_factory=dict)
    _fetched_at: float = float("-inf")
    _asked_at: float = float("-inf")
    _failing: bool = False
    _fetching: asyncio.Task[None] | None = None

    @property
    def trusted(self) -> bool:
        """Whether the keys at hand are young enough to be used."""
        return self.clock() - self._fetched_at < TRUSTED_FOR_S

    async def find(self, key_id: str) -> Key | None:
        """Find the key, or None if the issuer lacks it; `Unavailable` if the issuer can't be asked now."""
        if self.trusted and key_id in self._keys:
            self.renew_if_old()
            return self._keys[key_id]
        await self._renew()
        return self._keys.get(key_id)

    def renew_if_old(self) -> None:
        """Start a renewal in the background when it is time; the answer to the present question doesn't wait."""
        if self.clock() - self._fetched_at > RENEW_AFTER_S and self._may_ask():
            self._start()

    def _may_ask(self) -> bool:
        pause = RETRY_AFTER_FAILURE_S if self._failing else SHORTEST_RENEWAL_S
        return self.clock() - self._asked_at >= pause

    def _start(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _renew(self) -> None:
        """Join a fetch that is under way, or start one if the bound allows; `Unavailable` if the last failed."""
        if (self._fetching is not None and not self._fetching.done()) or self._may_ask():
            # A caller that gives up must not take the fetch away from the others.
            await asyncio.shield(self._start())
        if self._failing or not self.trusted:
            detail = "The identity provider's keys can't be fetched now."
            raise Unavailable(detail, retry_after_s=RETRY_AFTER_FAILURE_S)

    async def _fetch(self) -> None:
        # Failing until the answer is there: then even an error that nobody expected keeps to the bound.
        self._asked_at, self._failing = self.clock(), True
        try:
            document = await self.fetch(self.uri)
        except Unavailable as error:
            # Told here, since whoever asks with a token learns no more than that it can't be verified now.
            _log.warning("issuer-keys-not-fetched", uri=self.uri, reason=error.detail)
            return
        if document != self._document:
            self._document, self._keys, self.generation = document, usable_keys(document), object()
        self._fetched_at, self._failing = self.clock(), False


def usable_keys(document: Mapping[str, Any]) -> dict[str, Key]:
    """Pick the keys that may verify signatures, by id. Others spoil nothing (RFC 7517 §5)."""
    found: dict[str, Key] = {}
    for entry in document["keys"][:MOST_KEYS]:
        key_id = entry.get("kid") if isinstance(entry, dict) else None
        if isinstance(key_id, str) and key_id and (key := _usable(entry)) is not None:
            # The first of two with one id counts, so that a later one can't displace it.
            found.setdefault(key_id, key)
    return found


def _usable(entry: Mapping[str, Any]) -> Key | None:
    # Never a symmetric key: whoever can read the set could sign with it.
    if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        if entry["kty"] == "RSA" and len(from_base64url(entry["n"]).lstrip(b"\x00")) * 8 < SMALLEST_RSA_BITS:
            return None
        return JWKRegistry.import_key(dict(entry))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
