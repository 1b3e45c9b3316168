"""An identity provider for tests: it issues tokens, publishes its keys, and counts how often it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from shared.errors import Unavailable
from shared.identity import TokenVerifier, TrustedIssuer

NOW = 1_800_000_000.0
ISSUER = "https://idp.example"
JWKS = "https://idp.example/jwks"
AUDIENCE = "keyfob"

RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")


@dataclass
class Clock:
    """A clock that stands until it is told to move; both wall and monotonic."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Issuer:
    """Keys by id, and a JWKS endpoint that may fail, or take until it is released."""

    keys: dict[str, Key] = field(default_factory=lambda: {"rsa": RSA, "ec": EC, "ed": ED})
    asked: list[str] = field(default_factory=list)
    failing: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.released.set()

    async def fetch(self, uri: str) -> Mapping[str, Any]:
        self.asked.append(uri)
        self.reached.set()
        await self.released.wait()
        if self.failing:
            raise Unavailable
        return self.jwks()

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{**key.as_dict(private=False), "kid": name} for name, key in self.keys.items()]}

    def token(
        self, *, kid: str = "rsa", alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """Issue a good token, with `claims` put over it (None takes one away)."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "agent-a", "groups": ["g1", "g2"], "iat": int(NOW)}
        said = {name: value for name, value in (said | {"exp": int(NOW) + 600} | claims).items() if value is not None}
        return sign(self.keys[kid], {"alg": alg, "kid": kid} | (header or {}), said)


def sign(key: Key, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Sign whatever is asked for."""
    registry = JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    return jwt.encode(header, claims, key, registry=registry)


def trusted(**changes: Any) -> TrustedIssuer:
    """Give the entry that trusts `Issuer`, with changes."""
    entry: dict[str, Any] = {"idp_id": "idp/1", "issuer": ISSUER, "jwks_uri": JWKS, "audience": AUDIENCE}
    algorithms = frozenset({"RS256", "ES256", "Ed25519"})
    return TrustedIssuer(**(entry | {"algorithms": algorithms} | changes))


def verifier(issuer: Issuer, clock: Clock, *entries: TrustedIssuer, remember: int = 100) -> TokenVerifier:
    """Build a verifier on the test's clock."""
    return TokenVerifier(
        fetch_jwks=issuer.fetch, issuers=entries or (trusted(),), remember=remember, clock=clock, monotonic=clock
    )
