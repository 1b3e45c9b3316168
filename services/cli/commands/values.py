"""`keyfob value`: enter what is kept sealed, see that it is there, and delete it. Nothing ever shows a value again."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Final

from cyclopts import App

from services.cli.commands.removal import WAIT_S, tell
from services.cli.connection import CommandFailed
from services.cli.output import Output, note
from services.cli.session import api

value = App(name="value", help="Enter values that Keyfob keeps sealed: your own, or a profile's.")

_TABLE = Output()
_PATH: Final = "/v1/values"
LARGEST: Final = 64 * 1024
"""Bytes."""


@value.command(name="set")
def set_value(server: str, field: str, *, profile: str | None = None, out: Output = _TABLE) -> None:
    """Enter a value for a server's field, or replace it: typed without an echo, or piped in byte for byte.

    It is sealed at once, and nobody can read it back, neither you nor an administrator.

    Parameters
    ----------
    server
        For which server.
    field
        For which of its fields.
    profile
        For everybody with this profile, instead of for yourself; administrators only.
    """
    query = {"server": server, "field": field, "profile": profile}
    result = api().call("PUT", "resolver", _PATH, octets=_entered(), query=query)
    done = "entered" if result["action"] == "set" else "replaced"
    follow = "" if result["action"] == "set" else f" Who has acted on it: keyfob notice show {result['event_id']}"
    out.said(f"The value for {field} of {server} is {done}.{follow}", result)


def _entered() -> bytes:
    """Never from an argument, which every user of this machine could read."""
    if sys.stdin.isatty():
        entered = getpass("Value (not shown): ").encode("utf-8", "surrogateescape")
    else:
        # One byte more than may be shows that it is too long, without reading whatever else is piped in.
        entered = sys.stdin.buffer.read(LARGEST + 1)
        if entered.endswith(b"\n"):
            note("The value ends with a line break, and is kept so: printf %s leaves it out where echo does not.")
    if not entered:
        raise CommandFailed("Nothing was entered: the value stays as it is.")
    if len(entered) > LARGEST:
        raise CommandFailed(f"A value may have {LARGEST} bytes at most.")
    return entered


@value.command(name="list")
def list_values(*, profile: str | None = None, out: Output = _TABLE) -> None:
    """Show which values there are, when they were entered and last used: yours, and those of your profiles.

    Parameters
    ----------
    profile
        Those of this profile; administrators, operators and auditors only.
    """
    answer = api().call("GET", "resolver", _PATH, query={"profile": profile})
    out.rows(answer["items"], ("server", "field", "profile", "set_at", "last_used_at"), title="Local values")


@value.command(name="delete")
def delete_value(
    server: str, field: str, *, profile: str | None = None, wait_s: float = WAIT_S, out: Output = _TABLE
) -> None:
    """Delete a value for good, and show who has let go of it.

    Parameters
    ----------
    server
        Of which server.
    field
        Of which of its fields.
    profile
        The profile's, instead of your own; administrators only.
    wait_s
        How long to wait for everybody, seconds; 0 does not wait.
    """
    query = {"server": server, "field": field, "profile": profile}
    receipt = api().call("DELETE", "resolver", _PATH, query=query)
    tell(f"The value for {field} of {server} is deleted.", receipt, wait_s=wait_s, out=out)
