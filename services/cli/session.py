"""What every command starts with: the connection, and finding an entity by the name that a person typed."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import quote

from services.cli.connection import Api, CommandFailed, load_connection

CONVERGENCE_POLL_S = 10
"""One long poll, seconds; a service allows 30."""


# At the first call and not at import: `--help` has to work where there is no connection file yet.
@cache
def api() -> Api:
    """The services, as the connection file names them."""
    return Api(load_connection())


def entity_path(plural: str, entity_id: str) -> str:
    """`/v1/grants/<id>`; the slash inside an id is part of it."""
    return f"/v1/{plural}/{quote(entity_id, safe='/')}"


def find(service: str, plural: str, name_or_id: str) -> dict[str, Any]:
    """The one entity with that name or id."""
    # By name here and not by path: a name may hold what a URL changes on its way, an id may not.
    for item in api().every(service, f"/v1/{plural}"):
        if name_or_id in {item.get("name"), item["id"]}:
            return item
    raise CommandFailed(f"There is no {plural.removesuffix('s')} {name_or_id!r}.")


def convergence(event_id: str, *, wait_s: float) -> dict[str, Any] | None:
    """How far everybody has come with what `event_id` caused; None when it needs no notice."""
    left = wait_s
    while True:
        step = min(left, CONVERGENCE_POLL_S)
        answer: dict[str, Any] | None = api().call(
            "GET", "notifier", "/v1/convergence", query={"event_id": event_id, "wait_s": step}
        )
        # By what was asked for, not by the clock: a service that answers early is asked again at most that often.
        left -= step
        if answer is None or answer.get("converged") or left <= 0:
            return answer
