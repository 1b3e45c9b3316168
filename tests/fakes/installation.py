"""A whole Keyfob that fits into a test: one policy key, one resolver, one topic of notices, a place for receipts.

The resolver verifies assertions, seals and signs with the real code; what it answers is the test's own decision.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from services.gateway.client.environment import NO_ENVIRONMENT, Environment
from services.gateway.client.fence import TickFence
from services.gateway.client.identity import Identity, Keys
from services.gateway.client.instance import Instance
from services.gateway.client.leases import Moment
from services.gateway.client.ledger import Ledger
from services.gateway.client.posting import Posted
from services.gateway.client.receipts import ReceiptWriter
from services.gateway.client.resolving import Resolvers
from shared import topics
from shared.bus.cloudevents import Message, decode, encode
from shared.bus.signatures import record_signer
from shared.bus.whole_topic import Batch, Read
from shared.crypto.sealing import SealingKey
from shared.crypto.secret import SecretBytes
from shared.crypto.signing import SigningKey
from shared.delivery import assertion, envelope, messages
from shared.delivery.messages import EnrolAnswer, ResolveAnswer, ResolveRequest
from shared.delivery.replay import ReplayWindow
from shared.errors import KeyfobError, NotAvailable, TokenInvalid
from shared.events.definitions import HttpServer, StdioServer, definition_digest
from shared.events.notices import Notice, NoticeTick
from shared.events.policy import ServerRecord, TickRecord
from shared.events.receipts import GatewayReceipt
from shared.problems import problem_body

INSTANCE = "instance/one"
RESOLVER = "http://resolver.test"


@dataclass
class Reference:
    """What the fake secret manager holds."""

    id: str
    value: bytes
    version: str = "1"


@dataclass
class Variable:
    """A field that the instance reads from its own environment."""

    name: str

    @property
    def id(self) -> str:
        return f"variable/{self.name}"


@dataclass
class Allowed:
    """What one token may have: context → field → where it comes from."""

    subject: str
    contexts: dict[str, dict[str, Reference | Variable]]
    expires_at: float = field(default_factory=lambda: time.time() + 3600)
    rests_on: tuple[str, ...] = ()


class Clock:
    """Both clocks of an instance. They run with the real ones, and jump where a test says so."""

    def __init__(self) -> None:
        self.monotonic = self.wall = 0.0

    def __call__(self) -> Moment:
        return Moment(time.monotonic() + self.monotonic, time.time() + self.wall)

    def forward(self, seconds: float) -> None:
        """So much time passed."""
        self.monotonic += seconds
        self.wall += seconds


class Notices:
    """The topic: `say` appends to it, the instance reads it."""

    def __init__(self, first: int = 0) -> None:
        self.end = first
        self.trouble: str | None = None
        self._reads: asyncio.Queue[Read] = asyncio.Queue()

    async def open(self) -> int:
        return self.end

    async def __aiter__(self) -> AsyncIterator[Read]:
        while True:
            yield await self._reads.get()

    async def close(self) -> None:
        pass

    def put(self, read: Read) -> None:
        self._reads.put_nowait(read)

    def append(self, message: Message) -> int:
        offset, self.end = self.end, self.end + 1
        placed = Message(
            topic=message.topic, key=message.key, value=message.value, headers=message.headers, offset=offset
        )
        self.put(Batch((placed,), self.end, at_end=True))
        return offset


class Installation:
    """See the module. Nothing in it waits, except where a test puts something into `before_answer`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.policy_key = SigningKey.generate()
        self.resolver_key = SigningKey.generate()
        self.keys = Keys(SigningKey.generate(), SealingKey.generate())
        self.notices = Notices()
        self.receipts: list[GatewayReceipt] = []
        self.messages: list[Message] = []
        self.servers: dict[str, ServerRecord] = {}
        self.tokens: dict[str, Allowed] = {}
        self.policy_seq = 1
        self.catalog_seq = 1
        self.asked: list[ResolveRequest] = []
        self.lease_s = 900.0
        self.before_answer: Callable[[], object] = lambda: None
        self.refuse_all: KeyfobError | None = None
        self._seen = ReplayWindow()
        self._n = itertools.count()

    @property
    def identity(self) -> Identity:
        return Identity(
            self.keys,
            EnrolAnswer(
                instance_id=INSTANCE,
                labels={},
                allowed_servers=("*",),
                resolver_keys=(self.resolver_key.verify_key.to_base64(),),
                policy_key=self.policy_key.verify_key.to_base64(),
            ),
        )

    def instance(self, environment: Environment = NO_ENVIRONMENT, **settings: float) -> Instance:
        """An instance of this installation, not started."""
        ledger = Ledger()
        writer = ReceiptWriter(
            ledger,
            INSTANCE,
            self.keys.signing,
            self.publish,
            heartbeat_s=settings.get("heartbeat_s", 0.05),
            variables=environment.present,
        )
        resolvers = Resolvers([RESOLVER], self.identity, self.post, deadline_s=settings.get("deadline_s", 1.0))
        return Instance(
            self.identity,
            self.notices,
            resolvers,
            writer,
            ledger,
            TickFence(settings.get("fence_s", 60.0)),
            self.clock,
            environment=environment,
        )

    async def publish(self, message: Message) -> None:
        self.messages.append(message)
        self.receipts.append(decode(message, GatewayReceipt))

    # Policy

    def define(self, name: str, definition: StdioServer | HttpServer) -> ServerRecord:
        self.policy_seq += 1
        record = ServerRecord(
            id=f"server/{name}",
            seq=self.policy_seq,
            revision=1,
            name=name,
            owner="tests",
            definition=definition,
            digest=definition_digest(definition),
        )
        self.servers[name] = record
        return record

    def sign(self, record: ServerRecord) -> messages.SignedRecord:
        payload = record.to_json()
        key_id, signature = record_signer(self.policy_key)(
            topic=topics.POLICY, type_=record.TYPE, key=record.id, payload=payload
        )
        return messages.SignedRecord(type=record.TYPE, payload=payload, signature=signature, key_id=key_id)

    def tick(self, *, at: float | None = None, seq: int | None = None, key: SigningKey | None = None) -> int:
        """Policy's signed word, passed on by the notifier."""
        self.policy_seq += 1
        record = TickRecord(
            id="tick",
            seq=self.policy_seq if seq is None else seq,
            revision=1,
            at=datetime.fromtimestamp(self.clock().wall if at is None else at, UTC),
            digest="0" * 64,
        )
        payload = record.to_json()
        key_id, signature = record_signer(key or self.policy_key)(
            topic=topics.POLICY, type_=record.TYPE, key=record.id, payload=payload
        )
        return self.say(NoticeTick(payload=payload, signature=signature, key_id=key_id))

    def say(self, contract: Notice | NoticeTick, traceparent: str | None = None) -> int:
        """Append to `notices`; the offset."""
        event_id = str(next(self._n))
        return self.notices.append(
            encode(contract, key=None, source="keyfob/notifier", event_id=event_id, traceparent=traceparent)
        )

    # Resolver

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        token = headers["Authorization"].removeprefix("Bearer ")
        asserted = headers[assertion.HEADER]
        assertion.verify_assertion(
            asserted,
            assertion.Request("POST", "/v1/resolve", RESOLVER, body, token),
            key_of=lambda _: self.keys.signing.verify_key,
            seen=self._seen,
        )
        request = messages.parse_request(body, ResolveRequest)
        self.asked.append(request)
        try:
            answer = self.decide(token, request)
        except KeyfobError as error:
            return Posted(error.status, {"content-type": "application/problem+json"}, problem_body(error))
        sealed = envelope.seal_answer(
            messages.encode_answer(answer),
            instance_id=INSTANCE,
            instance_hpke_public=self.keys.sealing.public,
            resolver_signing_key=self.resolver_key,
            request_hash=envelope.request_hash(asserted.encode(), body),
        )
        going_on = self.before_answer()
        if asyncio.iscoroutine(going_on):
            await going_on
        return Posted(200, {}, sealed)

    def decide(self, token: str, request: ResolveRequest) -> ResolveAnswer:
        if self.refuse_all is not None:
            raise self.refuse_all
        allowed = self.tokens.get(token)
        if allowed is None:
            raise TokenInvalid
        name = request.context or next(iter(allowed.contexts), None)
        server = self.servers.get(request.server)
        if server is None or name not in allowed.contexts:
            raise NotAvailable
        fields = [self._field(allowed, name, one, reference) for one, reference in allowed.contexts[name].items()]
        return ResolveAnswer.model_construct(
            record=messages.RecordPosition(stream="stream/1", n=next(self._n), hash="00"),
            floor=messages.ReachedFloor(policy=self.policy_seq, catalog=self.catalog_seq),
            subject=messages.SubjectName(idp_id="idp/1", subject=allowed.subject),
            subject_expires_at=allowed.expires_at,
            context=messages.ContextName(profile_id=f"profile/{name}", name=name),
            server_id=server.id,
            server=self.sign(server),
            definition_digest=server.digest,
            fields=fields,
        )

    def _field(
        self, allowed: Allowed, context: str, name: str, reference: Reference | Variable
    ) -> messages.ResolvedField:
        stored = isinstance(reference, Reference)
        return messages.ResolvedField(
            name=name,
            value=SecretBytes(reference.value) if stored else None,
            variable=None if stored else reference.name,
            lease=messages.Lease(
                id=f"lease/{next(self._n)}",
                reference_id=reference.id,
                version=reference.version if stored else messages.IN_PLACE,
                expires_at=self.clock().wall + self.lease_s,
                rests_on=(f"grant/{context}/{allowed.subject}", f"profile/{context}", *allowed.rests_on),
            ),
        )

    # What happens in an installation

    def rotate(self, reference: Reference, value: bytes) -> Notice:
        """A new version; the notice is made, not yet said."""
        self.catalog_seq += 1
        reference.version, reference.value = str(int(reference.version) + 1), value
        return rotation(reference.id, reference.version, self.catalog_seq)

    def revoke(self, ended: str) -> Notice:
        """A record of policy ended; the notice is made, not yet said."""
        self.policy_seq += 1
        return revocation(ended, seq=self.policy_seq)


def rotation(reference_id: str, current: str | None, seq: int) -> Notice:
    return Notice.model_validate(
        {
            "id": f"notice/rotation-{seq}",
            "kind": "rotation",
            "cause_id": f"change/{seq}",
            "superseded": [{"reference_id": reference_id, "current": current}],
            "catalog_seq": seq,
            "at": datetime.now(UTC),
        }
    )


def revocation(*ended: str, seq: int) -> Notice:
    return Notice.model_validate(
        {
            "id": f"notice/revocation-{seq}",
            "kind": "revocation",
            "cause_id": f"change/{seq}",
            "ended": ended,
            "policy_seq": seq,
            "at": datetime.now(UTC),
        }
    )


def document(body: bytes) -> dict[str, object]:
    loaded = json.loads(body)
    assert isinstance(loaded, dict)
    return loaded


def script(path: Path, text: str) -> Path:
    """A program for a test."""
    path.write_text(text)
    path.chmod(0o755)
    return path
