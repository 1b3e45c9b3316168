"""Gateway clients in the test's own process: the client part of a gateway, as another gateway would use it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from services.dev.stack import Stack
from services.gateway.client.enrolment import enrol
from services.gateway.client.identity import Identity
from services.gateway.client.instance import ATTEMPTS, Holding, Instance
from services.gateway.client.leases import Fenced, Floor
from services.gateway.client.ledger import Ledger
from services.gateway.client.posting import HttpPost
from services.gateway.client.receipts import ReceiptWriter
from services.gateway.client.resolving import Refused, Resolvers, Wanted
from shared import topics
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, connect, disconnect, publish
from shared.bus.whole_topic import FromEnd, WholeTopicReader
from shared.delivery.messages import ResolveAnswer
from shared.errors import NotFresh, Unavailable
from shared.events.receipts import LeaseEnd
from tests.waiting import until

DEADLINE_S = 6.0
"""What a resolve may take in all; beyond it, it hangs."""
CALM_S = 0.2
"""Between two resolves of a client that is only kept busy."""
BURST = 8


@dataclass(frozen=True, slots=True)
class Told:
    """One answer that a resolver gave: the record it rests on, and the leases that it opened."""

    stream: str
    n: int
    hash: str
    leases: frozenset[str]


class Listening(Resolvers):
    """Resolvers whose every answer is remembered, discarded ones included: each was a release."""

    told: list[Told]

    async def ask(self, token: str, wanted: Wanted, floor: Floor, *, traceparent: str | None = None) -> ResolveAnswer:
        answer = await Resolvers.ask(self, token, wanted, floor, traceparent=traceparent)
        record = answer.record
        leases = frozenset(one.lease.id for one in answer.fields)
        self.told.append(Told(record.stream, record.n, record.hash, leases))
        return answer


@dataclass(slots=True)
class Client:
    """One enrolled instance that holds at most one value, and lets go of it the moment it is told to."""

    instance: Instance
    resolvers: Listening
    post: HttpPost
    token: str = field(repr=False)
    wanted: Wanted
    held: Holding | None = None
    refusals: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    strange: list[str] = field(default_factory=list)
    """What no client may ever see."""

    @property
    def patience_s(self) -> float:
        """The longest that a resolve may take: each repetition after a notice that crossed it has its own deadline."""
        return ATTEMPTS * DEADLINE_S + 2

    def obey(self, fenced: tuple[Fenced, ...]) -> None:
        self.instance.end([one.lease.id for one in fenced], LeaseEnd.NOTICE)

    async def value(self) -> tuple[str, str]:
        """Value and version of a fresh resolve, held from now on."""
        holding = await self.instance.resolve(self.token, self.wanted)
        if self.held is not None:
            self.instance.let_go(self.held, LeaseEnd.REPLACED)
        with next(iter(holding.values.values())).reveal() as view:
            value = bytes(view).decode()
        self.held = holding
        return value, holding.leases[0].version

    async def attempt(self) -> tuple[str, str] | None:
        """The same; None for a refusal that trouble excuses. Anything else is remembered as strange."""
        began = time.monotonic()
        try:
            return await self.value()
        except Refused as refused:
            self.refusals[f"{refused.status} {refused.kind}"] += 1
            if refused.status != 503:
                self.strange.append(f"refused with {refused.status} {refused.kind}")
        except (Unavailable, NotFresh) as error:
            self.refusals[type(error).__name__] += 1
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return None

    async def burst(self) -> None:
        """Several resolves at once."""
        await asyncio.gather(*(self.attempt() for _ in range(BURST)))

    async def keep_busy(self) -> None:
        """Resolve for ever, one at a time."""
        while True:
            await self.attempt()
            await asyncio.sleep(CALM_S)


@asynccontextmanager
async def client(stack: Stack, name: str, *, token: str, wanted: Wanted) -> AsyncIterator[Client]:
    """An enrolled, running client; enrolled for good, so it must live as long as anybody awaits convergence."""
    kafka = KafkaSettings(bootstrap=stack.environments.kafka, client_id=name)
    producer = kafka.repeating_producer()
    async with HttpPost() as post:
        identity = await _enrolled(stack, name, post)

        async def publish_receipt(message: Message) -> None:
            await publish(producer, message, deadline_s=2.0)

        ledger = Ledger()
        urls = stack.environments.of("gateway-1")["KEYFOB_GATEWAY_RESOLVER_URLS"].split(",")
        resolvers = Listening(urls, identity, post, deadline_s=DEADLINE_S)
        resolvers.told = []
        receipts = ReceiptWriter(ledger, identity.instance_id, identity.keys.signing, publish_receipt)
        reader = WholeTopicReader(kafka, topics.NOTICES, start=FromEnd())
        instance = Instance(identity, reader, resolvers, receipts, ledger)
        running = Client(instance, resolvers, post, token, wanted)
        instance.on_fenced = running.obey
        await instance.start()
        await connect(producer, what="receipts")
        work = asyncio.create_task(instance.run(), name=name)
        try:
            await until(lambda: instance.not_ready() is None and receipts.trouble is None, within=30)
            yield running
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await disconnect(producer)


async def _enrolled(stack: Stack, name: str, post: HttpPost) -> Identity:
    body = {"name": name, "labels": {}, "allowed_servers": ["*"], "expires_in_s": 600}
    made = await stack.call("POST", "policy", "/v1/enrolments", body=body)
    where, policy = stack.layout.instance(name) / "identity", stack.environments.url("policy")
    return await enrol(where, policy_url=policy, token=made["token"], name=name, post=post)
