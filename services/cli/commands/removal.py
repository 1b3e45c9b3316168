"""Taking something away, and seeing it gone everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from services.cli.connection import CommandFailed
from services.cli.output import Output
from services.cli.session import api, convergence, entity_path, find

WAIT_S = 5.0
"""How long a removal waits for everybody by default, seconds; 0 does not wait."""

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

MEMBER_COLUMNS = ("name", "kind", "state", "at", "until")


def remove(plural: str, name_or_id: str, *, wait_s: float, out: Output) -> None:
    """Delete an entity of policy, wait for convergence, and show it."""
    # Looked up first: what is removed is what was listed by that name, by its id.
    found = find("policy", plural, name_or_id)
    receipt = api().call("DELETE", "policy", entity_path(plural, found["id"]))
    tell(f"{found.get('name') or found['id']} is removed.", receipt, wait_s=wait_s, out=out)


def tell(
    sentence: str, receipt: dict[str, Any], *, wait_s: float, out: Output, more: Mapping[str, Any] = NOTHING
) -> None:
    """Say what was done, and who has acted on it within `wait_s` seconds; `more` is for scripts only."""
    try:
        answer = convergence(receipt["event_id"], wait_s=wait_s) if wait_s > 0 else None
    except CommandFailed as error:
        # It is done and stays done: a failure that hides that would have somebody believe the opposite.
        if out.json:
            out.said(sentence, {"change": receipt, "convergence": None, **more})
        follow = f"Follow it with: keyfob notice show {receipt['event_id']}"
        raise CommandFailed(f"{sentence} Who has acted on it is not known: {error} {follow}") from None
    if out.json:
        out.said(sentence, {"change": receipt, "convergence": answer, **more})
        return
    _show(sentence, receipt, answer, out=out)


def _show(sentence: str, receipt: dict[str, Any], answer: dict[str, Any] | None, *, out: Output) -> None:
    if answer is None:
        out.said(f"{sentence} Follow it with: keyfob notice show {receipt['event_id']}", receipt)
        return
    out.said(f"{sentence} {verdict(answer)}", receipt)
    out.rows(answer["members"], MEMBER_COLUMNS, title=f"Notice {answer['notice']['id']}")


def verdict(answer: dict[str, Any]) -> str:
    """One sentence on convergence; never "done" while somebody could still use what ended."""
    # Fenced is not done: nothing new begins there, but what runs may still hold the value.
    waiting = [member["name"] for member in answer["members"] if member["state"] in {"pending", "fenced"}]
    if answer["converged"]:
        return "Everybody has acted."
    return f"Still waiting for {', '.join(waiting) or 'the notice'}."
