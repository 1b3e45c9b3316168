"""`keyfob source`, `keyfob sync`, `keyfob reference`: places that hold secrets, and the names that point into them."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from services.cli.connection import CommandFailed
from services.cli.output import Output, note
from services.cli.session import api, entity_path, find

source = App(name="source", help="Connect places that hold secrets.")
reference = App(name="reference", help="See and describe the names that point to secrets. Never a value.")

_SOURCE_COLUMNS = ("name", "place.provider", "place.origin", "place.mount", "reachable", "id")
_REFERENCE_COLUMNS = ("name", "source", "version", "state", "changed_at", "owner", "id")
_TABLE = Output()


@source.command(name="add")
def add_source(name: str, *, origin: str, mount: str = "secret", prefix: str = "", out: Output = _TABLE) -> None:
    """Connect a KV v2 mount of Vault or OpenBao.

    The services read their credentials for it from their own files, by the source's name and for exactly this origin.

    Parameters
    ----------
    name
        How people will call it.
    origin
        Scheme, host and port, such as https://vault.example.org:8200.
    mount
        The KV v2 mount.
    prefix
        Only secrets below this path.
    """
    place = {"provider": "kv2", "origin": origin, "mount": mount, "prefix": prefix}
    result = api().call("POST", "sync", "/v1/sources", body={"name": name, "place": place})
    out.said(f"Source {name} is connected. Next: keyfob sync {name}", result)


@source.command(name="list")
def list_sources(*, out: Output = _TABLE) -> None:
    """Show all sources and whether they answer."""
    out.rows(api().every("sync", "/v1/sources"), _SOURCE_COLUMNS, title="Sources")


@source.command(name="coverage")
def coverage(*, out: Output = _TABLE) -> None:
    """Show for each source how many references it has, in which state, and when it was last swept."""
    answer = api().call("GET", "sync", "/v1/coverage")
    # All columns, whatever they are: this is the table for whoever looks for trouble.
    out.rows(answer["items"], tuple(answer["items"][0]) if answer["items"] else (), title="Coverage")


@source.command(name="remove")
def remove_source(name: str, *, out: Output = _TABLE) -> None:
    """Disconnect a source; its references become unusable at once."""
    found = find("sync", "sources", name)
    result = api().call("DELETE", "sync", entity_path("sources", found["id"]))
    out.said(f"Source {name} is removed, and its references with it.", result)


def sync(
    source: Annotated[str | None, Parameter(help="Only this source; all of them without.")] = None,
    *,
    wait_s: float = 60.0,
    out: Output = _TABLE,
) -> None:
    """Look at one source or all of them now, and say what changed."""
    run = api().call("POST", "sync", "/v1/syncs", body={"source": source} if source else {})
    deadline = time.monotonic() + wait_s
    while run["state"] not in {"done", "failed"} and time.monotonic() < deadline:
        note(f"syncing … {run.get('seen', 0)} references seen")
        run = api().call("GET", "sync", entity_path("syncs", run["id"]), query={"wait_s": 5})
    # Shown in any case: a failed sync says which source, and why.
    out.one(run)
    if run["state"] != "done":
        raise CommandFailed("The sync did not finish; `keyfob source coverage` says which source has trouble.")


@reference.command(name="list")
def list_references(*, source: str | None = None, state: str | None = None, out: Output = _TABLE) -> None:
    """Show all references of all sources: names, versions and states."""
    items = api().every("sync", "/v1/references", source=source, state=state)
    out.rows(items, _REFERENCE_COLUMNS, title="References")


@reference.command(name="show")
def show_reference(name: str, *, out: Output = _TABLE) -> None:
    """Show one reference, by name or id."""
    out.one(find("sync", "references", name))


@reference.command(name="set")
def set_reference(
    name: str,
    *,
    new_name: str | None = None,
    owner: str | None = None,
    description: str | None = None,
    out: Output = _TABLE,
) -> None:
    """Rename a reference, or say who owns it and what it is for."""
    found = find("sync", "references", name)
    wanted: dict[str, Any] = {"name": new_name, "owner": owner, "description": description}
    body = {key: value for key, value in wanted.items() if value is not None}
    result = api().call("PUT", "sync", entity_path("references", found["id"]), body=body)
    out.said(f"Reference {new_name or name} is changed.", result)
