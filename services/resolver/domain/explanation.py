"""Why somebody gets what they get, or does not: the same chain as a decision, asked to the end for each field.

Names, rules and reasons only; nothing here reads a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.resolver.domain.chain import Chain, Grounds, Refusal
from services.resolver.domain.facts import Binding, Instance
from services.resolver.domain.plans import Denied, Item, Person, Reason, Trusts, Wish
from services.resolver.domain.snapshot import Snapshot

WORDS: Final[Mapping[Reason, str]] = {
    Reason.INSTANCE_INACTIVE: "The instance is banned, or not enrolled.",
    Reason.IDP_UNKNOWN: "The identity provider is not one of ours.",
    Reason.SERVER_UNKNOWN: "There is no server by that name.",
    Reason.SERVER_NOT_ALLOWED: "The instance's enrolment does not let it run the server.",
    Reason.SERVER_WITHOUT_FIELDS: "The server takes no credential, so there is nothing to resolve.",
    Reason.NO_PROFILE: "None of the groups has a profile.",
    Reason.CONTEXT_FOREIGN: "The context is none of the subject's own profiles.",
    Reason.CONTEXT_AMBIGUOUS: "Several of the subject's profiles bind the server, and nothing chose one of them.",
    Reason.NOT_BOUND: "The profile has no binding for the field.",
    Reason.BINDING_AMBIGUOUS: "The profile has several bindings for the field.",
    Reason.DEFINITION_CHANGED: "The binding is for another definition of the server: read it, and approve the binding.",
    Reason.CHOICE_UNKNOWN: "A reference was picked for a field that the server does not have.",
    Reason.CHOICE_NOT_OPEN: "A reference was picked for a field that does not come from a reference.",
    Reason.REFERENCE_UNKNOWN: "The reference is not in the catalog.",
    Reason.REFERENCE_UNREADABLE: "The reference can't be read: its state in the catalog says why.",
    Reason.SOURCE_UNKNOWN: "The reference's source was removed.",
    Reason.NOT_GRANTED: "No grant of the profile covers this use: server, field, destination, labels and time count.",
    Reason.VARIABLE_NOT_ALLOWED: "Policy does not let bindings name the variable: keyfob variable allow.",
    Reason.INSTANCE_LABELS: "The instance has not all the labels that the binding or the variable is limited to.",
}
"""What each refusal means to an administrator. The subject is told only the error's own words."""


@dataclass(frozen=True, slots=True)
class FieldExplained:
    """One field: the binding that counts, if there is one, and what comes of it."""

    field: str
    binding: Binding | None
    outcome: Item | Denied


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one instance would be answered. Without grounds nothing is asked about fields."""

    instance: Instance
    grounds: Grounds | Denied
    fields: tuple[FieldExplained, ...] = ()

    @property
    def refusal(self) -> Denied | None:
        """The refusal that `decide` gives: the first in its order; None where it allows."""
        if isinstance(self.grounds, Denied):
            return self.grounds
        return next((one.outcome for one in self.fields if isinstance(one.outcome, Denied)), None)


def explain(
    snapshot: Snapshot, person: Person, instance: Instance, wish: Wish, *, now: datetime, trusts: Trusts
) -> Explanation:
    """What `decide` says about this question, and why, for every field."""
    chain = Chain(snapshot, person, now, trusts)
    try:
        grounds = chain.grounds(instance.id, wish)
    except Refusal as refusal:
        return Explanation(instance, refusal.denied)
    # Every field, where `decide` ends at the first refusal: an administrator wants to mend all of them at once.
    names = (field.name for field in grounds.server.fields)
    return Explanation(instance, grounds, tuple(_field(chain, name, wish.choices.get(name), grounds) for name in names))


def _field(chain: Chain, field: str, picked: str | None, grounds: Grounds) -> FieldExplained:
    binding = None
    try:
        binding = chain.binding(field, grounds)
        return FieldExplained(field, binding, chain.item(field, picked, grounds))
    except Refusal as refusal:
        return FieldExplained(field, binding, refusal.denied)
