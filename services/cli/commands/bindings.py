"""`keyfob binding`: where a server's field gets its value, for one profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from services.cli.commands.removal import WAIT_S, remove, tell
from services.cli.connection import CommandFailed
from services.cli.output import Output
from services.cli.session import api, entity_path, find

binding = App(name="binding", help="Say where a server's field gets its value, for one profile.")

_TABLE = Output()


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class From:
    """Where a value comes from: exactly one of the first three."""

    reference: Annotated[str | None, Parameter(help="this reference, by name")] = None
    local: Annotated[
        Literal["subject", "profile"] | None,
        Parameter(help="a value that was entered into Keyfob: each subject's own, or one for the profile"),
    ] = None
    environment: Annotated[
        str | None, Parameter(help="this variable in the environment of the gateway's own process")
    ] = None
    label: Annotated[
        dict[str, str] | None,
        Parameter(help="with --environment, only on instances that have this label: --label.env prod"),
    ] = None

    def body(self) -> dict[str, Any]:
        """As the service takes it."""
        if sum(one is not None for one in (self.reference, self.local, self.environment)) != 1:
            raise CommandFailed(
                "Say where the value comes from: --reference NAME, --local subject|profile, or --environment NAME."
            )
        if self.environment is not None:
            return {"environment": {"variable": self.environment, "labels": self.label or {}}}
        if self.label:
            raise CommandFailed("Labels go with --environment: a reference is limited by its grant.")
        return {"reference": self.reference} if self.reference is not None else {"local": self.local}

    def __str__(self) -> str:
        """In words."""
        if self.environment is not None:
            where = ", ".join(f"{key}={value}" for key, value in sorted((self.label or {}).items()))
            return f"variable {self.environment} of the instance" + (f" with {where}" if where else "")
        return f"reference {self.reference}" if self.reference is not None else f"local value of the {self.local}"


_NOWHERE = From()


def _body(profile: str, server: str, field: str, source: From, digest: str | None) -> dict[str, Any]:
    pinned = {} if digest is None else {"definition_digest": digest}
    return {"profile": profile, "server": server, "field": field} | source.body() | pinned


@binding.command(name="add")
def add_binding(
    *,
    profile: str,
    server: str,
    field: str,
    source: From = _NOWHERE,
    digest: str | None = None,
    out: Output = _TABLE,
) -> None:
    """Say where a server's field gets its value, for one profile.

    Parameters
    ----------
    profile
        For whom.
    server
        Which server.
    field
        Which of its fields.
    digest
        The definition that you have read (keyfob server show): another one by now is refused.
    """
    result = api().call("POST", "policy", "/v1/bindings", body=_body(profile, server, field, source, digest))
    out.said(f"For {profile}, {field} of {server} comes from: {source}.", result)


@binding.command(name="set")
def set_binding(
    *,
    profile: str,
    server: str,
    field: str,
    source: From = _NOWHERE,
    digest: str | None = None,
    wait_s: float = WAIT_S,
    out: Output = _TABLE,
) -> None:
    """Say where a server's field gets its value from now on; what was given by the old way ends everywhere.

    Parameters
    ----------
    profile
        For whom.
    server
        Which server.
    field
        Which of its fields.
    digest
        The definition that you have read (keyfob server show): another one by now is refused.
    """
    body = _body(profile, server, field, source, digest)
    sentence = f"For {profile}, {field} of {server} comes from: {source}."
    standing = api().every("policy", "/v1/bindings", profile=profile, server=server)
    # These three a binding keeps for good, so there is one at most and it is the one that is meant.
    found = [one for one in standing if one["field"] == field]
    if not found:
        result = api().call("POST", "policy", "/v1/bindings", body=body)
        out.said(sentence, result)
        return
    result = api().call("PUT", "policy", entity_path("bindings", found[0]["id"]), body=body)
    # Said again as it stands it ends nothing: no notice goes out, and there is nobody to wait for.
    if result["ended"]:
        tell(sentence, result, wait_s=wait_s, out=out)
    else:
        out.said(sentence, result)


@binding.command(name="list")
def list_bindings(*, out: Output = _TABLE) -> None:
    """Show all bindings; one that is not current was made for another definition of its server."""
    columns = ("profile_name", "server_name", "field", "comes_from", "current", "id")
    out.rows(api().every("policy", "/v1/bindings"), columns, title="Bindings")


_EXPLAINED = ("instance", "outcome", "profile", "by", "field", "comes_from", "rule", "binding")


@binding.command(name="explain")
def explain_binding(
    *,
    subject: str,
    server: str,
    group: list[str] | None = None,
    idp: str | None = None,
    context: str | None = None,
    instance: str | None = None,
    pick: dict[str, str] | None = None,
    out: Output = _TABLE,
) -> None:
    """Show what somebody would be given, by which profile, binding and rule, or why not. Never a value.

    Parameters
    ----------
    subject
        Who, as their tokens name them.
    server
        Which server they ask for.
    group
        A group in their tokens; repeat for more.
    idp
        Whose tokens; needed where there are several identity providers.
    context
        The context that they name; without one, the rules choose.
    instance
        Only on this gateway; otherwise on each that may run the server.
    pick
        A reference that they pick for a field in the request: --pick.DB_URL hospital-a/db-url
    """
    body = {"subject": subject, "server": server, "groups": group or [], "choices": pick or {}}
    more = {"idp": idp, "context": context, "instance": instance}
    body |= {name: value for name, value in more.items() if value is not None}
    answer = api().call("POST", "resolver", "/v1/explain", body=body)
    if out.json:
        out.one(answer)
        return
    rows = [row for one in answer["instances"] for row in _explained(one)]
    out.rows(rows, _EXPLAINED, title=f"{subject} at {server}, by policy {answer['policy_seq']}")


def _explained(one: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a field, or one for what was refused before any field counted."""
    head = {"instance": one["instance"]["name"], "outcome": _outcome(one["refused"])}
    if one["profile"] is None:
        return [head]
    head |= {"profile": one["profile"]["name"], "by": f"{one['profile_rule']}, group {one['group']}"}
    return [
        head
        | {
            "outcome": _outcome(field["refused"]),
            "field": field["field"],
            "comes_from": " ".join(filter(None, (field["origin"], (field["source"] or {}).get("name")))),
            "rule": field["rule"],
            "binding": field["binding_id"],
        }
        for field in one["fields"]
    ]


def _outcome(refused: dict[str, Any] | None) -> str:
    if refused is None:
        return "given"
    choices = f" It may choose from {', '.join(refused['choices'])}." if refused["choices"] else ""
    return f"refused ({refused['reason']}): {refused['words']}{choices}"


@binding.command(name="approve")
def approve_binding(binding: str, *, digest: str | None = None, out: Output = _TABLE) -> None:
    """Let a binding stand for the server's definition as it is now.

    Parameters
    ----------
    binding
        Which one, by id.
    digest
        The definition that you have read (keyfob server show): another one by now is refused.
    """
    found = find("policy", "bindings", binding)
    # Left out, it approves whatever stands now: fine for whoever has just changed it himself.
    body = {} if digest is None else {"definition_digest": digest}
    result = api().call("POST", "policy", entity_path("bindings", found["id"]) + "/approve", body=body)
    out.said("The binding stands for the present definition.", result)


@binding.command(name="remove")
def remove_binding(binding: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Remove a binding, by its id."""
    remove("bindings", binding, wait_s=wait_s, out=out)
