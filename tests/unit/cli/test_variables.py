"""Which variables an instance would miss: said before an agent's server fails to start."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.cli.commands.variables import missing_variables
from tests.unit.cli.shell import Shell

INSTANCE: dict[str, Any] = {
    "id": "instance/1",
    "instance_id": "instance/1",
    "name": "gw",
    "labels": {"env": "prod", "tenant": "a"},
    "allowed_servers": ["server/1"],
}
ALLOWED = {"name": "DB_URL", "labels": {}}


def binding(variable: str = "DB_URL", server: str = "server/1", **labels: str) -> dict[str, Any]:
    return {"server_id": server, "origin": {"kind": "environment", "variable": variable, "labels": labels}}


def missing(*bindings: dict[str, Any], variables: Any = (ALLOWED,), **instance: Any) -> list[str]:
    return missing_variables(INSTANCE | instance, bindings, variables)


def test_what_is_bound_for_an_instance_and_was_not_reported_is_missing() -> None:
    assert missing(binding()) == ["DB_URL"]
    assert missing(binding(env="prod")) == ["DB_URL"]
    assert missing(binding(), allowed_servers=["*"]) == ["DB_URL"]


def test_what_was_reported_is_not() -> None:
    assert missing_variables(INSTANCE | {"variables": ["DB_URL"]}, [binding(), binding()], [ALLOWED]) == []


@pytest.mark.parametrize(
    ("bound", "allowed"),
    [
        (binding(env="test"), ALLOWED),
        (binding(), {"name": "DB_URL", "labels": {"tenant": "b"}}),
        (binding(server="server/2"), ALLOWED),
        (binding("OTHER"), ALLOWED),
        ({"server_id": "server/1", "origin": {"kind": "local", "owner": "subject"}}, ALLOWED),
        ({"server_id": "server/1", "origin": {"kind": "reference", "reference_id": "r"}}, ALLOWED),
    ],
    ids=["label", "tenant", "server", "not allowed", "local", "reference"],
)
def test_what_no_resolve_would_ask_of_an_instance_is_not_missed(bound: dict[str, Any], allowed: Any) -> None:
    assert missing_variables(INSTANCE, [bound], [allowed]) == []


@pytest.mark.parametrize("command", ["list", "show gw"])
def test_a_missing_variable_shows_where_instances_are_looked_at(shell: Shell, command: str) -> None:
    shell.services.has("/v1/instances", INSTANCE)
    shell.services.has("/v1/bindings", binding())
    shell.services.has("/v1/variables", ALLOWED)
    shown = json.loads(shell.run("instance", *command.split(), "--json"))
    (item,) = shown if isinstance(shown, list) else (shown,)
    assert item["missing_variables"] == ["DB_URL"]
    assert "DB_URL" in shell.run("instance", *command.split())
