"""Where a binding lets a field's value come from: a reference, a local value, or the instance's own environment."""

from __future__ import annotations

from services.policy.domain.drafts import BindingDraft, EnvironmentDraft
from services.policy.domain.kinds import looks_like_id
from services.policy.domain.names import check_labels
from shared.errors import BadRequest, Conflict
from shared.events.catalog import ReferenceRecord
from shared.events.policy import (
    EnvironmentOrigin,
    LocalOwner,
    LocalValueOrigin,
    Origin,
    ReferenceOrigin,
    VariableRecord,
)
from shared.variables import is_reserved_variable


def check_one_origin(draft: BindingDraft) -> None:
    """Refuse a draft that names no origin or several: which one counts must not be a matter of guessing."""
    if sum(one is not None for one in (draft.reference, draft.local, draft.environment)) != 1:
        raise BadRequest("A binding has one origin: exactly one of `reference`, `local` and `environment`.")


def origin_of(draft: BindingDraft, reference: ReferenceRecord | None) -> Origin:
    """The origin that a draft names; `reference` is what the catalog has by its name."""
    check_one_origin(draft)
    match draft:
        case BindingDraft(local=LocalOwner() as owner):
            return LocalValueOrigin(owner=owner)
        case BindingDraft(environment=EnvironmentDraft() as environment):
            check_variable(environment.variable)
            check_labels(environment.labels)
            return EnvironmentOrigin(variable=environment.variable, labels=environment.labels)
        case _ if reference is not None:
            return ReferenceOrigin(reference_id=reference.id)
        case _:
            raise BadRequest("There is no reference by the name or id in `reference`.")


def check_variable(variable: str) -> None:
    """Refuse a variable that could be taken for an id, or belongs to the gateway's own process."""
    if looks_like_id(variable):
        raise BadRequest("The variable's name looks like an id: choose one that can't be taken for one.")
    if is_reserved_variable(variable):
        raise BadRequest(f"The variable {variable} changes how a process runs, or is Keyfob's own: no field gets it.")


def check_readable(origin: EnvironmentOrigin, variable: VariableRecord | None) -> None:
    """Refuse a variable that is not on the list, and labels with which no instance could ever read it."""
    if variable is None:
        raise Conflict(
            f"The variable {origin.variable} is not allowed yet: `keyfob variable allow` lets bindings name it."
        )
    shared = origin.labels.keys() & variable.labels.keys()
    if any(origin.labels[key] != variable.labels[key] for key in shared):
        raise BadRequest("The variable is allowed on instances with other labels, so no instance would ever match.")
