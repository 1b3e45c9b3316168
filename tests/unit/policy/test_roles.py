"""Who may call what, for every route that there is: one that somebody adds is asked about here by itself."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import pytest

from tests.unit.policy.front import Front, front_app

OPEN: Final = {("POST", "/v1/enrol"), ("POST", "/v1/enrol/certificate")}
"""The token in its body is the only proof that a new instance has."""


def routes() -> list[tuple[str, str]]:
    """(method, path) of everything that the application serves below `/v1`."""
    described = front_app().openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in described.items() for method in methods)


def address(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "grant/" + "0" * 32, path) + ("?reference=x" if path.endswith("who-could") else "")


EVERY: Final = routes()
OF_SUBJECTS: Final = [one for one in EVERY if one[1].startswith("/v1/me/")]
READS: Final = [one for one in EVERY if one[0] == "GET" and one not in OF_SUBJECTS]
CHANGES: Final = [one for one in EVERY if one not in {*OF_SUBJECTS, *READS, *OPEN}]


def test_the_lists_hold_every_route() -> None:
    assert len(READS) + len(CHANGES) + len(OF_SUBJECTS) + len(OPEN) == len(EVERY)
    assert len(CHANGES) > 15
    assert len(READS) > 15


async def statuses(calls: Iterable[tuple[str, str]], *, token: str) -> dict[int, list[str]]:
    """What each call is answered, by status; a change asks with an empty object."""
    front, found = Front(), defaultdict[int, list[str]](list)
    for method, path in calls:
        reply = await front.send(method, address(path), None if method == "GET" else {}, token=token)
        found[reply.status].append(f"{method} {path}")
    assert front.world.ledger.seq == 0
    return found


@pytest.mark.parametrize("token", ["", "forged"])
async def test_without_a_good_token_nothing_is_answered(token: str) -> None:
    assert (await statuses([one for one in EVERY if one not in OPEN], token=token)).keys() == {401}


async def test_whoever_has_no_role_is_let_into_nothing() -> None:
    assert (await statuses([*READS, *CHANGES], token="nobody")).keys() == {403}


@pytest.mark.parametrize("token", ["auditor", "operator"])
async def test_only_an_admin_changes_anything(token: str) -> None:
    assert (await statuses(CHANGES, token=token)).keys() == {403}


@pytest.mark.parametrize("token", ["auditor", "operator", "admin"])
async def test_every_role_reads_everything(token: str) -> None:
    assert (await statuses(READS, token=token)).keys() <= {200, 404}


async def test_an_administrator_is_no_subject() -> None:
    """Roles of one identity provider say nothing about the subjects of another."""
    assert (await statuses(OF_SUBJECTS, token="admin")).keys() == {401}


async def test_a_token_is_taken_from_a_bearer_header_and_from_nowhere_else() -> None:
    front = Front()
    assert (await front.send("GET", "/v1/profiles?access_token=admin", token="")).status == 401
    assert (await front.send("GET", "/v1/profiles", token="admin")).status == 200
