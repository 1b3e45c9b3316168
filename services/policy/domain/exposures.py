"""Who could use a reference now: the first form of exposure, computed from what stands, not from what happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from services.policy.domain.definitions import field_names
from services.policy.domain.grants import covers, is_open
from shared.events.policy import (
    ANY_SERVER,
    BindingRecord,
    GrantRecord,
    InstanceRecord,
    InstanceState,
    MappingRecord,
    ReferenceOrigin,
    ServerRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One grant, and what it opens. `instances` are those that may run one of the servers and carry the labels.

    `bound` fields get the reference by a binding; `choosable` ones if a subject chooses it there. A way that is not
    `open_now` waits for its window.
    """

    grant: GrantRecord
    groups: tuple[MappingRecord, ...]
    bound: tuple[tuple[ServerRecord, str], ...]
    choosable: tuple[tuple[ServerRecord, str], ...]
    instances: tuple[InstanceRecord, ...]
    open_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the answer is computed from. `bindings` and `mappings` are those of the profiles that have a grant."""

    grants: tuple[GrantRecord, ...]
    mappings: tuple[MappingRecord, ...]
    bindings: tuple[BindingRecord, ...]
    servers: Mapping[str, ServerRecord]
    instances: tuple[InstanceRecord, ...]
    now: datetime


def ways(standing: Standing) -> tuple[Way, ...]:
    """One way for each grant of the reference, groups or not: a mapping is quickly made."""
    return tuple(_way(standing, grant) for grant in standing.grants)


def _way(standing: Standing, grant: GrantRecord) -> Way:
    bound: list[tuple[ServerRecord, str]] = []
    choosable: list[tuple[ServerRecord, str]] = []
    for binding in standing.bindings:
        server = standing.servers.get(binding.server_id)
        if server is None or binding.profile_id != grant.profile_id or not _stands(binding, server):
            continue
        # Choices are among references: a field that comes from elsewhere can't be switched to one.
        if not isinstance(binding.origin, ReferenceOrigin):
            continue
        if covers(grant, server=server, field=binding.field):
            # A field that is bound to another one may still be switched to this reference, by a subject's choice.
            same = binding.origin.reference_id == grant.reference_id
            (bound if same else choosable).append((server, binding.field))
    servers = {server.id for server, _ in (*bound, *choosable)}
    return Way(
        grant=grant,
        groups=tuple(one for one in standing.mappings if one.profile_id == grant.profile_id),
        bound=tuple(bound),
        choosable=tuple(choosable),
        instances=tuple(one for one in standing.instances if _may_run(one, servers, grant.labels)),
        open_now=is_open(grant, at=standing.now),
    )


def _stands(binding: BindingRecord, server: ServerRecord) -> bool:
    """A binding to another definition than the present one gives nothing."""
    return binding.definition_digest == server.digest and binding.field in field_names(server.definition)


def _may_run(instance: InstanceRecord, servers: Iterable[str], labels: Mapping[str, str]) -> bool:
    wanted = set(servers)
    return (
        instance.state is InstanceState.ACTIVE
        # An instance that may run everything is no way to a reference that no server takes.
        and bool(wanted)
        and (ANY_SERVER in instance.allowed_servers or not wanted.isdisjoint(instance.allowed_servers))
        and labels.items() <= instance.labels.items()
    )
