"""A resolver without broker and secret manager: what it knows, records and reads is for the test to decide."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.dev.platform import DevIssuer
from services.resolver.api import ResolveRoute
from services.resolver.callers import Instances, Subjects
from services.resolver.decisions import Decisions
from services.resolver.domain.catalog_state import EMPTY_CATALOG, CatalogState
from services.resolver.domain.facts import Reference, Source
from services.resolver.domain.policy_state import EMPTY_POLICY, PolicyState
from services.resolver.domain.snapshot import Floor, Snapshot
from services.resolver.entries import Entry
from services.resolver.reads import Reads
from services.resolver.records import Draft, Position
from services.resolver.refusals import RefusalBudget
from services.resolver.resolution import Resolver
from services.resolver.sources.port import AnswerUnusable, ReadDenied, ReadFailed, ReadValue, ValueMissing
from services.resolver.state import catalog_apply, policy_apply
from services.resolver.trust import Trust, pinned
from shared import topics
from shared.crypto.secret import SecretBytes
from shared.crypto.signing import SigningKey
from shared.errors import RecordFailed
from shared.events.access import FIRST_PREV, Phase
from shared.events.registry import CATALOG_RECORDS, POLICY_RECORDS
from shared.identity import TokenVerifier
from shared.projection.fold import Fold
from shared.projection.records import registry
from tests.fakes.asgi import nothing_there
from tests.fakes.estate import Estate
from tests.fakes.gateway import FakeGateway

AUDIENCE = "http://resolver.test"
RECORD_DEADLINE_S = 0.2


class FakeKnowledge:
    """`Knowledge` that learns when the test says so. `staleness` is what it answers when asked."""

    def __init__(self, trust: Trust) -> None:
        self.policy: PolicyState = EMPTY_POLICY
        self.catalog: CatalogState = EMPTY_CATALOG
        self.staleness: str | None = None
        self._apply = policy_apply(trust, time.monotonic)
        self._policy_fold = Fold(registry(*POLICY_RECORDS), lambda _: None)
        self._catalog_fold = Fold(registry(*CATALOG_RECORDS), lambda _: None)
        self._learned = 0
        self._moved = asyncio.Event()
        self.waited_for: list[Floor] = []

    def learn(self, estate: Estate, *, up_to: int | None = None) -> None:
        """Take in what the estate wrote since the last time."""
        news = estate.messages[self._learned : up_to]
        self._learned += len(news)
        for change in self._policy_fold.feed([one for one in news if one.topic == topics.POLICY], at_end=True):
            self.policy = self._apply(self.policy, change)
        for change in self._catalog_fold.feed([one for one in news if one.topic == topics.CATALOG], at_end=True):
            self.catalog = catalog_apply(self.catalog, change)
        self._moved.set()

    def snapshot(self) -> Snapshot:
        """See `Knowledge`."""
        return Snapshot(Floor(self._policy_fold.seq, self._catalog_fold.seq), self.policy, self.catalog)

    def stale(self) -> str | None:
        """See `Knowledge`."""
        return self.staleness

    async def reach(self, floor: Floor, *, within_s: float) -> bool:
        """See `Knowledge`."""
        self.waited_for.append(floor)
        try:
            async with asyncio.timeout(within_s):
                while not self.snapshot().floor.covers(floor):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True


class FakeLog:
    """`AccessLog` that keeps everything. While `held` nothing becomes durable yet; when `down`, nothing ever does."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.held: asyncio.Event | None = None
        self.down = False
        self._prev = FIRST_PREV

    def hold(self) -> asyncio.Event:
        """Make nothing durable until the returned event is set."""
        self.held = asyncio.Event()
        return self.held

    def write(self, entry: Entry, *, kept: bool = False) -> Draft:
        """See `AccessLog`."""
        n = len(self.entries)
        self.entries.append(entry)
        payload = entry.payload(stream="access/fake/run", n=n, prev=self._prev, at=datetime.now(UTC))
        self._prev = hashlib.sha256(payload).hexdigest()
        draft = Draft(entry, kept, numbered=True)
        if not self.down:
            draft.done.set_result(Position("access/fake/run", n, self._prev))
        return draft

    async def durable(self, draft: Draft) -> Position:
        """See `AccessLog`."""
        if self.held is not None:
            await self.held.wait()
        try:
            async with asyncio.timeout(RECORD_DEADLINE_S):
                return await draft.done
        except TimeoutError:
            raise RecordFailed from None

    def phases(self) -> list[Phase]:
        """What was recorded, in order."""
        return [entry.phase for entry in self.entries]


@dataclass(slots=True)
class Pending:
    """A read that has begun and waits for the test."""

    reference: str
    _result: asyncio.Future[ReadValue] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def answer(self, value: str, version: str) -> ReadValue:
        """The source answers; returns what the resolver now holds."""
        read = ReadValue(SecretBytes(value.encode()), version)
        self._result.set_result(read)
        return read

    def fail(self, error: ReadFailed) -> None:
        """The source fails."""
        self._result.set_exception(error)

    async def outcome(self) -> ReadValue:
        """What the resolver waits for."""
        return await self._result


@dataclass(slots=True)
class Secret:
    """One secret: what each version holds, None for one that was deleted."""

    versions: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    current: int = 0


class FakeVault:
    """`ValueReader` on secrets in memory. With `by_hand` every read waits for the test, `failure` fails them all."""

    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}
        self.denied: set[str] = set()
        self.by_hand = False
        self.pending: list[Pending] = []
        self.handed_out: list[ReadValue] = []
        self.failure: ReadFailed | None = None

    def write(self, path: str, values: Mapping[str, Any], *, version: int | None = None) -> int:
        """A new version of a secret: the next one, or the one given."""
        secret = self.secrets.setdefault(path, Secret())
        secret.current = secret.current + 1 if version is None else version
        secret.versions[secret.current] = dict(values)
        return secret.current

    def put(self, reference: str, value: str, version: str = "1") -> None:
        """A new version of the secret behind the reference `<path>/<key>`; other keys stay."""
        path, _, key = reference.rpartition("/")
        secret = self.secrets.get(path, Secret())
        self.write(path, (secret.versions.get(secret.current) or {}) | {key: value}, version=int(version))

    def delete(self, path: str) -> None:
        """The newest version can't be read any more."""
        secret = self.secrets[path]
        secret.versions[secret.current] = None

    async def read(self, source: Source, reference: Reference, *, version: str | None = None) -> ReadValue:
        """See `ValueReader`."""
        del source
        read = await self._outcome(reference, version)
        self.handed_out.append(read)
        return read

    async def _outcome(self, reference: Reference, version: str | None) -> ReadValue:
        if self.by_hand:
            pending = Pending(reference.name)
            self.pending.append(pending)
            return await pending.outcome()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if reference.path in self.denied:
            raise ReadDenied
        secret = self.secrets.get(reference.path, Secret())
        number = secret.current if version is None else int(version)
        entries = secret.versions.get(number)
        if entries is None:
            raise ValueMissing
        return ReadValue(SecretBytes(as_bytes(chosen(entries, reference.key))), str(number))


def chosen(entries: Mapping[str, Any], key: str | None) -> object:
    """What a reference means in a secret: the named key, or the only one."""
    if key is None:
        if len(entries) != 1:
            raise AnswerUnusable
        return next(iter(entries.values()))
    if key not in entries:
        raise ValueMissing
    return entries[key]


def as_bytes(entry: object) -> bytes:
    """Text as UTF-8, anything else as compact JSON."""
    return entry.encode() if isinstance(entry, str) else json.dumps(entry, separators=(",", ":")).encode()


@dataclass(slots=True)
class Bench:
    """A resolver on fakes, and a gateway that asks it."""

    estate: Estate
    issuer: DevIssuer
    knowledge: FakeKnowledge
    log: FakeLog
    vault: FakeVault
    resolver: Resolver
    gateway: FakeGateway

    def learn(self) -> None:
        """The resolver applies everything that was written."""
        self.knowledge.learn(self.estate)

    def token(self, *groups: str, subject: str = "agent", ttl_s: float = 3600) -> str:
        """A token of somebody in these groups."""
        return self.issuer.token(subject, groups or ("hospital-a-staff",), ttl_s)

    def reasons(self) -> list[tuple[Phase, str]]:
        """What was recorded, in order, with reasons."""
        return [(entry.phase, entry.reason) for entry in self.log.entries]


def bench(estate: Estate, issuer: DevIssuer, *, clock: Callable[[], float] = time.time) -> Bench:
    """Wire a resolver on fakes that knows everything the estate wrote so far, with one gateway enrolled."""
    identity = estate.instance()
    trust = pinned(
        policy_key=estate.policy_key.verify_key.to_base64(), catalog_key=estate.catalog_key.verify_key.to_base64()
    )
    key = SigningKey.generate()
    knowledge, log, vault = FakeKnowledge(trust), FakeLog(), FakeVault()

    async def fetch(_: str) -> dict[str, object]:
        return issuer.jwks()

    resolver = Resolver(
        knowledge=knowledge,
        decisions=Decisions(trust),
        instances=Instances(trust),
        subjects=Subjects(TokenVerifier(fetch_jwks=fetch), trust),
        log=log,
        budget=RefusalBudget(log),
        reads=Reads({"kv2": vault}),
        signing_key=key,
        floor_wait_s=0.1,
        lease_ttl_s=900.0,
        clock=clock,
    )
    gateway = FakeGateway(identity, AUDIENCE, key.verify_key, ResolveRoute(resolver.resolve, AUDIENCE, nothing_there))
    made = Bench(estate, issuer, knowledge, log, vault, resolver, gateway)
    made.learn()
    return made
