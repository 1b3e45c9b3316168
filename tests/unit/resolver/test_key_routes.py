"""`/v1/keys`: who may look, who may act, and what an answer tells: ids and counts, never a key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from services.resolver.custody.facts import Generation, KeyState, ReplicaKeys, Rotation
from services.resolver.custody.key_routes import key_routes
from services.resolver.custody.keys import KeyDesk, KeysNow
from shared.custody import Kek, RecoveryKey, seal_for_recovery
from shared.errors import Conflict
from shared.events.changes import Actor
from tests.fakes.readers import GROUPS, Reader, guard

AT = datetime(2026, 11, 23, tzinfo=UTC)
SAFE = RecoveryKey.generate()
KEK = Kek.generate()
OLD, NEW, LATER = KEK.key_id, "b" * 16, "c" * 16
SOMEBODY = Actor(idp="idp/administrators", subject="ada")
NOW = KeysNow(
    (
        Generation(1, OLD, KeyState.FORMER, seal_for_recovery(KEK, SAFE.public), AT, SOMEBODY),
        Generation(2, NEW, KeyState.CURRENT, None, AT, SOMEBODY),
    ),
    {OLD: 3, NEW: 7, "d" * 16: 1},
    (ReplicaKeys("resolver-1", frozenset({OLD, NEW, LATER}), 0.5),),
    Rotation(2, total=10, done=7, damaged=0, started_at=AT),
)


@dataclass
class FakeDesk:
    refusal: Exception | None = None
    asked: list[tuple[str, Any, Actor | None]] = field(default_factory=list)

    async def now(self) -> KeysNow:
        return self._answer("now", None, None)

    async def rotate(self, key_id: str | None, *, by: Actor) -> KeysNow:
        return self._answer("rotate", key_id, by)

    async def retire(self, key_id: str, *, by: Actor) -> KeysNow:
        return self._answer("retire", key_id, by)

    def _answer(self, what: str, key_id: str | None, by: Actor | None) -> KeysNow:
        self.asked.append((what, key_id, by))
        if self.refusal is not None:
            raise self.refusal
        return NOW


def reader(desk: FakeDesk | None = None) -> Reader:
    return Reader(key_routes(cast("KeyDesk", desk), guard()))


@pytest.mark.parametrize(("group", "status"), GROUPS.items())
async def test_operators_admins_and_auditors_may_look(group: str, status: int) -> None:
    assert (await reader(FakeDesk()).reply("/v1/keys", group=group)).status == status


@pytest.mark.parametrize("path", ["/v1/keys/rotations", "/v1/keys/retirements"])
@pytest.mark.parametrize(("group", "status"), (GROUPS | {"keyfob-auditors": 403}).items())
async def test_only_operators_and_admins_may_act(group: str, status: int, path: str) -> None:
    desk = FakeDesk()
    reply = await reader(desk).reply(path, group=group, method="POST", body={"key_id": NEW})
    assert reply.status == (202 if status == 200 and "rotations" in path else status)
    assert len(desk.asked) == (1 if status == 200 else 0)


async def test_who_acts_is_told_to_the_record() -> None:
    desk = FakeDesk()
    await reader(desk).reply("/v1/keys/rotations", group="keyfob-operators", method="POST", body={})
    await reader(desk).reply("/v1/keys/retirements", group="keyfob-operators", method="POST", body={"key_id": OLD})
    assert desk.asked == [("rotate", None, SOMEBODY), ("retire", OLD, SOMEBODY)]


async def test_it_shows_ids_counts_and_how_far_a_rotation_is() -> None:
    found = await reader(FakeDesk()).get("/v1/keys")
    assert [(one["key_id"], one["state"], one["values"], one["recovery_key_id"]) for one in found["keys"]] == [
        (OLD, "former", 3, SAFE.public.key_id),
        (NEW, "current", 7, None),
    ]
    assert found["rotation"]["key_id"] == NEW
    assert (found["rotation"]["done"], found["rotation"]["total"], found["rotation"]["finished_at"]) == (7, 10, None)
    assert found["waiting"] == [LATER]
    assert found["missing"] == ["d" * 16]
    assert found["replicas"] == [{"replica_id": "resolver-1", "key_ids": sorted((OLD, NEW, LATER)), "heard_s": 0.5}]


async def test_no_key_and_no_blob_is_in_it() -> None:
    body = (await reader(FakeDesk()).reply("/v1/keys")).body.decode()
    assert KEK.to_text() not in body
    assert "recovery" not in json.loads(body)["keys"][0].keys() - {"recovery_key_id"}


@pytest.mark.parametrize(
    "body", [{"key_id": "short"}, {"key_id": "A" * 16}, {"key_id": 7}, {"key": NEW}, {"key_id": NEW, "more": 1}, []]
)
async def test_anything_that_is_no_key_id_is_refused_before_anybody_acts(body: object) -> None:
    desk = FakeDesk()
    for path in ("/v1/keys/rotations", "/v1/keys/retirements"):
        assert (await reader(desk).reply(path, group="keyfob-admins", method="POST", body=body)).status == 400
    assert desk.asked == []


async def test_what_is_in_the_way_is_said() -> None:
    reply = await reader(FakeDesk(Conflict("It is in the way."))).reply(
        "/v1/keys/rotations", group="keyfob-admins", method="POST", body={}
    )
    assert reply.status == 409
    assert json.loads(reply.body)["detail"] == "It is in the way."


async def test_where_nothing_is_kept_it_says_why_and_that_references_resolve() -> None:
    reply = await reader(None).reply("/v1/keys")
    assert reply.status == 503
    assert "KEYFOB_RESOLVER_KEYS_DIR" in json.loads(reply.body)["detail"]
    assert "References resolve" in json.loads(reply.body)["detail"]
