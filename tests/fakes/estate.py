"""An installation's records without its services: signed, numbered and in order, as policy and sync would write them.

Everything is kept as contract models; `messages` is what the two topics would hold, oldest first.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import record_signer, to_header
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.delivery import certify_sealing_key
from shared.events.catalog import KvSource, ReferenceRecord, ReferenceState, SourceRecord
from shared.events.contract import StateRecord
from shared.events.definitions import Definition, EnvironmentField, StdioServer, definition_digest
from shared.events.policy import (
    ANY_SERVER,
    BindingRecord,
    GrantRecord,
    IdpRecord,
    InstanceRecord,
    MappingRecord,
    Origin,
    ProfileRecord,
    ReferenceOrigin,
    ServerRecord,
    TickRecord,
    VariableRecord,
)
from shared.projection import digest

SOURCES = {topics.POLICY: "keyfob/policy", topics.CATALOG: "keyfob/sync"}


def patients_db(*fields: str) -> StdioServer:
    """A server that takes these environment variables."""
    return StdioServer(command="mcp-alchemy", fields=tuple(EnvironmentField(name=name) for name in fields))


@dataclass(slots=True)
class InstanceIdentity:
    """The private half of an enrolled instance."""

    id: str
    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)


@dataclass(slots=True)
class Estate:
    """Writes records. Ids are `<kind>/<name>`, so that tests read like rules."""

    policy_key: SigningKey = field(default_factory=SigningKey.generate)
    catalog_key: SigningKey = field(default_factory=SigningKey.generate)
    issuer: str = "https://idp.example"
    origin: str = "http://127.0.0.1:8200"
    seqs: dict[str, int] = field(default_factory=lambda: {topics.POLICY: 0, topics.CATALOG: 0})
    live: dict[str, tuple[StateRecord, bytes]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    digest: int = 0

    def write(self, model: type[StateRecord], id_: str, *, signed_by: SigningKey | None = None, **said: Any) -> Message:
        """One commit with one record; a later one of the same id replaces it."""
        topic = model.TOPIC
        seq = self.seqs[topic] = self.seqs[topic] + 1
        known = self.live.get(id_)
        record = model(id=id_, seq=seq, revision=known[0].revision + 1 if known else 1, **said)
        key = signed_by or (self.policy_key if topic == topics.POLICY else self.catalog_key)
        message = signed_message(record, key)
        if model is not TickRecord:
            self.keep(record, message.value)
        self.messages.append(message)
        return message

    def keep(self, record: StateRecord, payload: bytes) -> None:
        """What is live now, and policy's digest of it."""
        before = self.live.pop(record.id, None)
        if record.TOPIC == topics.POLICY and before is not None:
            self.digest = digest.remove(self.digest, digest.entry(record.id, before[1]))
        if record.deleted:
            return
        self.live[record.id] = (record, payload)
        if record.TOPIC == topics.POLICY:
            self.digest = digest.add(self.digest, digest.entry(record.id, payload))

    def again(self, id_: str, **changed: Any) -> Message:
        """The same record with some fields changed."""
        record, _ = self.live[id_]
        said = {name: getattr(record, name) for name in type(record).model_fields}
        for fixed in ("id", "seq", "revision"):
            del said[fixed]
        return self.write(type(record), id_, **(said | changed))

    def end(self, id_: str) -> Message:
        """The record is deleted."""
        return self.again(id_, deleted=True)

    def tick(self, *, at: datetime | None = None) -> Message:
        """Policy's signed tick over everything that is live now."""
        return self.write(TickRecord, "tick", at=at or datetime.now(UTC), digest=digest.text(self.digest))

    def idp(self, name: str = "okta", **said: Any) -> Message:
        """An identity provider of ours."""
        defaults: dict[str, Any] = {"name": name, "issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
        return self.write(IdpRecord, f"idp/{name}", **(defaults | said))

    def profile(self, name: str, *, group: str | None = None, idp: str = "okta") -> None:
        """A profile, and the group that has it."""
        self.write(ProfileRecord, f"profile/{name}", name=name)
        if group is not None:
            self.mapping(group, name, idp=idp)

    def mapping(self, group: str, profile: str, *, idp: str = "okta") -> Message:
        """A group has a profile."""
        said: dict[str, Any] = {"idp_id": f"idp/{idp}", "group": group, "profile_id": f"profile/{profile}"}
        return self.write(MappingRecord, f"mapping/{group}-{profile}", **said)

    def server(self, name: str = "patients-db", definition: Definition | None = None) -> Message:
        """A server; with one field DB_URL unless another definition is given."""
        defined = definition or patients_db("DB_URL")
        said: dict[str, Any] = {
            "name": name,
            "owner": "platform",
            "definition": defined,
            "digest": definition_digest(defined),
        }
        return self.write(ServerRecord, f"server/{name}", **said)

    def source(self, name: str = "vault", **said: Any) -> Message:
        """A KV source at the estate's origin."""
        defaults: dict[str, Any] = {"name": name, "place": KvSource(origin=self.origin)}
        return self.write(SourceRecord, f"source/{name}", **(defaults | said))

    def reference(self, name: str, *, version: str = "1", source: str = "vault", **said: Any) -> Message:
        """A reference `<path>/<key>`."""
        path, _, key = name.rpartition("/")
        defaults: dict[str, Any] = {
            "name": name,
            "source_id": f"source/{source}",
            "path": path or name,
            "key": key if path else None,
            "version": version,
            "state": ReferenceState.ACTIVE,
            "changed_at": datetime.now(UTC),
        }
        return self.write(ReferenceRecord, f"reference/{name}", **(defaults | said))

    def grant(self, profile: str, reference: str, *, id_: str | None = None, **limits: Any) -> Message:
        """A profile may use a reference."""
        said = {"profile_id": f"profile/{profile}", "reference_id": f"reference/{reference}"}
        return self.write(GrantRecord, id_ or f"grant/{profile}-{reference}", **(said | limits))

    def binding(self, profile: str, reference: str, *, server: str = "patients-db", field: str = "DB_URL") -> Message:
        """A field of a server comes from a reference, for the server's present definition."""
        origin = ReferenceOrigin(reference_id=f"reference/{reference}")
        return self.binding_to(profile, origin, server=server, field=field)

    def binding_to(
        self, profile: str, origin: Origin, *, server: str = "patients-db", field: str = "DB_URL"
    ) -> Message:
        """A field of a server comes from wherever, for the server's present definition."""
        record = self.live[f"server/{server}"][0]
        assert isinstance(record, ServerRecord)
        return self.write(
            BindingRecord,
            f"binding/{profile}-{server}-{field}",
            profile_id=f"profile/{profile}",
            server_id=record.id,
            field=field,
            origin=origin,
            definition_digest=record.digest,
        )

    def variable(self, name: str, **labels: str) -> Message:
        """Bindings may name this environment variable, on instances with these labels."""
        return self.write(VariableRecord, f"variable/{name}", name=name, labels=labels)

    def instance(self, name: str = "gateway-1", **said: Any) -> InstanceIdentity:
        """An enrolled gateway that may run every server."""
        identity = InstanceIdentity(f"instance/{name}")
        certificate = certify_sealing_key(identity.signing, identity.sealing.public)
        defaults: dict[str, Any] = {
            "name": name,
            "signing_key": identity.signing.verify_key.to_base64(),
            "sealing_key": identity.sealing.public.to_base64(),
            "sealing_certificate": certificate,
            "allowed_servers": (ANY_SERVER,),
            "enrolled_at": datetime.now(UTC),
        }
        self.write(InstanceRecord, identity.id, **(defaults | said))
        return identity


def signed_message(record: StateRecord, key: SigningKey, *, part: str = "1/1") -> Message:
    """The record as the outbox would send it."""
    payload = record.to_json()
    key_id, signature = record_signer(key)(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
    return encode(
        record,
        payload=payload,
        key=record.id,
        source=SOURCES[record.TOPIC],
        event_id=str(uuid.uuid4()),
        extensions={
            "commitseq": str(record.seq),
            "commitpart": part,
            "commitid": str(uuid.uuid4()),
            "keyid": key_id,
            "signature": to_header(signature),
        },
    )


async def publish_all(producer: AIOKafkaProducer, messages: Iterable[Message]) -> None:
    """Publish in order and wait until all are durable."""
    sent = [
        await producer.send(
            message.topic,
            message.value,
            None if message.key is None else message.key.encode(),
            headers=list(message.headers),
        )
        for message in messages
    ]
    for acknowledged in sent:
        await acknowledged


def hospitals(*, origin: str | None = None, issuer: str | None = None) -> Estate:
    """Two hospitals, each with a profile, a reference and a grant, and the one server that both use."""
    estate = Estate(issuer=issuer or "https://idp.example", origin=origin or "http://127.0.0.1:8200")
    estate.idp()
    estate.server()
    estate.source()
    for name in ("hospital-a", "hospital-b"):
        estate.profile(name, group=f"{name}-staff")
        estate.reference(f"{name}/db-dsn")
        estate.grant(name, f"{name}/db-dsn")
        estate.binding(name, f"{name}/db-dsn")
    return estate
