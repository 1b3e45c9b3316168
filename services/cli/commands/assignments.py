"""`keyfob idp`, `profile`, `grant`: who may use what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cyclopts import App

from services.cli.commands.removal import WAIT_S, remove
from services.cli.output import Output
from services.cli.session import api

idp = App(name="idp", help="Trust identity providers.")
profile = App(name="profile", help="Make profiles and map groups to them.")
grant = App(name="grant", help="Let a profile use a reference.")

_TABLE = Output()


def _given(**wanted: Any) -> dict[str, Any]:
    # The service refuses null where it has a default, as for labels: what was not said is left out.
    return {key: value for key, value in wanted.items() if value is not None}


@idp.command(name="add")
def add_idp(
    name: str,
    *,
    issuer: str,
    jwks_uri: str,
    audience: str = "keyfob",
    groups_claim: str = "groups",
    out: Output = _TABLE,
) -> None:
    """Accept access tokens of an OIDC issuer that name `audience`."""
    body = {
        "name": name,
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "audience": audience,
        "groups_claim": groups_claim,
    }
    out.said(f"Tokens of {issuer} are accepted.", api().call("POST", "policy", "/v1/idps", body=body))


@idp.command(name="list")
def list_idps(*, out: Output = _TABLE) -> None:
    """Show the identity providers that are trusted."""
    out.rows(api().every("policy", "/v1/idps"), ("name", "issuer", "audience", "id"), title="Identity providers")


@idp.command(name="remove")
def remove_idp(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Stop trusting an identity provider: everybody who came by it is out at once."""
    remove("idps", name, wait_s=wait_s, out=out)


@profile.command(name="create")
def create_profile(name: str, *, description: str = "", out: Output = _TABLE) -> None:
    """Make a profile; its name is also the name of the context that agents ask for."""
    body = {"name": name, "description": description}
    out.said(f"Profile {name} exists.", api().call("POST", "policy", "/v1/profiles", body=body))


@profile.command(name="list")
def list_profiles(*, out: Output = _TABLE) -> None:
    """Show all profiles."""
    out.rows(api().every("policy", "/v1/profiles"), ("name", "description", "id"), title="Profiles")


@profile.command(name="map")
def map_group(name: str, *, idp: str, group: str, out: Output = _TABLE) -> None:
    """Give the profile to everybody in a group of an identity provider."""
    body = {"profile": name, "idp": idp, "group": group}
    out.said(f"Group {group} has profile {name}.", api().call("POST", "policy", "/v1/mappings", body=body))


@profile.command(name="mappings")
def list_mappings(*, out: Output = _TABLE) -> None:
    """Show which group has which profile."""
    out.rows(api().every("policy", "/v1/mappings"), ("group", "idp_name", "profile_name", "id"), title="Mappings")


@profile.command(name="unmap")
def unmap_group(mapping: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Take the profile from a group again, by the mapping's id."""
    remove("mappings", mapping, wait_s=wait_s, out=out)


@profile.command(name="remove")
def remove_profile(name: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Remove a profile with its mappings, grants and bindings."""
    remove("profiles", name, wait_s=wait_s, out=out)


@grant.command(name="add")
def add_grant(
    *,
    profile: str,
    reference: str,
    server: str | None = None,
    field: str | None = None,
    destination: str | None = None,
    label: dict[str, str] | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    out: Output = _TABLE,
) -> None:
    """Let a profile use a reference, within the limits that you name.

    Parameters
    ----------
    profile
        Who gets it.
    reference
        What they get, by name.
    server
        Only for this server.
    field
        Only for this field.
    destination
        Only for servers at this host.
    label
        Only on instances with this label: --label.env prod
    starts_at
        Not before this time (with time zone).
    ends_at
        Not after this time (with time zone).
    """
    body = _given(
        profile=profile,
        reference=reference,
        server=server,
        field=field,
        destination=destination,
        labels=label,
        # A time without a zone is the person's own; the service takes none without.
        starts_at=starts_at.astimezone().isoformat() if starts_at else None,
        ends_at=ends_at.astimezone().isoformat() if ends_at else None,
    )
    result = api().call("POST", "policy", "/v1/grants", body=body)
    out.said(f"Profile {profile} may use {reference}.", result)


@grant.command(name="list")
def list_grants(*, out: Output = _TABLE) -> None:
    """Show all grants."""
    columns = ("profile_name", "reference_name", "server_name", "field", "starts_at", "ends_at", "id")
    out.rows(api().every("policy", "/v1/grants"), columns, title="Grants")


@grant.command(name="remove")
def remove_grant(grant: str, *, wait_s: float = WAIT_S, out: Output = _TABLE) -> None:
    """Take a grant back, by its id, and show who has acted on it."""
    remove("grants", grant, wait_s=wait_s, out=out)
