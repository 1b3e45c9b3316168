"""`POST /v1/explain`: what somebody would be answered on which instance, and why. For administrators; never a value.

The resolver answers it, since only here is the decision itself: an explanation by another rule would be a guess.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.resolver.domain.chain import Grounds
from services.resolver.domain.explanation import WORDS, Explanation, FieldExplained, explain
from services.resolver.domain.facts import Binding, FromEnvironment, FromLocalValue, FromReference, Instance
from services.resolver.domain.plans import ContextRule, Denied, FieldRule, Item, Person, Reason, Trusts, Wish
from services.resolver.domain.snapshot import Snapshot
from services.resolver.state import Knowledge
from shared.administration import AdminGuard, Role
from shared.delivery.messages import MOST_CHOICES, Name
from shared.errors import BadRequest, ChoiceNeeded, NotFresh
from shared.events.policy import ANY_SERVER

MOST_GROUPS: Final = 1000
MOST_INSTANCES: Final = 100
"""Explained in one answer; name one to ask about others."""


class Question(BaseModel):
    """Who, with which groups in the token, asks for what. Without an instance: each one that may run the server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Name
    groups: Annotated[tuple[Name, ...], Field(max_length=MOST_GROUPS)] = ()
    idp: Name | None = None
    server: Name
    context: Name | None = None
    instance: Name | None = None
    choices: Annotated[dict[Name, Name], Field(max_length=MOST_CHOICES)] = Field(default_factory=dict)


class Named(BaseModel):
    """A record by id and name."""

    id: str
    name: str


class Refused(BaseModel):
    """Why not. `kind` is all that the subject learns, and `choices` what it may choose from."""

    reason: Reason
    words: str
    kind: str
    choices: tuple[str, ...] = ()


class FieldView(BaseModel):
    """One field: which binding and which rule say where its value comes from, or why there is none."""

    field: str
    binding_id: str | None
    origin: str | None
    """`reference`, `local` or `environment`, as the binding says."""
    rule: FieldRule | None = None
    source: Named | None = None
    """The reference or the variable."""
    rests_on: tuple[str, ...] = ()
    ends_at: datetime | None = None
    refused: Refused | None = None


class InstanceView(BaseModel):
    """What one instance would be answered: all fields, or a refusal."""

    instance: Named
    labels: dict[str, str]
    allowed: bool
    refused: Refused | None
    profile: Named | None = None
    profile_rule: ContextRule | None = None
    group: str | None = None
    mapping_id: str | None = None
    fields: tuple[FieldView, ...] = ()


class Answer(BaseModel):
    """By the state of `policy_seq` and `catalog_seq`, at `at`."""

    at: datetime
    policy_seq: int
    catalog_seq: int
    idp: Named
    instances: tuple[InstanceView, ...]


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Answers questions from the newest picture that is proved to be current."""

    knowledge: Knowledge
    trusts: Trusts
    clock: Callable[[], datetime] = now

    def answer(self, question: Question) -> Answer:
        """`BadRequest` for an instance or identity provider that is not there, `NotFresh` like a resolve."""
        if self.knowledge.stale() is not None:
            raise NotFresh
        snapshot, at = self.knowledge.snapshot(), self.clock()
        idp = self._idp(snapshot, question.idp)
        person = Person(idp_id=idp.id, subject=question.subject, groups=frozenset(question.groups))
        wish = Wish(server=question.server, context=question.context, choices=question.choices)
        found = [
            explain(snapshot, person, instance, wish, now=at, trusts=self.trusts)
            for instance in self._instances(snapshot, question)
        ]
        floor = snapshot.floor
        views = tuple(map(_view, found))
        return Answer(at=at, policy_seq=floor.policy, catalog_seq=floor.catalog, idp=idp, instances=views)

    def _idp(self, snapshot: Snapshot, text: str | None) -> Named:
        idps = [one for one in snapshot.policy.idps.values() if self.trusts(one.evidence)]
        meant = [one for one in idps if text is None or text in {one.id, one.name}]
        if len(meant) != 1:
            raise BadRequest("Name the identity provider: there is none by that name, or more than one.")
        return Named(id=meant[0].id, name=meant[0].name)

    def _instances(self, snapshot: Snapshot, question: Question) -> list[Instance]:
        known = sorted(snapshot.policy.instances.values(), key=lambda one: (one.name, one.id))
        if question.instance is None:
            return list(_able(known, snapshot, question.server))[:MOST_INSTANCES]
        named = [one for one in known if question.instance in {one.id, one.name}]
        if not named:
            raise BadRequest("There is no instance by that name.")
        return named[:MOST_INSTANCES]


def _able(known: list[Instance], snapshot: Snapshot, server: str) -> Iterator[Instance]:
    """Those that may act and run the server; all active ones where there is no such server, to say so."""
    ids = {one.id for one in snapshot.policy.servers.get(server, ())}
    for one in known:
        if one.active and (not ids or one.allowed_servers & {ANY_SERVER, *ids}):
            yield one


def _view(found: Explanation) -> InstanceView:
    instance, refusal = found.instance, found.refusal
    view = InstanceView(
        instance=Named(id=instance.id, name=instance.name),
        labels=dict(sorted(instance.labels)),
        allowed=refusal is None,
        refused=_refused(refusal),
    )
    match found.grounds:
        case Grounds(chosen=chosen):
            profile = Named(id=chosen.profile.id, name=chosen.profile.name)
            return view.model_copy(
                update={
                    "profile": profile,
                    "profile_rule": chosen.rule,
                    "group": chosen.mapping.group,
                    "mapping_id": chosen.mapping.id,
                    "fields": tuple(map(_field, found.fields)),
                }
            )
        case Denied():
            return view


def _field(one: FieldExplained) -> FieldView:
    binding_id = None if one.binding is None else one.binding.id
    said = {"field": one.field, "binding_id": binding_id, "origin": _origin(one.binding)}
    match one.outcome:
        case Denied():
            return FieldView.model_validate(said | {"refused": _refused(one.outcome)})
        case Item(place=place):
            return FieldView(
                **said,
                rule=one.outcome.rule,
                source=Named(id=place.id, name=place.name),
                rests_on=one.outcome.rests_on,
                ends_at=one.outcome.ends_at,
            )


def _origin(binding: Binding | None) -> str | None:
    match None if binding is None else binding.origin:
        case FromReference():
            return "reference"
        case FromLocalValue():
            return "local"
        case FromEnvironment():
            return "environment"
        case None:
            return None


def _refused(denied: Denied | None) -> Refused | None:
    if denied is None:
        return None
    choices = denied.error.choices if isinstance(denied.error, ChoiceNeeded) else ()
    return Refused(reason=denied.reason, words=WORDS[denied.reason], kind=denied.error.kind, choices=choices)


def routes(explainer: Explainer, guard: AdminGuard) -> APIRouter:
    """The route."""
    router = APIRouter()
    reader = Depends(guard.requires(Role.AUDITOR, Role.OPERATOR))

    @router.post("/v1/explain", dependencies=[reader])
    async def explain_answer(question: Question) -> Answer:
        return explainer.answer(question)

    return router
