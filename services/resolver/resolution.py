"""One resolve, from the request to the sealed answer, and the order in which nothing may be swapped.

    who asks → wait for its floor → fresh? decide → [record `authorised` ∥ read] → fresh? decide again → seal

The second decision is made on the newest picture when the record is durable and the values are there, and nothing
waits between it and the seal: so an answer can't overtake a revocation that this replica has applied. Whatever fails
behind `authorised` is told by an `abandoned` record, whatever fails before by a `refused` one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from services.resolver.answers import Release, grant_leases, renew
from services.resolver.callers import Instances, Subjects
from services.resolver.case import Call, Caller, Case, CaseRefused, wipe
from services.resolver.decisions import Decisions
from services.resolver.domain.decision import Allowed, Denied, Item, Person, Plan, Wish
from services.resolver.domain.plans import InstanceVariable, KeptValue, StoredValue
from services.resolver.domain.snapshot import Floor
from services.resolver.reads import Reads
from services.resolver.records import AccessLog, Draft, Position
from services.resolver.refusals import RefusalBudget
from services.resolver.sources.local import LocalReader, NothingKept
from services.resolver.sources.port import ReadFailed, ReadValue
from services.resolver.state import Knowledge
from shared.crypto.signing import SigningKey
from shared.delivery import AssertionRefused, VerifiedAssertion, request_hash
from shared.delivery.certificates import PeerCertificate
from shared.delivery.messages import ResolveRequest, parse_request
from shared.errors import AssertionInvalid, NotFresh, RecordFailed, SourceUnavailable, TokenInvalid, Unavailable
from shared.events.access import Phase

_log = structlog.get_logger(__name__)

MOST_READS: Final = 2
"""Of one value in one resolve: a source's own replica may lag behind what sync saw, but not for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Answers resolves. Times in seconds."""

    knowledge: Knowledge
    decisions: Decisions
    instances: Instances
    subjects: Subjects
    log: AccessLog
    budget: RefusalBudget
    reads: Reads
    local: LocalReader = field(default_factory=NothingKept)
    signing_key: SigningKey
    floor_wait_s: float
    lease_ttl_s: float
    clock: Callable[[], float] = time.time

    async def resolve(self, call: Call) -> bytes:
        """The sealed answer. Raises a `KeyfobError`; then nothing was released, and the record says why."""
        case = Case(call, parse_request(call.request.body, ResolveRequest))
        try:
            caller = await self._identify(case)
            await self._reach_floor(case)
            plan = self._decide(case, caller)
        except CaseRefused as refused:
            await self._tell_refusal(case, refused.reason)
            raise refused.error from None
        case.grant(plan, grant_leases(plan, caller.subject, now=self.clock(), ttl_s=self.lease_ttl_s))
        try:
            return await self._release(case, caller, plan)
        finally:
            case.wipe()

    async def _identify(self, case: Case) -> Caller:
        """Both proofs: the instance's, and the subject's."""
        snapshot = case.snapshot = self.knowledge.snapshot()
        call = case.call
        try:
            case.proved = self.instances.verify(call.proof, call.request, snapshot.policy)
            case.subject = await self.subjects.verify(call.request.token, snapshot.policy)
        except (AssertionInvalid, TokenInvalid) as error:
            case.unproved = error if isinstance(error, AssertionRefused) else None
            raise CaseRefused(f"{error.kind}:{getattr(error, 'reason', 'refused')}", error) from None
        except Unavailable as error:
            raise CaseRefused("issuer-unreachable", error) from None
        policy = snapshot.policy
        # Those of the picture that the proofs were made on: `stands` compares them with the newest one.
        instance, idp = policy.instance(case.proved.instance_id), policy.idps.get(case.subject.idp_id)
        return Caller(case.proved, case.subject, instance, idp)

    async def _reach_floor(self, case: Case) -> None:
        """Never answer from less than what the instance has seen in notices."""
        if not await self.knowledge.reach(case.floor, within_s=self.floor_wait_s):
            raise CaseRefused("behind-floor", NotFresh("This replica has not seen yet what you have."))

    def _decide(self, case: Case, caller: Caller) -> Plan:
        """The decision on the newest picture, which is proved to be current."""
        snapshot = case.snapshot = self.knowledge.snapshot()
        if (stale := self.knowledge.stale()) is not None:
            raise CaseRefused(stale, NotFresh())
        now, subject = self.clock(), caller.subject
        # At each decision and not only at the proof: the token may end while values are read.
        if subject.expires_at <= now:
            raise CaseRefused("token-invalid:expired", TokenInvalid("The access token is not valid: expired."))
        decided = self.decisions.decide(
            snapshot,
            Person(idp_id=subject.idp_id, subject=subject.subject, groups=subject.groups),
            caller.proved.instance_id,
            Wish(server=case.wish.server, context=case.wish.context, choices=case.wish.choices),
            token_digest=subject.token_digest,
            now=datetime.fromtimestamp(now, UTC),
        )
        match decided:
            case Denied(reason, error):
                raise CaseRefused(reason, error)
            case Allowed(plan) if caller.stands(snapshot):
                return plan
            case Allowed():
                raise CaseRefused("changed-meanwhile", _changed())

    async def _tell_refusal(self, case: Case, reason: str) -> None:
        """Record a refusal; one that can't be recorded is still a refusal."""
        entry = case.entry(Phase.REFUSED, reason)
        # Without a person anybody can be refused, as often as they like.
        if case.subject is None and not self.budget.admits(entry):
            return
        try:
            await self.log.durable(self.log.write(entry))
        except RecordFailed:
            _log.warning("refusal not recorded", reason=reason)

    async def _release(self, case: Case, caller: Caller, plan: Plan) -> bytes:
        """Authorise, answer, and tell how it ended."""
        draft = self.log.write(case.entry(Phase.AUTHORISED))
        try:
            answer = await self._answer(case, caller, plan, draft)
        except CaseRefused as refused:
            self._abandon(case, draft, refused.reason)
            raise refused.error from None
        except BaseException:
            self._abandon(case, draft, "interrupted")
            raise
        # Said before it leaves: an answer that gets lost counts as delivered, and never the other way round.
        self.log.write(case.entry(Phase.RELEASED), kept=True)
        self._note_use(case, plan)
        return answer

    def _note_use(self, case: Case, plan: Plan) -> None:
        for item, value in zip(plan.items, case.values, strict=True):
            match item.place, value:
                case KeptValue(slot=slot), ReadValue(version=version):
                    self.local.used(slot, version)
                case _:
                    pass

    def _abandon(self, case: Case, draft: Draft, reason: str) -> None:
        """Tell that nothing left. An authorisation that has no number yet never gets one: then it is a refusal."""
        # First, for a draft that is cancelled gets no number any more: what `numbered` says then stays true.
        draft.done.cancel()
        phase = Phase.ABANDONED if draft.numbered else Phase.REFUSED
        self.log.write(case.entry(phase, reason), kept=True)

    async def _answer(self, case: Case, caller: Caller, plan: Plan, draft: Draft) -> bytes:
        """Record and read at the same time; then decide until nothing moves any more, and seal at once."""
        position = await self._record_and_read(case, plan, draft)
        for reads in range(1, MOST_READS + 1):
            newest = self._decide_again(case, caller, plan)
            behind = case.behind(newest.items)
            if not behind:
                return self._closed(case, caller, newest, position)
            if reads < MOST_READS:
                await self._read_again(case, newest, behind)
        raise CaseRefused("source-behind", SourceUnavailable("The secret manager still gives an older version."))

    async def _record_and_read(self, case: Case, plan: Plan, draft: Draft) -> Position:
        """The values are read while the record travels; without the record they are of no use."""
        case.values = await self._read_all(plan.items, since=plan.floor)
        try:
            return await self.log.durable(draft)
        except RecordFailed as error:
            raise CaseRefused("record-failed", error) from None

    async def _read_all(self, items: Sequence[Item], *, since: Floor) -> list[ReadValue | None]:
        """All values, or none: those that came are wiped when another failed."""
        outcomes: Sequence[ReadValue | ReadFailed | None]
        if len(items) == 1:
            outcomes = [await self._outcome(items[0], since)]
        else:
            outcomes = await asyncio.gather(*(self._outcome(item, since) for item in items))
        values = [outcome for outcome in outcomes if not isinstance(outcome, ReadFailed)]
        for outcome in outcomes:
            if isinstance(outcome, ReadFailed):
                wipe(values)
                raise CaseRefused(outcome.reason, SourceUnavailable(outcome.words))
        return values

    async def _outcome(self, item: Item, since: Floor) -> ReadValue | ReadFailed | None:
        """The item's value; None for what only the instance itself can read."""
        match item.place:
            case InstanceVariable():
                return None
            case StoredValue() as stored:
                reading = self.reads.read(stored, since=since)
            case KeptValue(slot=slot):
                reading = self.local.read(slot)
        try:
            return await reading
        # Handed back: raised, it would end `gather` early, and what the other reads bring would be nobody's to wipe.
        except ReadFailed as error:
            return error

    async def _read_again(self, case: Case, plan: Plan, behind: Sequence[int]) -> None:
        # Since the newest plan: a read that began before the rotation was known would give the old version again.
        fresh = await self._read_all([plan.items[index] for index in behind], since=plan.floor)
        for index, value in zip(behind, fresh, strict=True):
            wipe([case.values[index]])
            case.values[index] = value

    def _decide_again(self, case: Case, caller: Caller, plan: Plan) -> Plan:
        """The decision as it is now, on the same grounds: anything else is another case."""
        newest = self._decide(case, caller)
        if not newest.same_grounds(plan):
            raise CaseRefused("changed-meanwhile", _changed())
        case.grant(newest, renew(case.leases, newest))
        return newest

    def _closed(self, case: Case, caller: Caller, plan: Plan, position: Position) -> bytes:
        """The answer as it leaves: sealed to who asserted, or as it is to who proved a certificate."""
        release = Release(
            plan=plan, subject=caller.subject, leases=case.leases, values=tuple(case.values), record=position
        )
        match caller.proved:
            case PeerCertificate() as peer:
                self._admit_again(peer, case)
                return release.payload()
            case VerifiedAssertion(raw=raw):
                keys = self.instances.keys(plan.instance)
                if keys is None:
                    raise CaseRefused("instance-inactive", AssertionInvalid())
                request = request_hash(raw, case.call.request.body)
                return release.sealed(to=keys.seal, by=self.signing_key, request_hash=request)

    def _admit_again(self, peer: PeerCertificate, case: Case) -> None:
        try:
            self.instances.admit(peer, case.snapshot.policy)
        except AssertionInvalid as error:
            raise CaseRefused("instance-inactive", error) from None


def _changed() -> NotFresh:
    return NotFresh("What this rests on changed meanwhile: ask again.")
