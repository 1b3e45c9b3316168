"""An administrator's question to a running replica, and the same question asked as a resolve."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.asgi import Reply, call
from tests.integration.resolver.conftest import World, secret_of

pytestmark = pytest.mark.timeout(120)


async def ask(world: World, group: str, **question: Any) -> Reply:
    token = world.issuer.token("ada", [group])
    body = json.dumps({"subject": "ana", "server": "patients-db"} | question).encode()
    headers = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
    return await call(world.replica.app, "POST", "/v1/explain", headers=headers, body=body)


async def test_what_is_explained_is_what_a_resolve_gets(world: World) -> None:
    await world.fresh()
    for groups, context in (
        (["hospital-a-staff"], None),
        (["hospital-a-staff"], "hospital-b"),
        (["hospital-a-staff", "hospital-b-staff"], None),
        (["hospital-a-staff", "hospital-b-staff"], "hospital-b"),
        (["strangers"], None),
    ):
        question: dict[str, Any] = {"groups": groups, "instance": "gateway-1"}
        wish = {} if context is None else {"context": context}
        reply = await ask(world, "keyfob-auditors", **question, **wish)
        assert reply.status == 200, reply.body
        (told,) = json.loads(reply.body)["instances"]
        answer = await world.gateway.ask(world.issuer.token("ana", groups), **wish)
        assert told["allowed"] is (answer.status == 200), (groups, context)
        if answer.status != 200:
            assert json.loads(answer.body)["type"].endswith(told["refused"]["kind"])


async def test_an_explanation_holds_no_value_and_is_for_administrators_only(world: World) -> None:
    await world.fresh()
    told = await ask(world, "keyfob-operators", groups=["hospital-a-staff"])
    assert told.status == 200
    assert secret_of("hospital-a").encode() not in told.body
    assert (await ask(world, "hospital-a-staff", groups=["hospital-a-staff"])).status == 403
