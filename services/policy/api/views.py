"""What answers look like: records as they are in the topic, with the names that people know."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.policy.domain.enrolments import Enrolment, EnrolmentState
from services.policy.domain.kinds import links
from services.policy.domain.ports import Catalog, Reading
from shared.delivery.certificates import thumbprint_of
from shared.events.contract import Id, Instant
from shared.events.policy import (
    ANY_SERVER,
    BindingRecord,
    ChoiceRecord,
    DeliveryProfile,
    EnvironmentOrigin,
    GrantRecord,
    IdpRecord,
    InstanceRecord,
    LocalValueOrigin,
    MappingRecord,
    PolicyRecord,
    ProfileRecord,
    ReferenceOrigin,
    ServerRecord,
    VariableRecord,
)

V = TypeVar("V", bound=BaseModel)


class MappingView(MappingRecord):
    """A mapping with names."""

    idp_name: str = ""
    profile_name: str = ""


class GrantView(GrantRecord):
    """A grant with names."""

    profile_name: str = ""
    reference_name: str = ""
    server_name: str | None = None


class BindingView(BindingRecord):
    """A binding with names. One that is not `current` pins another definition than the present one: it is suspended."""

    profile_name: str = ""
    server_name: str = ""
    reference_name: str = ""
    """Empty where the value comes from elsewhere."""
    comes_from: str = ""
    """Where from, in words."""
    current: bool = False


class ChoiceView(ChoiceRecord):
    """A choice with names."""

    idp_name: str = ""
    profile_name: str = ""
    server_name: str = ""
    reference_name: str = ""


class InstanceView(InstanceRecord):
    """An instance with names."""

    server_names: tuple[str, ...] = ()
    certificate_sha256: str = ""
    """Of the certificate, in hex, as TLS tools show it."""


class EnrolmentView(BaseModel):
    """An enrolment. Its token was shown once and is not kept."""

    model_config = ConfigDict(frozen=True)

    id: Id
    name: str
    delivery: DeliveryProfile
    labels: dict[str, str]
    allowed_servers: tuple[str, ...]
    server_names: tuple[str, ...] = ()
    created_at: Instant
    expires_at: Instant
    state: EnrolmentState
    instance_id: str | None = None


class Listing(BaseModel, Generic[V]):
    """One page of a list; `next` is the `after` of the next one."""

    items: tuple[V, ...]
    next: str | None = None


class ReceiptView(BaseModel):
    """What was committed. Wait for the convergence of `event_id` at the notifier; `ended` are ids that ended."""

    model_config = ConfigDict(frozen=True)

    entity_id: Id
    seq: int
    event_id: Id
    ended: tuple[Id, ...] = ()


class Changed(ReceiptView, Generic[V]):
    """What was committed, and the entity as it is now."""

    entity: V


class Promise(ReceiptView):
    """A new enrolment; the token is shown this once."""

    token: Annotated[str, Field(repr=False)]
    expires_at: Instant
    entity: EnrolmentView


class Namer:
    """Puts names into records; one look-up for a whole page."""

    def __init__(self, names: dict[str, str], digests: dict[str, str], catalog: Catalog) -> None:
        self._names = names
        self._digests = digests
        self._catalog = catalog

    @classmethod
    async def of(cls, reading: Reading, catalog: Catalog, records: Iterable[PolicyRecord]) -> Namer:
        """A namer for these records."""
        records = tuple(records)
        targets = {target for record in records for target in links(record)}
        targets |= {one for record in records if isinstance(record, InstanceRecord) for one in record.allowed_servers}
        digests = {}
        for server_id in {record.server_id for record in records if isinstance(record, BindingRecord)}:
            # Records carry no server's digest of now: it is what tells a suspended binding from one that stands.
            server = await reading.get(ServerRecord, server_id)
            digests[server_id] = "" if server is None else server.digest
        return cls(await reading.names(targets), digests, catalog)

    def view(self, record: PolicyRecord) -> PolicyRecord:
        """The record with names; those of entities that are gone are empty."""
        said = record.model_dump()
        match record:
            case MappingRecord():
                return MappingView(
                    **said, idp_name=self._name(record.idp_id), profile_name=self._name(record.profile_id)
                )
            case GrantRecord():
                server = None if record.server_id is None else self._name(record.server_id)
                return GrantView(
                    **said,
                    profile_name=self._name(record.profile_id),
                    reference_name=self._reference(record.reference_id),
                    server_name=server,
                )
            case BindingRecord():
                return BindingView(
                    **said,
                    profile_name=self._name(record.profile_id),
                    server_name=self._name(record.server_id),
                    reference_name=self._bound_reference(record),
                    comes_from=self._comes_from(record),
                    current=record.definition_digest == self._digests.get(record.server_id),
                )
            case ChoiceRecord():
                return ChoiceView(
                    **said,
                    idp_name=self._name(record.idp_id),
                    profile_name=self._name(record.profile_id),
                    server_name=self._name(record.server_id),
                    reference_name=self._reference(record.reference_id),
                )
            case InstanceRecord():
                return InstanceView(
                    **said,
                    server_names=allowed_names(record.allowed_servers, self._names),
                    certificate_sha256=thumbprint_of(record.certificate).hex() if record.certificate else "",
                )
            case IdpRecord() | ProfileRecord() | ServerRecord() | VariableRecord():
                return record
            case _:
                raise TypeError(type(record).__name__)

    def _name(self, entity_id: str) -> str:
        return self._names.get(entity_id, "")

    def _reference(self, reference_id: str) -> str:
        return self._catalog.name_of(reference_id)

    def _bound_reference(self, binding: BindingRecord) -> str:
        return self._reference(binding.origin.reference_id) if isinstance(binding.origin, ReferenceOrigin) else ""

    def _comes_from(self, binding: BindingRecord) -> str:
        match binding.origin:
            case ReferenceOrigin(reference_id=reference_id):
                return f"reference {self._reference(reference_id) or reference_id}"
            case LocalValueOrigin(owner=owner):
                return f"local value of the {owner}"
            case EnvironmentOrigin(variable=variable, labels=labels):
                where = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
                return f"variable {variable} of the instance" + (f" with {where}" if where else "")


async def enrolment_views(reading: Reading, enrolments: Iterable[Enrolment]) -> tuple[EnrolmentView, ...]:
    """Enrolments with the names of their servers."""
    enrolments = tuple(enrolments)
    names = await reading.names({server for one in enrolments for server in one.record.allowed_servers})
    return tuple(_enrolment_view(one, names, reading.now) for one in enrolments)


def _enrolment_view(enrolment: Enrolment, names: dict[str, str], now: datetime) -> EnrolmentView:
    """An enrolment without its token's digest, which is nobody's business."""
    return EnrolmentView(
        **enrolment.record.model_dump(exclude={"token_sha256"}),
        server_names=allowed_names(enrolment.record.allowed_servers, names),
        state=enrolment.state(now),
        instance_id=enrolment.instance_id,
    )


def allowed_names(allowed: Iterable[str], names: dict[str, str]) -> tuple[str, ...]:
    """Names of the allowed servers that still are there; `*` stays itself."""
    return tuple(name for one in allowed if (name := ANY_SERVER if one == ANY_SERVER else names.get(one)))
