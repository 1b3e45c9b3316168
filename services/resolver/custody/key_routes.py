"""`/v1/keys`: what there is, rotating and retiring. For operators; auditors may look. No key is ever in an answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from services.resolver.custody.facts import Generation, KeyState, Rotation
from services.resolver.custody.keys import KeyDesk, KeysNow
from shared.administration import AdminGuard, Administrator, Role
from shared.errors import Unavailable
from shared.events.changes import Actor
from shared.events.custody import KeyId

NOT_KEPT = (
    "This installation keeps no local values: KEYFOB_RESOLVER_KEYS_DIR is not set. References resolve without it."
)


class GenerationView(BaseModel):
    """An installation key; the newest has the highest `n`."""

    n: int
    key_id: str
    state: KeyState
    since: datetime
    made_by: Actor
    recovery_key_id: str | None
    """Whose other half restores it; null: losing it loses its values."""
    values: int
    """Values sealed under it."""
    retired_at: datetime | None


class ReplicaView(BaseModel):
    """A replica that was heard in the last 15 s, and the keys in its directory."""

    replica_id: str
    key_ids: list[str]
    heard_s: float


class RotationView(BaseModel):
    """How far bringing all values to a key has come."""

    key_id: str
    total: int
    done: int
    damaged: int
    """Values that did not open and were left as they are."""
    started_at: datetime
    finished_at: datetime | None


class KeysView(BaseModel):
    """Everything about keys."""

    keys: list[GenerationView]
    replicas: list[ReplicaView]
    rotation: RotationView | None
    waiting: list[str]
    """Keys that every replica has and that may become current."""
    missing: list[str]
    """Keys that values name and that were never current here."""


class RotationRequest(BaseModel):
    """Which key becomes current; without one, the only one that waits."""

    model_config = ConfigDict(extra="forbid")

    key_id: KeyId | None = None


class RetirementRequest(BaseModel):
    """Which key is needed no more."""

    model_config = ConfigDict(extra="forbid")

    key_id: KeyId


def key_routes(desk: KeyDesk | None, guard: AdminGuard) -> APIRouter:
    """The routes; without a desk they say why there are no keys."""
    router = APIRouter(prefix="/v1/keys", tags=["keys"])
    found = _desk(desk)
    operator = Depends(guard.requires(Role.OPERATOR))
    reader = Depends(guard.requires(Role.OPERATOR, Role.AUDITOR))

    @router.get("", summary="Keys, what needs them, who has them", dependencies=[reader])
    async def read() -> KeysView:
        return view(await found().now())

    @router.post("/rotations", summary="Make a new key current and bring all values to it", status_code=202)
    async def rotate(request: RotationRequest, who: Administrator = operator) -> KeysView:
        return view(await found().rotate(request.key_id, by=who.actor))

    @router.post("/retirements", summary="Take note that nothing needs a key any more")
    async def retire(request: RetirementRequest, who: Administrator = operator) -> KeysView:
        return view(await found().retire(request.key_id, by=who.actor))

    return router


def _desk(desk: KeyDesk | None) -> Callable[[], KeyDesk]:
    def found() -> KeyDesk:
        if desk is None:
            raise Unavailable(NOT_KEPT)
        return desk

    return found


def view(now: KeysNow) -> KeysView:
    """As the API shows it."""
    return KeysView(
        keys=[_generation(one, now.values.get(one.key_id, 0)) for one in now.generations],
        replicas=[
            ReplicaView(replica_id=one.replica_id, key_ids=sorted(one.key_ids), heard_s=one.heard_s)
            for one in now.replicas
        ],
        rotation=None if now.rotation is None else _rotation(now.rotation, now.generations),
        waiting=list(now.waiting),
        missing=list(now.missing),
    )


def _generation(one: Generation, values: int) -> GenerationView:
    return GenerationView(
        n=one.n,
        key_id=one.key_id,
        state=one.state,
        since=one.since,
        made_by=one.made_by,
        recovery_key_id=one.recovery_key_id,
        values=values,
        retired_at=one.retired_at,
    )


def _rotation(rotation: Rotation, generations: tuple[Generation, ...]) -> RotationView:
    return RotationView(
        key_id=next(one.key_id for one in generations if one.n == rotation.n),
        total=rotation.total,
        done=rotation.done,
        damaged=rotation.damaged,
        started_at=rotation.started_at,
        finished_at=rotation.finished_at,
    )
