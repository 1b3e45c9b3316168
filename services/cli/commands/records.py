"""`keyfob notice` and `keyfob audit`: what was announced and who acted on it, who used what."""

from __future__ import annotations

from cyclopts import App

from services.cli.commands.removal import MEMBER_COLUMNS, verdict
from services.cli.connection import CommandFailed
from services.cli.output import Output
from services.cli.session import api, convergence, entity_path

notice = App(name="notice", help="See what gateways were told, and who has acted on it.")
audit = App(name="audit", help="See who used what, where and when.")

_TABLE = Output()
_RECORD_COLUMNS = (
    "n",
    "at",
    "actor",
    "context",
    "action",
    "decision",
    "reason",
    "references",
    "instance_name",
    "server_name",
)


@notice.command(name="list")
def list_notices(*, out: Output = _TABLE) -> None:
    """Show recent notices."""
    items = api().call("GET", "notifier", "/v1/notices")["items"]
    out.rows(items, ("id", "kind", "cause_id", "published_at", "converged", "waiting"), title="Notices")


@notice.command(name="show")
def show_notice(notice: str, *, wait_s: float = 0.0, out: Output = _TABLE) -> None:
    """Show one notice, by its id or the id of the change that caused it: who has dropped, who is pending until when.

    Ends with a non-zero code while somebody could still use what ended.
    """
    # Convergence is asked for by the cause: one call for people who hold a receipt and for those who hold a notice.
    if notice.startswith("notice/"):
        cause = api().call("GET", "notifier", entity_path("notices", notice))
        notice = cause.get("notice", cause)["cause_id"]
    answer = convergence(notice, wait_s=wait_s)
    if answer is None:
        raise CommandFailed(f"No notice is known for {notice}.")
    if out.json:
        out.one(answer)
    else:
        out.rows(answer["members"], MEMBER_COLUMNS, title=f"Notice {answer['notice']['id']}. {verdict(answer)}")
    # After the table: a script gets the members, and a code that it can't overlook.
    if not answer["converged"]:
        raise CommandFailed(verdict(answer))


@audit.command(name="list")
def list_records(
    *,
    reference: str | None = None,
    subject: str | None = None,
    instance: str | None = None,
    since: str | None = None,
    limit: int = 100,
    out: Output = _TABLE,
) -> None:
    """Show records, oldest first: who, for which context, what, where, and the decision.

    Parameters
    ----------
    reference
        Only those about this reference, by name or id.
    subject
        Only those about this person or agent.
    instance
        Only those of this gateway, by name or id.
    since
        Only those after this time (RFC 3339).
    limit
        How many at most.
    """
    query = {"reference": reference, "subject": subject, "instance": instance, "since": since, "limit": limit}
    items = api().call("GET", "audit", "/v1/records", query=query)["items"]
    if not out.json:
        items = [{**item, "references": [_reference(each) for each in item.get("references", ())]} for item in items]
    out.rows(items, _RECORD_COLUMNS, title="Audit")


def _reference(item: dict[str, str]) -> str:
    version = f"@{item['version']}" if item.get("version") else ""
    return f"{item['name']}{version}"


@audit.command(name="leases")
def list_leases(*, reference: str | None = None, out: Output = _TABLE) -> None:
    """Show who holds a value right now."""
    items = api().every("audit", "/v1/leases", open=True, reference=reference)
    columns = ("reference_name", "version", "subject", "context", "instance_name", "opened_at", "expires_at")
    out.rows(items, columns, title="Open leases")
