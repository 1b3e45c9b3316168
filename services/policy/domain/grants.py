"""Grants: what one covers, when its window opens and closes, and whether it can ever match."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.policy.domain.definitions import destination_of, field_names
from services.policy.domain.names import check_host, check_labels
from shared.errors import BadRequest
from shared.events.policy import GrantRecord, ServerRecord

_YEARS: Final = (2000, 9000)
"""Far enough from the ends of calendars that no arithmetic of any client fails."""


@dataclass(frozen=True, slots=True)
class Starts:
    """A grant's window opens."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Ends:
    """A grant's window closes."""

    at: datetime


Edge = Starts | Ends


def next_edge(grant: GrantRecord, *, after: datetime) -> Edge | None:
    """What happens next to a grant by itself, strictly after a moment; None if it just stays."""
    if grant.starts_at is not None and grant.starts_at > after:
        return Starts(grant.starts_at)
    # An end that has passed is still due: whoever was away when it came must not skip it.
    return None if grant.ends_at is None else Ends(grant.ends_at)


def is_open(grant: GrantRecord, *, at: datetime) -> bool:
    """Whether `at` is inside the window: the start belongs to it, the end does not."""
    return (grant.starts_at is None or grant.starts_at <= at) and not is_over(grant, at=at)


def is_over(grant: GrantRecord, *, at: datetime) -> bool:
    """Whether its window has closed, for good."""
    return grant.ends_at is not None and grant.ends_at <= at


def covers(grant: GrantRecord, *, server: ServerRecord, field: str) -> bool:
    """Whether a grant's limits let its reference into a field of a server, whatever the instance and the time."""
    destination = destination_of(server.definition)
    return (
        grant.server_id in {None, server.id}
        and grant.field in {None, field}
        and grant.destination in {None, destination}
    )


def check_grant(grant: GrantRecord, *, server: ServerRecord | None, now: datetime) -> None:
    """Refuse a grant that could never match, since somebody would believe in it. `server` is the one it names."""
    check_labels(grant.labels)
    if grant.destination is not None:
        check_host(grant.destination)
    if any(
        moment is not None and not _YEARS[0] <= moment.year <= _YEARS[1] for moment in (grant.starts_at, grant.ends_at)
    ):
        raise BadRequest(f"A window lies between the years {_YEARS[0]} and {_YEARS[1]}.")
    if is_over(grant, at=now):
        raise BadRequest("The grant would have ended already: `ends_at` must be in the future.")
    if grant.starts_at is not None and grant.ends_at is not None and grant.starts_at >= grant.ends_at:
        raise BadRequest("The grant would end before it starts.")
    if server is None:
        return
    if grant.field is not None and grant.field not in field_names(server.definition):
        raise BadRequest("The server's definition has no field by that name.")
    if grant.destination is not None and grant.destination != destination_of(server.definition):
        raise BadRequest("The server doesn't send to that destination, so the grant would never match.")


def any_covers(grants: Iterable[GrantRecord], *, server: ServerRecord, field: str) -> bool:
    """Whether one of `grants` covers the field; of none, no."""
    return any(covers(grant, server=server, field=field) for grant in grants)
