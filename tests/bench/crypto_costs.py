"""What the cryptography of one resolve costs, operation by operation: `python -m tests.bench.crypto_costs`.

Prints what the fastest tenth of the calls stays below, in µs: other work on the machine only ever adds. Nothing is
asserted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from rich.console import Console
from rich.table import Table

from shared.crypto import SealingKey, SecretBytes, SigningKey, VerifyKey, canonical, seal
from shared.delivery import (
    ReplayWindow,
    Request,
    make_assertion,
    open_answer,
    request_hash,
    seal_answer,
    verify_assertion,
)
from shared.delivery import messages as m
from shared.identity import TokenVerifier, TrustedIssuer

INSTANCE = "instance/4f0c"
BODY = b'{"server":"patients-db","context":"hospital-a","floor":{"policy":812,"catalog":77}}'
ISSUER = TrustedIssuer("idp/1", "https://idp.example", "https://idp.example/jwks", "keyfob")
CALLS = 2000


def best_us(work: Callable[[], object]) -> float:
    """Time `work`: the fastest tenth of its calls, in µs."""
    clock, spent = time.perf_counter, []
    for _ in range(CALLS):
        started = clock()
        work()
        spent.append(clock() - started)
    return _fastest_tenth(spent)


async def best_async_us(work: Callable[[], Awaitable[object]]) -> float:
    """Time a coroutine function in the same way."""
    clock, spent = time.perf_counter, []
    for _ in range(CALLS):
        started = clock()
        await work()
        spent.append(clock() - started)
    return _fastest_tenth(spent)


def _fastest_tenth(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 10] * 1e6


def answer() -> m.ResolveAnswer:
    """Build a typical answer: one field, four records that its lease rests on, a definition of 700 bytes."""
    rests_on = ("grant/11aa", "binding/22bb", "mapping/33cc", "server/44dd")
    lease = m.Lease(id="lease/1", reference_id="reference/1", version="3", expires_at=1.8e9, rests_on=rests_on)
    value = SecretBytes(b"postgresql://hospital_a:0123456789abcdef@db.example:5432/hospital_a")
    return m.ResolveAnswer(
        record=m.RecordPosition(stream="stream/1", n=12345, hash="ab" * 32),
        floor=m.ReachedFloor(policy=812, catalog=77),
        subject=m.SubjectName(idp_id="idp/1", subject="agent-a"),
        subject_expires_at=1.8e9,
        context=m.ContextName(profile_id="profile/1", name="hospital-a"),
        server_id="server/44dd",
        server=m.SignedRecord(type="t", payload=b"xxx" * 250, signature=b"xxx" * 22, key_id="ab" * 8),
        definition_digest="cd" * 32,
        fields=[m.ResolvedField(name="DB_URL", value=value, lease=lease)],
    )


def primitives() -> dict[str, float]:
    """Time the pieces by themselves."""
    signing, sealing, message = SigningKey.generate(), SealingKey.generate(), b"x" * 400
    signature, sealed = signing.sign(b"d", message), seal(message, sealing.public, context=b"c")
    claims: dict[str, Any] = {"iss": "https://idp.example", "n": 7, "list": ["a", "b"], "deep": {"k": "v" * 40}}
    return {
        "Ed25519 sign": best_us(lambda: signing.sign(b"d", message)),
        "Ed25519 verify": best_us(lambda: signing.verify_key.verify(signature, b"d", message)),
        "HPKE seal": best_us(lambda: seal(message, sealing.public, context=b"c")),
        "HPKE open": best_us(lambda: sealing.open(sealed, context=b"c")),
        "RFC 8785": best_us(lambda: canonical(claims)),
    }


async def token(key: RSAKey | ECKey, algorithm: str) -> tuple[str, dict[str, float]]:
    """Make a token, and time verifying it for the first time and from memory."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": ISSUER.issuer, "aud": "keyfob", "sub": "agent-a", "iat": now, "exp": now + 600}
    text = jwt.encode({"alg": algorithm, "kid": "1"}, claims | {"groups": ["g" * 36] * 8}, key)

    async def fetch(_uri: str) -> dict[str, Any]:
        return {"keys": [{**key.as_dict(private=False), "kid": "1"}]}

    forgetful = TokenVerifier(fetch_jwks=fetch, issuers=[ISSUER], remember=0)
    verifier = TokenVerifier(fetch_jwks=fetch, issuers=[ISSUER])
    return text, {
        f"token {algorithm}, first sight": await best_async_us(lambda: forgetful.verify(text)),
        f"token {algorithm}, remembered": await best_async_us(lambda: verifier.verify(text)),
    }


class Exchange:
    """One resolve: what each side computes."""

    def __init__(self, text: str) -> None:
        self.request = Request("POST", "/v1/resolve", "https://resolver.example", BODY, text)
        self.instance, self.hpke, self.resolver = SigningKey.generate(), SealingKey.generate(), SigningKey.generate()
        self.key_of: Callable[[str], VerifyKey | None] = {INSTANCE: self.instance.verify_key}.get
        self.assertion = self.make()
        self.hash = request_hash(self.assertion.encode(), BODY)
        self.answer = answer()
        self.payload = m.encode_answer(self.answer)
        self.envelope = self.seal()

    def make(self) -> str:
        return make_assertion(self.request, key=self.instance, instance_id=INSTANCE)

    def verify(self) -> None:
        # A fresh window for each: the same assertion is verified again and again here.
        verify_assertion(self.assertion, self.request, key_of=self.key_of, seen=ReplayWindow())

    def seal(self) -> bytes:
        return seal_answer(
            self.payload,
            instance_id=INSTANCE,
            instance_hpke_public=self.hpke.public,
            resolver_signing_key=self.resolver,
            request_hash=self.hash,
        )

    def open(self) -> bytes:
        return open_answer(
            self.envelope,
            instance_id=INSTANCE,
            instance_hpke_key=self.hpke,
            resolver_keys=[self.resolver.verify_key],
            request_hash=self.hash,
        )

    def costs(self) -> tuple[dict[str, float], dict[str, float]]:
        """Time the resolver's side, then the instance's."""
        resolver = {
            "resolver: parse the request": best_us(lambda: m.parse_request(BODY, m.ResolveRequest)),
            "resolver: verify the assertion": best_us(self.verify),
            "resolver: request hash": best_us(lambda: request_hash(self.assertion.encode(), BODY)),
            "resolver: build the answer": best_us(answer),
            "resolver: encode the answer": best_us(lambda: m.encode_answer(self.answer)),
            "resolver: seal and sign": best_us(self.seal),
        }
        instance = {
            "instance: make the assertion": best_us(self.make),
            "instance: verify and open": best_us(self.open),
            "instance: decode the answer": best_us(lambda: m.decode_answer(bytes(self.payload))),
        }
        return resolver, instance


async def measure() -> dict[str, float]:
    """Time everything, in the order in which it is printed."""
    rsa, ec = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    text, rs256 = await token(rsa, "RS256")
    _, es256 = await token(ec, "ES256")
    resolver, instance = Exchange(text).costs()
    total = sum(resolver.values()) + rs256["token RS256, remembered"]
    return primitives() | rs256 | es256 | resolver | {"resolver, all of it": total} | instance


def main() -> None:
    """Print the table."""
    table = Table("operation", "µs")
    for name, cost in asyncio.run(measure()).items():
        table.add_row(name, f"{cost:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
