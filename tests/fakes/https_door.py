"""The door for instances of the profile `https` on fakes: a resolver's bench, a topic, a place for receipts."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI

from services.resolver.https_only.feed import NoticeFeed
from services.resolver.https_only.inbox import Inbox
from services.resolver.https_only.routes import Door, https_only
from services.resolver.https_only.streams import Streams
from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import record_signer
from shared.bus.whole_topic import Batch
from shared.crypto.framing import to_base64url
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.notices import Notice, NoticeTick
from shared.events.policy import DeliveryProfile, TickRecord
from shared.health import Readiness
from shared.mutual_tls import PEER, Peer
from tests.fakes.asgi import Reply, call
from tests.fakes.installation import Notices, revocation
from tests.fakes.pki import Authority, authority
from tests.fakes.resolving import Bench

INSTANCE = "instance/plain-1"


@dataclass
class Topic(Notices):
    """`notices` as the notifier writes it."""

    policy_key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        super().__init__()
        self.seq = 0

    def tick(self, *, by: SigningKey | None = None) -> int:
        self.seq += 1
        record = TickRecord(id="tick", seq=self.seq, revision=1, at=datetime.now(UTC), digest="0" * 64)
        payload = record.to_json()
        key_id, signature = record_signer(by or self.policy_key)(
            topic=topics.POLICY, type_=record.TYPE, key=record.id, payload=payload
        )
        return self.say(NoticeTick(payload=payload, signature=signature, key_id=key_id))

    def revoke(self, *ended: str) -> int:
        self.seq += 1
        return self.say(revocation(*ended, seq=self.seq))

    def say(self, contract: Notice | NoticeTick) -> int:
        return self.append(encode(contract, key=None, source="keyfob/notifier", event_id=secrets.token_hex(4)))

    def rubbish(self) -> int:
        headers = (("ce_specversion", b"1.0"), ("ce_type", Notice.TYPE.encode()))
        return self.append(Message(topic=topics.NOTICES, key=None, value=b"{", headers=headers))

    def marker(self) -> None:
        self.end += 1
        self.put(Batch((), self.end, at_end=True))


@dataclass
class HttpsDoor:
    """What a test needs of the door, and of one instance at it."""

    bench: Bench
    authority: Authority
    topic: Topic
    feed: NoticeFeed
    streams: Streams
    published: list[Message]
    app: FastAPI
    certificates: dict[str, bytes] = field(default_factory=dict)
    aborted: int = 0
    now: float = 0.0
    broker_away: bool = False

    def enrol(self, name: str = "plain-1", **said: Any) -> bytes:
        """Let an instance in; its certificate, DER."""
        instance_id = f"instance/{name}"
        der = self.certificate(instance_id)
        keys = {"signing_key": "", "sealing_key": "", "sealing_certificate": ""}
        profile = {"delivery": DeliveryProfile.HTTPS, "certificate": to_base64url(der)}
        self.bench.estate.instance(name, **(keys | profile | said))
        self.bench.learn()
        self.certificates[instance_id] = der
        return der

    def certificate(self, instance_id: str) -> bytes:
        """A certificate for whoever is named, signed by the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self.authority.instance_ca().issue(key.public_key(), instance_id=instance_id, now=datetime.now(UTC))
        return issued.public_bytes(Encoding.DER)

    async def ask(
        self, method: str, path: str, body: object = None, *, peer: bytes | None = None, **headers: str
    ) -> Reply:
        """One request over a connection of the instance, or of who has the certificate `peer`; b"" for nobody."""
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        der = self.certificates[INSTANCE] if peer is None else peer
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        state = {PEER: Peer(der, self._abort)} if der else {}
        return await call(self.app, method, path, headers=named, body=sent, state=state)

    async def resolve(self, *, token: str | None = None, peer: bytes | None = None, **wish: Any) -> Reply:
        bearer = f"Bearer {token or self.bench.token()}"
        return await self.ask("POST", "/v1/resolve", {"server": "patients-db"} | wish, peer=peer, authorization=bearer)

    def receipt(self, **said: Any) -> dict[str, Any]:
        usual = {"run": "run/1", "n": 0, "applied_offset": -1, "dropped_offset": -1, "open_leases": 0}
        return usual | {"at": datetime.now(UTC).isoformat()} | said

    async def publish(self, message: Message) -> None:
        if self.broker_away:
            raise Unavailable("the bus did not acknowledge")
        self.published.append(message)

    def _abort(self) -> None:
        self.aborted += 1


def https_door(bench: Bench, directory: Path, *, kept: int = 100) -> HttpsDoor:
    """A door with one instance enrolled; its feed is not running."""
    topic = Topic()
    feed = NoticeFeed(topic, topic.policy_key.verify_key, kept=kept)
    made: HttpsDoor
    streams = Streams(feed, lambda: made.now)

    async def publish(message: Message) -> None:
        await made.publish(message)

    door = Door(
        knowledge=bench.knowledge,
        instances=bench.resolver.instances,
        resolve=bench.resolver.resolve,
        streams=streams,
        inbox=Inbox(feed, bench.resolver.signing_key, publish),
    )
    app = https_only(door, Readiness())
    made = HttpsDoor(bench, authority(directory, "instance-ca"), topic, feed, streams, [], app)
    made.enrol()
    return made


async def heard(feed: NoticeFeed, offset: int) -> None:
    """Wait until the feed has read so far."""
    async with asyncio.timeout(5):
        assert await feed.reach(offset, within_s=5)
