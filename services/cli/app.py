"""The administrator's commands, put together."""

from __future__ import annotations

from cyclopts import App

from services.cli.commands import assignments, bindings, keys, records, servers, sources, values, variables


def admin_commands(app: App) -> None:
    """Add the administrator's commands to `app`."""
    # About in the order of a first day: connect, sync, trust, map, grant, enrol, look.
    app.command(sources.source)
    app.command(sources.sync)
    app.command(sources.reference)
    app.command(assignments.idp)
    app.command(assignments.profile)
    app.command(assignments.grant)
    app.command(variables.variable)
    app.command(bindings.binding)
    app.command(servers.server)
    app.command(servers.instance)
    app.command(values.value)
    app.command(keys.keys)
    app.command(records.notice)
    app.command(records.audit)
