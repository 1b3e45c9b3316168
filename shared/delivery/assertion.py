"""The instance assertion: a short-lived signed statement that ties one request to one enrolled instance.

It is a JWS in compact form (RFC 7515), so that any JOSE library can make one:

    BASE64URL(header) "." BASE64URL(claims) "." BASE64URL(Ed25519 signature)

    header  {"alg":"EdDSA", "typ":"keyfob-assertion+jwt", "kid":<instance id>}
    claims  aud  the resolver's audience, its origin as configured: "https://resolver.example"
            htm  method, upper case
            htu  path with query, exactly as sent: "/v1/resolve"
            bh   SHA-256 of the body, base64url
            ath  SHA-256 of the subject's token as ASCII, base64url (as in RFC 9449)
            iat, exp  whole seconds since 1970; exp - iat is at most 60
            jti  unique id, 16 random bytes, base64url

It travels in the header `Keyfob-Assertion`. `alg` may also be "Ed25519" (RFC 9864), which means the same.
`typ` keeps other JWS of the same key apart (RFC 8725 §3.11); what else instances sign is kept apart in
`shared.crypto.signing`. Making and verifying are written out here because a JOSE library costs 80 µs more.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson

from shared.crypto.framing import frame, from_base64url, sha256, to_base64url
from shared.errors import AssertionInvalid, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.crypto.signing import SigningKey, VerifyKey
    from shared.delivery.replay import ReplayWindow

HEADER: Final = "Keyfob-Assertion"
TYPE: Final = "keyfob-assertion+jwt"
ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})
LONGEST_LIFETIME_S: Final = 60
DEFAULT_LIFETIME_S: Final = 30
CLOCK_AHEAD_S: Final = 10
"""How far an instance's clock may run ahead of ours; how far behind is bounded by the lifetime."""
LARGEST_ASSERTION: Final = 4096
LONGEST_ID: Final = 64
JWS_PARTS: Final = 3


class AssertionRefusal(StrEnum):
    """Why an assertion was refused: safe to log and to count."""

    MALFORMED = "malformed"
    UNKNOWN_INSTANCE = "unknown-instance"
    SIGNATURE = "bad-signature"
    REQUEST = "another-request"
    TOKEN = "another-token"  # noqa: S105 - a reason, not a token
    LIFETIME = "lifetime-too-long"
    EXPIRED = "expired"
    FUTURE = "issued-in-the-future"
    REPLAYED = "replayed"


class AssertionRefused(AssertionInvalid):
    """`AssertionInvalid` with its reason for logs and records; what the caller is told is always the same."""

    instance_id: str | None = None
    """Who signed it; None while the signature did not hold."""
    digest: str = ""
    """`assertion_digest` of what was signed; empty while the signature did not hold, or where it had no id."""

    def __init__(self, reason: AssertionRefusal) -> None:
        """Keep the reason; the detail stays the constant one."""
        super().__init__()
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """What an assertion is about. `target` is path and query as sent, `audience` the resolver's origin."""

    method: str
    target: str
    audience: str
    body: bytes
    token: str

    def __repr__(self) -> str:
        """Show neither the token nor the body."""
        return f"Request({self.method} {self.audience}{self.target})"

    def claims(self) -> dict[str, str]:
        """Return the claims that bind this request."""
        return {
            "aud": self.audience,
            "htm": self.method,
            "htu": self.target,
            "bh": to_base64url(sha256(self.body)),
            "ath": token_hash(self.token),
        }


@dataclass(frozen=True, slots=True)
class VerifiedAssertion:
    """An assertion that verified. `raw` is what the answer's request hash covers; times in seconds since 1970."""

    instance_id: str
    assertion_id: str
    issued_at: int
    expires_at: int
    raw: bytes

    @property
    def digest(self) -> str:
        """What records call it."""
        return assertion_digest(self.instance_id, self.assertion_id)


def assertion_digest(instance_id: str, assertion_id: str) -> str:
    """Name an assertion in records, in hex: ids are an instance's own, and may hold any text."""
    return sha256(frame(b"keyfob/assertion/1", instance_id.encode(), assertion_id.encode())).hex()


def token_hash(token: str) -> str:
    """Hash a subject's token for `ath`. Text that can't be a token hashes too, and matches nothing."""
    return to_base64url(sha256(token.encode("utf-8", "surrogatepass")))


def make_assertion(
    request: Request,
    *,
    key: SigningKey,
    instance_id: str,
    lifetime_s: int = DEFAULT_LIFETIME_S,
    now: float | None = None,
    assertion_id: str | None = None,
) -> str:
    """Make the header's value for one request. A repeated request needs a new one; `lifetime_s` is at most 60."""
    issued_at = int(time.time() if now is None else now)
    header = {"alg": "EdDSA", "typ": TYPE, "kid": instance_id}
    claims = {
        **request.claims(),
        "iat": issued_at,
        "exp": issued_at + lifetime_s,
        "jti": assertion_id or secrets.token_urlsafe(16),
    }
    signed = f"{to_base64url(orjson.dumps(header))}.{to_base64url(orjson.dumps(claims))}"
    return f"{signed}.{to_base64url(key.sign_bytes(signed.encode()))}"


def verify_assertion(
    assertion: str,
    request: Request,
    *,
    key_of: Callable[[str], VerifyKey | None],
    seen: ReplayWindow,
    now: float | None = None,
) -> VerifiedAssertion:
    """Prove that an enrolled instance made `assertion` for exactly this request, now and for the first time.

    1. Read header and claims within their bounds; nothing in them counts yet.
    2. Find the instance's key: `key_of` returns None for one that is unknown or banned.
    3. Verify the signature.
    4. Compare method, target, audience, body and the subject's token with the request at hand.
    5. Check the times: at most 60 s long, not expired, not from the future.
    6. Remember the id; refuse one seen before.

    The caller still owes: verifying the subject's token itself, whether the instance may run the server, and
    sealing the answer to the key that was enrolled for `instance_id`. Raises `AssertionRefused`.
    """
    moment = time.time() if now is None else now
    # 1.
    instance_id, claims, signed, signature = _read(assertion)
    # 2.
    key = key_of(instance_id)
    if key is None:
        raise AssertionRefused(AssertionRefusal.UNKNOWN_INSTANCE)
    # 3.
    try:
        key.verify_bytes(signature, signed)
    except SignatureInvalid:
        raise AssertionRefused(AssertionRefusal.SIGNATURE) from None
    try:
        issued_at, expires_at, assertion_id = _check(claims, request, instance_id, seen, moment)
    except AssertionRefused as refused:
        # The instance did sign it, whoever sent it now: a record that says so lets a repetition be noticed.
        refused.instance_id, refused.digest = instance_id, _named(instance_id, claims)
        raise
    return VerifiedAssertion(instance_id, assertion_id, issued_at, expires_at, assertion.encode())


def _check(
    claims: dict[str, Any], request: Request, instance_id: str, seen: ReplayWindow, now: float
) -> tuple[int, int, str]:
    """What a signature that holds was made for, and when."""
    # 4.
    _compare(claims, request.claims())
    # 5.
    issued_at, expires_at, assertion_id = _check_times(claims, now)
    # 6.
    if not seen.admit(instance_id, assertion_id, expires_at=expires_at, now=now):
        raise AssertionRefused(AssertionRefusal.REPLAYED)
    return issued_at, expires_at, assertion_id


def _read(assertion: str) -> tuple[str, dict[str, Any], bytes, bytes]:
    """Instance id, claims, signed bytes and signature of something that has an assertion's form."""
    if len(assertion) > LARGEST_ASSERTION:
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    pieces = assertion.split(".")
    try:
        header_bytes, claims_bytes, signature = map(from_base64url, pieces)
        header, claims = orjson.loads(header_bytes), orjson.loads(claims_bytes)
        instance_id = _instance_of(header)
    except (ValueError, TypeError, AttributeError):
        raise AssertionRefused(AssertionRefusal.MALFORMED) from None
    if not isinstance(claims, dict):
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    # What was signed is the text as it came, never what we would write for the same claims.
    return instance_id, claims, assertion.rpartition(".")[0].encode(), signature


def _instance_of(header: dict[str, Any]) -> str:
    # Exactly these members: so no `crit`, no key or address of a key in the header.
    if header.keys() != {"alg", "typ", "kid"} or header["alg"] not in ALGORITHMS or header["typ"] != TYPE:
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    instance_id = header["kid"]
    if not isinstance(instance_id, str):
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    return instance_id


def _compare(claims: dict[str, Any], expected: dict[str, str]) -> None:
    # Not in constant time: whoever sent the assertion knows both sides, and there is nothing to find out.
    if claims.get("ath") != expected["ath"]:
        raise AssertionRefused(AssertionRefusal.TOKEN)
    if any(claims.get(name) != value for name, value in expected.items()):
        raise AssertionRefused(AssertionRefusal.REQUEST)


def _id_of(claims: dict[str, Any]) -> str | None:
    assertion_id = claims.get("jti")
    return assertion_id if isinstance(assertion_id, str) and 0 < len(assertion_id) <= LONGEST_ID else None


def _named(instance_id: str, claims: dict[str, Any]) -> str:
    assertion_id = _id_of(claims)
    return "" if assertion_id is None else assertion_digest(instance_id, assertion_id)


def _check_times(claims: dict[str, Any], now: float) -> tuple[int, int, str]:
    issued_at, expires_at, assertion_id = claims.get("iat"), claims.get("exp"), _id_of(claims)
    # Exactly int: `True` would pass for one.
    if type(issued_at) is not int or type(expires_at) is not int:
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    if assertion_id is None:
        raise AssertionRefused(AssertionRefusal.MALFORMED)
    if expires_at - issued_at > LONGEST_LIFETIME_S:
        raise AssertionRefused(AssertionRefusal.LIFETIME)
    if expires_at <= now:
        raise AssertionRefused(AssertionRefusal.EXPIRED)
    if issued_at > now + CLOCK_AHEAD_S:
        raise AssertionRefused(AssertionRefusal.FUTURE)
    return issued_at, expires_at, assertion_id
