"""`keyfob variable`: which environment variables bindings may name, and whether gateways were started with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cyclopts import App

from services.cli.commands.removal import WAIT_S, remove
from services.cli.output import Output
from services.cli.session import api

variable = App(name="variable", help="Allow environment variables of gateways' own processes. Never a value.")

_TABLE = Output()
_ANY_SERVER = "*"


@variable.command(name="allow")
def allow_variable(name: str, *, label: dict[str, str] | None = None, out: Output = _TABLE) -> None:
    """Let bindings name an environment variable. Each gateway also needs it in its own KEYFOB_GATEWAY_ENVIRONMENT.

    Parameters
    ----------
    name
        The variable.
    label
        Only on instances that have this label: --label.tenant hospital-a
    """
    result = api().call("POST", "policy", "/v1/variables", body={"name": name, "labels": label or {}})
    out.said(f"Bindings may name the variable {name}.", result)


@variable.command(name="list")
def list_variables(*, out: Output = _TABLE) -> None:
    """Show the variables that bindings may name."""
    out.rows(api().every("policy", "/v1/variables"), ("name", "labels", "id"), title="Variables")


@variable.command(name="remove")
def remove_variable(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Allow a variable no longer: what was given from it ends everywhere."""
    remove("variables", name, wait_s=wait_s, out=out)


def missing_variables(
    instance: Mapping[str, Any], bindings: Sequence[Mapping[str, Any]], variables: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The variables that bindings would have this instance use, and that it has not said it was started with."""
    limits = {one["name"]: one["labels"] for one in variables}
    wanted = {
        binding["origin"]["variable"]
        for binding in bindings
        if binding["origin"]["kind"] == "environment" and _reaches(binding, instance, limits)
    }
    return sorted(wanted.difference(instance.get("variables", ())))


def _reaches(binding: Mapping[str, Any], instance: Mapping[str, Any], limits: Mapping[str, Mapping[str, str]]) -> bool:
    origin, labels = binding["origin"], instance["labels"]
    # One that is not allowed at all is refused before anybody could miss it.
    if origin["variable"] not in limits or not {binding["server_id"], _ANY_SERVER} & set(instance["allowed_servers"]):
        return False
    return bool((origin["labels"] | limits[origin["variable"]]).items() <= labels.items())
