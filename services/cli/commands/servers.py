"""`keyfob server` and `keyfob instance`: what runs, and where it may run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from cyclopts import App

from services.cli.commands.removal import WAIT_S, remove, tell
from services.cli.commands.variables import missing_variables
from services.cli.connection import CommandFailed
from services.cli.output import Output, note
from services.cli.session import api, entity_path, find

server = App(name="server", help="Define MCP servers: what runs or is called, and where credentials go.")
instance = App(name="instance", help="Enrol gateways, and shut them out.")

_TABLE = Output()
_COLUMNS = (
    "name",
    "profile",
    "state",
    "labels",
    "allowed_servers",
    "open_leases",
    "missing_variables",
    "last_heard",
    "id",
)
"""Of an instance in a list."""


def _definition(  # noqa: PLR0917 - one for each way to say it
    file: Path | None, command: str | None, arg: list[str], url: str | None, field: list[str], file_field: list[str]
) -> dict[str, Any]:
    if file is not None:
        try:
            content: dict[str, Any] = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CommandFailed(f"{file} is not a readable JSON definition ({type(error).__name__}).") from None
        return content
    if command is not None and url is None:
        kinds = {"environment": field, "file": file_field}
        fields = [{"inject": kind, "name": name} for kind, names in kinds.items() for name in names]
        return {"transport": "stdio", "command": command, "args": arg, "fields": fields}
    if url is not None and command is None and not file_field:
        fields = [{"inject": "header", "name": name, "header": name} for name in field]
        return {"transport": "http", "url": url, "fields": fields}
    raise CommandFailed(
        "Say what the server is: --file, or --command (stdio), or --url (HTTP, which takes no --file-field)."
    )


@server.command(name="create")
def create_server(
    name: str,
    *,
    file: Path | None = None,
    command: str | None = None,
    arg: list[str] | None = None,
    url: str | None = None,
    field: list[str] | None = None,
    file_field: list[str] | None = None,
    owner: str = "",
    out: Output = _TABLE,
) -> None:
    """Define an MCP server.

    Parameters
    ----------
    name
        What agents will call it.
    file
        A JSON file with the whole definition.
    command
        The program of a stdio server, by absolute path.
    arg
        An argument for it; repeat for more. Never a credential.
    url
        The address of an HTTP server.
    field
        A credential that it needs: an environment variable (stdio) or a header (HTTP). Repeat for more.
    file_field
        A credential that it reads from a file: the environment variable that will hold the file's path. Repeat for
        more.
    owner
        Who answers for it.
    """
    definition = _definition(file, command, arg or [], url, field or [], file_field or [])
    body = {"name": name, "definition": definition, "owner": owner}
    out.said(f"Server {name} is defined.", api().call("POST", "policy", "/v1/servers", body=body))


@server.command(name="update")
def update_server(name: str, *, file: Path, out: Output = _TABLE) -> None:
    """Change a server's definition; its bindings are suspended until they are approved again."""
    found = find("policy", "servers", name)
    # The service takes a server whole: left out, its owner would be nobody.
    body = {"definition": _definition(file, None, [], None, [], []), "owner": found.get("owner", "")}
    result = api().call("PUT", "policy", entity_path("servers", found["id"]), body=body)
    out.said(f"Server {name} is changed: approve its bindings (keyfob binding approve).", result)


@server.command(name="list")
def list_servers(*, out: Output = _TABLE) -> None:
    """Show all servers."""
    columns = ("name", "definition.transport", "owner", "digest", "id")
    out.rows(api().every("policy", "/v1/servers"), columns, title="Servers")


@server.command(name="show")
def show_server(name: str, *, out: Output = _TABLE) -> None:
    """Show one server with its definition."""
    out.one(find("policy", "servers", name))


@server.command(name="remove")
def remove_server(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Remove a server with its bindings."""
    remove("servers", name, wait_s=wait_s, out=out)


@instance.command(name="enrol")
def enrol(
    name: str,
    *,
    token_file: Path,
    server: list[str] | None = None,
    any_server: bool = False,
    label: dict[str, str] | None = None,
    profile: Literal["sealed", "https"] = "sealed",
    expires_in_s: int = 3600,
    out: Output = _TABLE,
) -> None:
    """Make a single-use token with which one gateway can enrol.

    Parameters
    ----------
    name
        What the instance will be called.
    token_file
        Where the token goes: a new file that only you can read. Hand it to the gateway's settings.
    server
        A server that it may run; repeat for more.
    any_server
        It may run every server, also those defined later.
    label
        Where it runs, fixed from now on: --label.env prod
    profile
        How it speaks with Keyfob, fixed from now on: sealed (keys of its own and the broker), or https (a client
        certificate and nothing else).
    expires_in_s
        How long the token can be used, seconds, a day at most.
    """
    # Everything only in so many words: left out, it must not mean all.
    allowed = ["*"] if any_server else server or []
    if not allowed:
        raise CommandFailed("Say what it may run: --server NAME, or --any-server.")
    body = {
        "name": name,
        "delivery": profile,
        "labels": label or {},
        "allowed_servers": allowed,
        "expires_in_s": expires_in_s,
    }
    # The file first: a token that had no place would lie open at the service, and block the name, until it expires.
    with _private_file(token_file) as file:
        result = api().call("POST", "policy", "/v1/enrolments", body=body)
        file.write(result.pop("token"))
    out.said(f"The token for {name} is in {token_file}; it can be used once.", result)


@contextlib.contextmanager
def _private_file(path: Path) -> Iterator[TextIO]:
    """A new file for its owner only; gone again if the block fails."""
    try:
        # O_EXCL follows no link: a file that somebody has put there in advance never gets the token.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be made: {error.strerror}. No token was asked for.") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@instance.command(name="withdraw")
def withdraw(name: str, *, out: Output = _TABLE) -> None:
    """Take an enrolment back, by its instance's name or by id: nobody can use its token any more."""
    result = api().call("DELETE", "policy", entity_path("enrolments", name))
    out.said(f"The enrolment of {name} is taken back.", result)


@instance.command(name="list")
def list_instances(*, out: Output = _TABLE) -> None:
    """Show all instances: what they may run, what they last said, and which variables they would miss."""
    out.rows(_known(api().every("policy", "/v1/instances")), _COLUMNS, title="Instances")


@instance.command(name="show")
def show_instance(name: str, *, out: Output = _TABLE) -> None:
    """Show one instance, with the variables that it was started with and those that it would miss."""
    out.one(_known([find("policy", "instances", name)])[0])


def _known(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instances with what they said, and with what bindings would ask of them in vain."""
    heard = {item["instance_id"]: item for item in api().every("notifier", "/v1/instances")}
    bindings, variables = api().every("policy", "/v1/bindings"), api().every("policy", "/v1/variables")
    # What policy says wins: the notifier knows what an instance said, not whether it may.
    items = [{**heard.get(item["id"], {}), **item, "profile": item.get("delivery", "")} for item in instances]
    return [item | {"missing_variables": missing_variables(item, bindings, variables)} for item in items]


@instance.command(name="ban")
def ban(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Shut an instance out: it is refused everywhere, what it holds ends, and is listed as exposed."""
    found = find("policy", "instances", name)
    before = _held(found["id"])
    receipt = api().call("POST", "policy", entity_path("instances", found["id"]) + "/ban")
    exposed = _exposed(before, _held(found["id"]))
    if not out.json:
        _tell_exposed(name, exposed, out)
    tell(f"Instance {name} is banned.", receipt, wait_s=wait_s, out=out, more={"exposed": exposed})


def _held(instance_id: str) -> list[dict[str, Any]] | None:
    """What an instance holds by audit's record; None where audit can't be asked: a ban never waits for it."""
    try:
        return api().every("audit", "/v1/leases", open=True, instance=instance_id)
    except CommandFailed:
        return None


def _exposed(*looks: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Everything that was held at one of the looks: what came between them, and what the ban ended at once."""
    if None in looks:
        return None
    return list({lease["lease_id"]: lease for look in looks for lease in look or ()}.values())


def _tell_exposed(name: str, exposed: list[dict[str, Any]] | None, out: Output) -> None:
    if exposed is None:
        note(f"What {name} held is not known, since audit did not answer: look at keyfob audit leases when it does.")
        return
    if not exposed:
        out.said(f"{name} held no value.", {})
        return
    # A receipt that it let go proves nothing if somebody else speaks for it.
    title = f"{name} held {len(exposed)} values. If it is in wrong hands they are exposed: rotate them"
    out.rows(exposed, ("reference_name", "version", "subject", "context", "server_name", "opened_at"), title=title)


@instance.command(name="allow")
def allow(name: str, *, out: Output = _TABLE) -> None:
    """Let a banned instance in again."""
    found = find("policy", "instances", name)
    result = api().call("POST", "policy", entity_path("instances", found["id"]) + "/allow")
    out.said(f"Instance {name} is allowed again.", result)


@instance.command(name="remove")
def remove_instance(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Remove an instance for good."""
    remove("instances", name, wait_s=wait_s, out=out)
