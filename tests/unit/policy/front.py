"""Policy's HTTP front on a ledger in memory: requests go in as a server would hand them over, without a socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from fastapi import FastAPI

from services.policy.api.desk import Desk, Handout
from services.policy.app import add_routes
from services.policy.commands.choices import Person
from shared.administration import AdminGuard
from shared.config import AdminSettings
from shared.errors import TokenInvalid
from shared.health import Readiness
from shared.identity.tokens import Subject
from shared.serving import application
from tests.fakes.asgi import Reply, call
from tests.unit.policy.stories import World

GROUPS: Final = {
    "admin": frozenset({"keyfob-admins"}),
    "operator": frozenset({"keyfob-operators"}),
    "auditor": frozenset({"keyfob-auditors"}),
    "nobody": frozenset({"ward-3"}),
}
"""Who the tokens of these names speak for; every other token is refused."""

HANDOUT: Final = Handout(
    policy_key="A" * 43,
    resolver_keys=("E" * 43,),
    resolver_urls=("https://resolver-1", "https://resolver-2"),
    broker="broker:9092",
    notifier=None,
)


class FakeVerifier:
    async def verify(self, token: str) -> Subject:
        if token not in GROUPS:
            raise TokenInvalid
        return Subject("idp/administrators", token, GROUPS[token], 2e9, b"digest")


@dataclass(slots=True)
class FakeSubjects:
    """Subjects by their tokens, as the identity providers of policy would vouch for them."""

    people: dict[str, Person] = field(default_factory=dict)

    async def person(self, token: str) -> Person:
        if token not in self.people:
            raise TokenInvalid
        return self.people[token]


class _Port:
    """Stands for a port of the front that a test has made last: making an application takes longer than a test."""

    stands_for: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stands_for, name)


_LEDGER, _CATALOG, _SUBJECTS = _Port(), _Port(), _Port()


@cache
def front_desk() -> Desk:
    """What its routes use."""
    guard = AdminGuard(FakeVerifier(), AdminSettings())  # type: ignore[arg-type]
    return Desk(
        ledger=_LEDGER,
        catalog=_CATALOG,
        guard=guard,
        subjects=_SUBJECTS,  # type: ignore[arg-type]
        handout=HANDOUT,
    )


@cache
def front_app() -> FastAPI:
    """All routes of policy."""
    app = application("policy", lifespan=contextlib.nullcontext, readiness=Readiness())
    add_routes(app, front_desk())
    return app


@dataclass(slots=True)
class Front:
    """The application with a world behind it. Calls are an administrator's unless a token is given."""

    world: World = field(default_factory=World)
    subjects: FakeSubjects = field(default_factory=FakeSubjects)

    def __post_init__(self) -> None:
        _LEDGER.stands_for = self.world.ledger
        _CATALOG.stands_for = self.world.catalog
        _SUBJECTS.stands_for = self.subjects

    async def send(self, method: str, path: str, body: object = None, *, token: str = "admin") -> Reply:
        """The whole answer, whatever it is."""
        headers = [("authorization", f"Bearer {token}")] if token else []
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await call(
            front_app(), method, path, headers=[*headers, ("content-type", "application/json")], body=sent
        )

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = "admin", expect: int | None = None
    ) -> Any:
        """The JSON of an answer that must be good, or must have the status `expect`."""
        reply = await self.send(method, path, body, token=token)
        wanted = {200, 201} if expect is None else {expect}
        assert reply.status in wanted, (method, path, reply.status, reply.body[:300])
        return json.loads(reply.body)

    async def create(self, plural: str, **body: object) -> Mapping[str, Any]:
        """What became of a new entity."""
        made: Mapping[str, Any] = await self.ask("POST", f"/v1/{plural}", body, expect=201)
        return made
