"""Sync's HTTP front on fakes: requests go in as a server would hand them over, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from fastapi import FastAPI

from services.sync.api.routes import Desk, add_routes
from services.sync.domain.commits import Edit
from services.sync.domain.ports import Connected, CoverageView, Edited, Receipt, ReferenceView, Run, RunPart, Wanted
from services.sync.handlers.connections import Connections
from services.sync.sources.port import Reached
from shared.administration import AdminGuard
from shared.config import AdminSettings, Mode
from shared.errors import Conflict, TokenInvalid
from shared.events.catalog import KvSource, ReferenceRecord, ReferenceState, SourceRecord
from shared.health import Readiness
from shared.identity.tokens import Subject
from shared.serving import application
from tests.fakes.asgi import Reply, call

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
GROUPS: Final = {
    "admin": frozenset({"keyfob-admins"}),
    "operator": frozenset({"keyfob-operators"}),
    "auditor": frozenset({"keyfob-auditors"}),
    "nobody": frozenset({"ward-3"}),
}
"""Who the tokens of these names speak for; every other token is refused."""


class FakeVerifier:
    async def verify(self, token: str) -> Subject:
        if token not in GROUPS:
            raise TokenInvalid
        return Subject("idp/administrators", token, GROUPS[token], 2e9, b"digest")


@dataclass(slots=True)
class FakeCatalog:
    """`Views` and `Register` in memory."""

    sources_: dict[str, SourceRecord] = field(default_factory=dict)
    references_: dict[str, ReferenceView] = field(default_factory=dict)
    seq: int = 0
    edits: list[Edit] = field(default_factory=list)

    async def sources(self, *, after: str, limit: int) -> tuple[SourceRecord, ...]:
        return tuple(sorted((one for one in self.sources_.values() if one.name > after), key=lambda one: one.name))[
            :limit
        ]

    async def source(self, text: str) -> SourceRecord | None:
        return next((one for one in self.sources_.values() if text in {one.id, one.name}), None)

    async def references(self, wanted: Wanted, *, after: str, limit: int) -> tuple[ReferenceView, ...]:
        fitting = (
            one
            for one in self.references_.values()
            if one.name > after
            and wanted.source in {None, one.source}
            and wanted.state in {None, one.state}
            and (wanted.name or "").lower() in one.name.lower()
        )
        return tuple(sorted(fitting, key=lambda one: one.name))[:limit]

    async def reference(self, reference_id: str) -> ReferenceView | None:
        return self.references_.get(reference_id)

    async def coverage(self) -> tuple[CoverageView, ...]:
        return tuple(
            CoverageView(
                source=one.name, source_id=one.id, reachable=one.reachable, why="", references=0, active=0,
                pending_deletion=0, unreadable=0, gone=0, surveyed_at=None, survey_s=0, seen=0, denied_folders=0,
                older=0, keys_visible=None, feed_at=None, feed_messages=0, found_by_feed=0, found_by_sweep=0,
                found_by_manual=0,
            )
            for one in self.sources_.values()
        )  # fmt: skip

    async def connect(self, name: str, place: KvSource) -> Connected:
        found = await self.source(name)
        if found is None:
            self.seq += 1
            found = SourceRecord(id=f"source/{self.seq:032x}", seq=self.seq, revision=1, name=name, place=place)
            self.sources_[found.id] = found
        elif found.place != place:
            raise Conflict("Another source has that name: remove it first, or choose another name.")
        return Connected(found, Receipt(entity_id=found.id, seq=found.seq))

    async def disconnect(self, source_id: str) -> Receipt | None:
        if self.sources_.pop(source_id, None) is None:
            return None
        self.seq += 1
        return Receipt(entity_id=source_id, seq=self.seq, event_id="change/1")

    async def edit(self, reference_id: str, edit: Edit) -> Edited | None:
        view = self.references_.get(reference_id)
        if view is None:
            return None
        self.seq += 1
        self.edits.append(edit)
        wanted = {"name": edit.name, "owner": edit.owner, "description": edit.description}
        changed = {name: text for name, text in wanted.items() if text is not None}
        self.references_[reference_id] = replace(view, seq=self.seq, **changed)
        record = ReferenceRecord(
            id=reference_id, seq=self.seq, revision=2, name="x", source_id="source/1", path="x", version="1",
            changed_at=NOW,
        )  # fmt: skip
        return Edited(record, Receipt(entity_id=reference_id, seq=self.seq))

    def has(self, name: str, *, source: str = "main", state: ReferenceState = ReferenceState.ACTIVE) -> ReferenceView:
        """Let there be a reference."""
        view = ReferenceView(
            id=f"reference/{len(self.references_):032x}", name=name, source=source, source_id=f"source/{source}",
            path=name, key=None, version="3", state=state, successor_id=None, owner="", description="", changed_at=NOW,
            seq=1,
        )  # fmt: skip
        self.references_[view.id] = view
        return view


@dataclass(slots=True)
class FakeRunDesk:
    asked: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    waited: list[float] = field(default_factory=list)

    async def ask(self, sources: Collection[str], *, asked_by: str) -> Run:
        self.asked.append((tuple(sources), asked_by))
        parts = tuple(RunPart(source=one, state="done", seen=2, changed=1) for one in sources)
        run = Run(id="sync/1", state="running", asked_by=asked_by, asked_at=NOW, ended_at=None, parts=parts)
        self.runs[run.id] = run
        return run

    async def wait(self, run_id: str, *, within_s: float) -> Run | None:
        self.waited.append(within_s)
        return self.runs.get(run_id)


@dataclass(slots=True)
class FakeReader:
    """What every place looks like when it is connected."""

    outcome: Any = field(default_factory=Reached)
    places: list[KvSource] = field(default_factory=list)

    def __call__(self, name: str, place: KvSource) -> FakeReader:
        del name
        self.places.append(place)
        return self

    async def check(self) -> Any:
        await asyncio.sleep(0)
        return self.outcome


class FakeKeepers:
    def __init__(self) -> None:
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1


class _Port:
    """Stands for a port of the front that a test has made last: making an application takes longer than a test."""

    stands_for: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stands_for, name)


_CATALOG, _RUNS, _CONNECTIONS = _Port(), _Port(), _Port()


@cache
def front_app() -> FastAPI:
    """All routes of sync's admin API."""
    app = application("sync", lifespan=contextlib.nullcontext, readiness=Readiness())
    desk = Desk(views=_CATALOG, register=_CATALOG, connections=_CONNECTIONS, runs=_RUNS)  # type: ignore[arg-type]
    add_routes(app, desk, AdminGuard(FakeVerifier(), AdminSettings()))  # type: ignore[arg-type]
    return app


@dataclass(slots=True)
class Front:
    """The application with fakes behind it. Calls are an administrator's unless a token is given."""

    mode: Mode = Mode.PRODUCTION
    catalog: FakeCatalog = field(default_factory=FakeCatalog)
    runs: FakeRunDesk = field(default_factory=FakeRunDesk)
    reader: FakeReader = field(default_factory=FakeReader)
    keepers: FakeKeepers = field(default_factory=FakeKeepers)

    def __post_init__(self) -> None:
        _CATALOG.stands_for, _RUNS.stands_for = self.catalog, self.runs
        _CONNECTIONS.stands_for = Connections(
            register=self.catalog,
            views=self.catalog,
            keepers=self.keepers,  # type: ignore[arg-type]
            readers={"kv2": self.reader},  # type: ignore[dict-item]
            mode=self.mode,
        )

    async def send(self, method: str, path: str, body: object = None, *, token: str = "admin") -> Reply:
        """The whole answer, whatever it is."""
        headers = [("authorization", f"Bearer {token}")] if token else []
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = [*headers, ("content-type", "application/json")]
        return await call(front_app(), method, path, headers=headers, body=sent)

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = "admin", expect: int | None = None
    ) -> Any:
        """The JSON of an answer that must be good, or must have the status `expect`."""
        reply = await self.send(method, path, body, token=token)
        wanted = {200, 201, 202} if expect is None else {expect}
        assert reply.status in wanted, (method, path, reply.status, reply.body[:300])
        return json.loads(reply.body)
