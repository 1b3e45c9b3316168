"""Instances: let in once by a token, fixed in what they may run, banned and allowed by id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.policy.commands.newcomers import Newcomer
from services.policy.commands.outcomes import Unchanged, Updated, addressed, change, named
from services.policy.domain import enrolments
from services.policy.domain.drafts import EnrolmentDraft
from services.policy.domain.enrolments import (
    Admit,
    Enrolment,
    EnrolmentRecord,
    EnrolmentState,
    Refuse,
    Repeat,
    Verdict,
)
from services.policy.domain.kinds import ENROLMENT, Kind, key_link, new_id
from services.policy.domain.names import check_labels, check_name
from services.policy.domain.ports import Reading, Receipt, Work
from shared.errors import BadRequest, Conflict, NotAvailable, Unauthenticated
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import ANY_SERVER, InstanceRecord, InstanceState, ServerRecord


@dataclass(frozen=True, slots=True)
class Promised:
    """A new enrolment, with the only copy of its token."""

    enrolment: Enrolment
    token: str
    receipt: Receipt

    def __repr__(self) -> str:
        return f"Promised({self.enrolment.record.id})"


async def promise(work: Work, draft: EnrolmentDraft) -> Promised:
    """Make a single-use token for one instance, whose labels and servers are fixed here."""
    check_name(draft.name, of="instance")
    check_labels(draft.labels)
    waiting = await work.enrolment_by_name(draft.name)
    # Two open tokens for one name would be a race between whoever holds them.
    if waiting is not None and waiting.state(work.now) is EnrolmentState.OPEN:
        raise Conflict("There is an open enrolment by that name: use its token, or delete it.")
    if await work.find(InstanceRecord, draft.name) is not None:
        raise Conflict("There is an instance by that name: delete it before another one takes its place.")
    # Made here and returned once: what is kept, signed and told is its digest.
    token = enrolments.new_token()
    record = EnrolmentRecord(
        id=new_id(ENROLMENT),
        name=draft.name,
        delivery=draft.delivery,
        token_sha256=enrolments.token_sha256(token),
        labels=draft.labels,
        allowed_servers=await _allowed(work, draft.allowed_servers),
        created_at=work.now,
        expires_at=work.now + timedelta(seconds=draft.expires_in_s),
    )
    work.add_enrolment(record)
    receipt = work.announce(PolicyAction.CREATED, kind=ENROLMENT, entity_id=record.id, name=record.name)
    enrolment = Enrolment(record=record, instance_id=None, seq=receipt.seq, event_id=receipt.event_id)
    return Promised(enrolment, token, receipt)


async def _allowed(work: Work, servers: tuple[str, ...]) -> tuple[str, ...]:
    if ANY_SERVER in servers:
        return (ANY_SERVER,)
    found = [await named(work, ServerRecord, text, place="allowed_servers") for text in servers]
    # Once each: the same server may be named by its name and by its id.
    return tuple(dict.fromkeys(one.id for one in found))


async def withdraw(work: Work, text: str) -> Receipt:
    """Delete an enrolment. The instance that it let in stays: it is deleted by its own id."""
    enrolment = await work.enrolment_by_name(text)
    if enrolment is None:
        raise NotAvailable
    work.drop_enrolment(enrolment.record.id)
    return work.announce(
        PolicyAction.DELETED, kind=ENROLMENT, entity_id=enrolment.record.id, name=enrolment.record.name
    )


def enroller() -> Actor:
    """Who acts in an enrolment: the bearer of a token, of whom nothing else is known."""
    return Actor(idp="keyfob", subject="enrolment")


async def judge(reading: Reading, newcomer: Newcomer) -> Verdict:
    """What a newcomer's token is worth as things stand: cheap, and without the lock that changes wait for."""
    enrolment = await reading.enrolment_by_token(enrolments.token_sha256(newcomer.token))
    used_by = None
    if enrolment is not None and enrolment.instance_id is not None:
        used_by = await reading.get(InstanceRecord, enrolment.instance_id)
    same = used_by is not None and newcomer.is_same(used_by)
    return enrolments.judge(enrolment, used_by, same=same, now=reading.now)


async def enrol(work: Work, newcomer: Newcomer) -> InstanceRecord:
    """Let an instance in that proved its keys. `Unauthenticated` for any token that isn't good.

    Two at once with one token: works are serial, so the second finds it used. The same instance may ask again
    until the token expires, since an answer can get lost.
    """
    match await judge(work, newcomer):
        case Admit(enrolment):
            return await _admit(work, enrolment, newcomer)
        case Repeat(instance):
            return instance
        case Refuse():
            raise refusal()


def refusal() -> Unauthenticated:
    """The one answer to every token that isn't good."""
    return Unauthenticated("The enrolment token is not valid: unknown, used or expired.")


async def _admit(work: Work, enrolment: Enrolment, newcomer: Newcomer) -> InstanceRecord:
    promised = enrolment.record
    # Told openly: who gets here holds the token, and a mistyped name must not cost him the enrolment.
    if newcomer.name != promised.name:
        raise BadRequest("The token is for an instance by another name.")
    # Which door it came to says nothing: the administrator did.
    if newcomer.delivery is not promised.delivery:
        raise BadRequest(f"The token is for an instance of the profile {promised.delivery}.")
    if await work.find(InstanceRecord, promised.name) is not None:
        raise Conflict("There is an instance by that name.")
    # A key that two instances had would let one speak, and give receipts, for the other.
    if await work.linked(InstanceRecord, key_link(newcomer.key)):
        raise Conflict("Another instance has that key: each makes its own.")
    instance_id = new_id(Kind.INSTANCE)
    record = InstanceRecord(
        id=instance_id,
        seq=work.seq,
        revision=1,
        name=promised.name,
        delivery=promised.delivery,
        **newcomer.proofs(instance_id=instance_id, now=work.now),
        labels=promised.labels,
        allowed_servers=promised.allowed_servers,
        enrolled_at=work.now,
    )
    work.put(record)
    work.use_enrolment(promised.id, instance_id=record.id)
    work.announce(PolicyAction.CREATED, kind=Kind.INSTANCE, entity_id=record.id, name=record.name)
    return record


async def set_state(work: Work, text: str, state: InstanceState) -> Updated[InstanceRecord] | Unchanged[InstanceRecord]:
    """Ban an instance, which ends all its leases, or allow it again."""
    current = await addressed(work, InstanceRecord, text)
    # Allowing ends nothing, and brings nothing back: an instance asks again for what it needs.
    ended = (current.id,) if state is InstanceState.BANNED else ()
    return await change(work, current, current.model_copy(update={"state": state}), ended=ended)
