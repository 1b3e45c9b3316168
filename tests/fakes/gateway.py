"""The asking side of a resolve, as an enrolled instance does it: assertion, request, opening the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import ASGIApp

from shared.crypto.signing import VerifyKey
from shared.delivery import Request, make_assertion, open_answer, request_hash
from shared.delivery.messages import ResolveAnswer, decode_answer
from tests.fakes.asgi import Reply, call
from tests.fakes.estate import InstanceIdentity

TARGET = "/v1/resolve"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it went out."""

    body: bytes
    assertion: str
    headers: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class FakeGateway:
    """One instance that asks one resolver."""

    identity: InstanceIdentity
    audience: str
    resolver_key: VerifyKey
    app: ASGIApp | None = None
    more_headers: dict[str, str] = field(default_factory=dict)

    def question(self, token: str, server: str = "patients-db", **wish: Any) -> Asked:
        """What to send, with an assertion of its own."""
        body = orjson.dumps({"server": server} | wish)
        request = Request("POST", TARGET, self.audience, body, token)
        assertion = make_assertion(request, key=self.identity.signing, instance_id=self.identity.id)
        headers = {"Authorization": f"Bearer {token}", "Keyfob-Assertion": assertion, **self.more_headers}
        return Asked(body, assertion, tuple(headers.items()))

    async def send(self, asked: Asked) -> Reply:
        """The raw answer to a question."""
        assert self.app is not None
        return await call(self.app, "POST", TARGET, headers=asked.headers, body=asked.body)

    async def ask(self, token: str, server: str = "patients-db", **wish: Any) -> Reply:
        """The raw answer."""
        return await self.send(self.question(token, server, **wish))

    async def resolve(self, token: str, server: str = "patients-db", **wish: Any) -> ResolveAnswer:
        """The opened answer; fails the test when it is a refusal."""
        asked = self.question(token, server, **wish)
        reply = await self.send(asked)
        assert reply.status == 200, reply.body
        return self.opened(asked, reply.body)

    def opened(self, asked: Asked, envelope: bytes) -> ResolveAnswer:
        """What only this instance can open."""
        payload = open_answer(
            envelope,
            instance_id=self.identity.id,
            instance_hpke_key=self.identity.sealing,
            resolver_keys=[self.resolver_key],
            request_hash=request_hash(asked.assertion.encode(), asked.body),
        )
        return decode_answer(payload)


def values(answer: ResolveAnswer) -> Mapping[str, bytes]:
    """The values by field, revealed: for tests only."""
    revealed = {}
    for one in answer.fields:
        assert one.value is not None, one.name
        with one.value.reveal() as view:
            revealed[one.name] = bytes(view)
    return revealed
