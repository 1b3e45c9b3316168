"""Subjects' access tokens: OIDC JWTs, verified offline against the issuers that an admin trusts.

Which keys count is decided by our configuration alone: `jku`, `x5u`, `jwk` and `x5c` in a token's header are
never looked at, and only asymmetric algorithms that the issuer's entry lists are accepted (RFC 8725 §3.1).
A token that verified is remembered by its SHA-256 until it expires, its issuer's entry changes, or its issuer
publishes another set of keys.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson
from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from shared.crypto.framing import from_base64url, sha256
from shared.errors import TokenInvalid
from shared.identity.signers import IssuerKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from joserfc.jwk import Key

    from shared.identity.signers import FetchJwks

LARGEST_TOKEN: Final = 8 * 1024
"""Bytes; what common proxies allow for a header."""
_SUBJECT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
"""One line of text, as answers and records carry it (`shared.delivery.messages.Name`)."""
JWS_PARTS: Final = 3
"""RFC 7515 §7.1."""
LEEWAY_S: Final = 30
"""Seconds that an issuer's clock may differ from ours."""
ALLOWED_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"}
)
"""Asymmetric ones only: with a symmetric one, every verifier could issue tokens."""


class TokenRefusal(StrEnum):
    """Why a token was refused: safe to log, to count and to show."""

    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    UNTRUSTED_ISSUER = "untrusted-issuer"
    ALGORITHM = "algorithm-not-allowed"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "bad-signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    AUDIENCE = "wrong-audience"
    CLAIMS = "claims-unusable"


class TokenRefused(TokenInvalid):
    """`TokenInvalid` with its reason as a value."""

    def __init__(self, reason: TokenRefusal) -> None:
        """Say the reason, and nothing of the token."""
        super().__init__(f"The access token is not valid: {reason}.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One identity provider's entry, as policy has it.

    `subject_claim` must be one that the provider never reassigns. `algorithms` empty means none.
    """

    idp_id: str
    issuer: str
    jwks_uri: str
    audience: str
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})

    def __post_init__(self) -> None:
        if foreign := self.algorithms - ALLOWED_ALGORITHMS:
            message = f"not an accepted asymmetric algorithm: {', '.join(sorted(foreign))}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a verified token speaks for. `expires_at` is in seconds since 1970; leases must not outlive it."""

    idp_id: str
    subject: str
    groups: frozenset[str]
    expires_at: float
    token_digest: bytes


class _Headers(jws.JWSRegistry):
    """Issuers put certificates (`x5c`) and members of their own into headers: allowed, and not looked at."""

    max_header_length = LARGEST_TOKEN


@dataclass(frozen=True, slots=True)
class _Trust:
    """An issuer's entry with what follows from it; replaced as a whole when the entry changes."""

    entry: TrustedIssuer
    keys: IssuerKeys
    headers: _Headers

    def check_claims(self, claims: dict[str, Any], now: float) -> None:
        """RFC 7519 §4.1: issuer, audience, expiry (required), not before and issue time (if there)."""
        JWTClaimsRegistry(
            now=int(now),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.entry.issuer},
            aud={"essential": True, "value": self.entry.audience},
            exp={"essential": True},
        ).validate(claims)


@dataclass(frozen=True, slots=True)
class _Remembered:
    subject: Subject
    trust: _Trust
    generation: object


class TokenVerifier:
    """Verifies subjects' tokens. One per process; it belongs to one event loop."""

    def __init__(
        self,
        *,
        fetch_jwks: FetchJwks,
        issuers: Iterable[TrustedIssuer] = (),
        remember: int = 10_000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trust `issuers` (none: refuse everything); keep at most `remember` verified tokens, 1 KB each."""
        self._fetch_jwks = fetch_jwks
        self._remember = remember
        self._clock = clock
        self._monotonic = monotonic
        self._trusted: dict[str, _Trust] = {}
        # By digest: what is remembered can't be presented by whoever reads our memory.
        self._verified: OrderedDict[bytes, _Remembered] = OrderedDict()
        self.replace_issuers(issuers)

    def replace_issuers(self, issuers: Iterable[TrustedIssuer]) -> None:
        """Trust exactly these from now on. Entries that did not change keep their keys and remembered tokens.

        `ValueError` if two entries name one issuer: then nothing says which of them a token belongs to.
        """
        trusted: dict[str, _Trust] = {}
        for entry in issuers:
            if entry.issuer in trusted:
                message = "two identity providers have the same issuer"
                raise ValueError(message)
            known = self._trusted.get(entry.issuer)
            trusted[entry.issuer] = known if known is not None and known.entry == entry else self._trust(entry)
        self._trusted = trusted
        for digest in [digest for digest, kept in self._verified.items() if not self._stands(kept)]:
            del self._verified[digest]

    def _trust(self, entry: TrustedIssuer) -> _Trust:
        keys = IssuerKeys(uri=entry.jwks_uri, fetch=self._fetch_jwks, clock=self._monotonic)
        headers = _Headers(algorithms=sorted(entry.algorithms), strict_check_header=False)
        return _Trust(entry=entry, keys=keys, headers=headers)

    async def verify(self, token: str) -> Subject:
        """Whom `token` speaks for.

        1. Bound its size; answer from memory if it was verified and nothing that this rested on changed.
        2. Read header and claims, unverified, only to choose: the trusted issuer, the algorithm, the key.
        3. Verify the signature with that key.
        4. Check issuer, audience and times; take subject and groups.

        The caller still owes: that the token was presented by an instance that may (`token_digest` in its
        assertion), and that the subject may have what it asks for. `TokenRefused`, which never holds any of
        the token, for all that is the token's fault; `Unavailable` if the issuer's keys can't be had.
        """
        # 1.
        if len(token) > LARGEST_TOKEN:
            raise TokenRefused(TokenRefusal.TOO_LARGE)
        digest = _digest(token)
        if (subject := self._recall(digest)) is not None:
            return subject
        # 2.
        header, claims = _read_unverified(token)
        trust = self._choose_issuer(claims)
        key, generation = await _choose_key(trust, header)
        if self._trusted.get(trust.entry.issuer) is not trust:
            # The entry was changed while its keys were being fetched.
            raise TokenRefused(TokenRefusal.UNTRUSTED_ISSUER)
        # 3.
        verified = _verify_signature(token, key, trust)
        # 4.
        subject = _to_subject(verified, trust, digest, self._clock())
        self._verified[digest] = _Remembered(subject, trust, generation)
        if len(self._verified) > self._remember:
            self._verified.popitem(last=False)
        return subject

    def _choose_issuer(self, claims: dict[str, Any]) -> _Trust:
        # Nobody's word as yet: it may be a list, which no mapping can be asked for.
        issuer = claims.get("iss")
        trust = self._trusted.get(issuer) if isinstance(issuer, str) else None
        if trust is None:
            raise TokenRefused(TokenRefusal.UNTRUSTED_ISSUER)
        return trust

    def _recall(self, digest: bytes) -> Subject | None:
        kept = self._verified.get(digest)
        if kept is None:
            return None
        # Remembered to the same moment to which it would verify, and not longer.
        if not self._stands(kept) or self._clock() >= kept.subject.expires_at + LEEWAY_S:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        kept.trust.keys.renew_if_old()
        return kept.subject

    def _stands(self, kept: _Remembered) -> bool:
        trust = kept.trust
        current = self._trusted.get(trust.entry.issuer)
        return current is trust and trust.keys.generation is kept.generation and trust.keys.trusted


def _digest(token: str) -> bytes:
    try:
        return sha256(token.encode("ascii"))
    except UnicodeEncodeError:
        raise TokenRefused(TokenRefusal.MALFORMED) from None


def _read_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of something that looks like a JWS in compact form, as yet nobody's word."""
    pieces = token.split(".")
    try:
        header, claims = (orjson.loads(from_base64url(piece)) for piece in pieces[:2])
    except ValueError:
        raise TokenRefused(TokenRefusal.MALFORMED) from None
    if len(pieces) != JWS_PARTS or not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenRefused(TokenRefusal.MALFORMED)
    return header, claims


async def _choose_key(trust: _Trust, header: dict[str, Any]) -> tuple[Key, object]:
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in trust.entry.algorithms:
        raise TokenRefused(TokenRefusal.ALGORITHM)
    # Nothing that we trust uses critical extensions, and `b64` would change what is signed (RFC 7797).
    if "crit" in header or "b64" in header or not isinstance(key_id, str):
        raise TokenRefused(TokenRefusal.MALFORMED)
    key = await trust.keys.find(key_id)
    if key is None:
        raise TokenRefused(TokenRefusal.UNKNOWN_KEY)
    # Behind the look-up, which may have brought another set of keys.
    return key, trust.keys.generation


def _verify_signature(token: str, key: Key, trust: _Trust) -> dict[str, Any]:
    try:
        verified = jws.deserialize_compact(token, key, registry=trust.headers)
        claims = orjson.loads(verified.payload or b"")
    # Not chained: the library's messages may quote what stood in the token.
    except (JoseError, ValueError, TypeError, RecursionError):
        raise TokenRefused(TokenRefusal.SIGNATURE) from None
    if not isinstance(claims, dict):
        raise TokenRefused(TokenRefusal.MALFORMED)
    return claims


def _to_subject(claims: dict[str, Any], trust: _Trust, digest: bytes, now: float) -> Subject:
    try:
        trust.check_claims(claims, now)
    except ExpiredTokenError:
        raise TokenRefused(TokenRefusal.EXPIRED) from None
    except (InvalidClaimError, MissingClaimError) as problem:
        raise TokenRefused(_REFUSALS.get(problem.claim, TokenRefusal.CLAIMS)) from None
    subject = claims.get(trust.entry.subject_claim)
    groups = claims.get(trust.entry.groups_claim, [])
    # Some providers send a single group as text.
    groups = [groups] if isinstance(groups, str) else groups
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject) or not _all_text(groups):
        raise TokenRefused(TokenRefusal.CLAIMS)
    return Subject(trust.entry.idp_id, subject, frozenset(groups), float(claims["exp"]), digest)


def _all_text(groups: object) -> bool:
    return isinstance(groups, list) and all(isinstance(group, str) and group for group in groups)


_REFUSALS: Final = {
    "aud": TokenRefusal.AUDIENCE,
    "iss": TokenRefusal.UNTRUSTED_ISSUER,
    "nbf": TokenRefusal.NOT_YET_VALID,
    "iat": TokenRefusal.NOT_YET_VALID,
}
