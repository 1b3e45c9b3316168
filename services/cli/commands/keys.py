"""`keyfob keys`: make, change, retire and look at the installation keys under which local values are sealed.

Keys are made here and carried to the replicas by whoever runs them: no service ever sends or receives one.
`keyfob keys recover` is in `services.__main__`, as it works on the resolver's own database.
"""

from __future__ import annotations

import importlib
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cyclopts import App
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.output import Output, note
from services.cli.session import api

keys = App(name="keys", help="Make, change and retire the installation keys of local values.")

_TABLE = Output()
_COLUMNS: Final = ("n", "key_id", "state", "age", "values", "recovery_key_id", "replicas")
_POLL_S: Final = 0.3
_DAY_S: Final = 86_400


@keys.command
def generate(*, directory: Path | None = None, recovery: str | None = None, out: Output = _TABLE) -> None:
    """Make an installation key: the first one, or the next one to rotate to.

    It is kept as the resolver's settings say (KEYFOB_RESOLVER_KEY_PROVIDER: in a file, or wrapped by a KMS).

    Parameters
    ----------
    directory
        Where to put it; without, KEYFOB_RESOLVER_KEYS_DIR.
    recovery
        The public half of a recovery key (keyfob keys generate-recovery): the key can then be restored without its
        file.
    """
    # Imported only now: cryptography and a KMS's client take longer to load than all other commands to run.
    made = importlib.import_module("services.cli.key_making").make_installation_key(directory, recovery)
    out.said(_warning(made), made)


def _warning(made: dict[str, str | None]) -> str:
    key_id, file, recovery = made["key_id"], made["file"], made["recovery_key_id"]
    if recovery is None:
        loss = (
            "IF THIS FILE IS LOST, every local value sealed under it is lost for good: nobody can open them, neither "
            "an admin nor the makers of Keyfob, and everybody has to enter them again. Keep a copy in a safe, apart "
            "from the database's backups, or make keys with --recovery. References don't need it."
        )
    else:
        loss = (
            f"If this file is lost, `keyfob keys recover` restores it from the database with the recovery key "
            f"{recovery}. If both are lost, every local value is lost for good. References don't need it."
        )
    files = " and its .recovery file" if recovery else ""
    return (
        f"The installation key {key_id} is in {file}. Whoever has this file and the database can read every local "
        f"value.\n{loss}\nNext: put the file{files} into the keys directory of every resolver replica; a first key is "
        "used from their next start on, a further one from `keyfob keys rotate`."
    )


@keys.command(name="generate-recovery")
def generate_recovery(file: Path, *, out: Output = _TABLE) -> None:
    """Make a recovery key: its private half into a file, its public half onto the screen.

    Run it on a machine that is not online, print the file or put it on a medium, and lock it away.

    Parameters
    ----------
    file
        Where the private half goes; it must not exist yet.
    """
    made = importlib.import_module("services.cli.key_making").make_recovery_key(file)
    sentence = (
        f"The recovery key {made['recovery_key_id']} is in {file}: take it offline. Whoever has it and the database "
        "can read every local value; without it, lost installation keys stay lost.\n"
        f"Its public half, which is no secret:\n\n    {made['public']}\n\n"
        f"Next: keyfob keys generate --recovery {made['public']}"
    )
    out.said(sentence, made)


@keys.command
def status(*, out: Output = _TABLE) -> None:
    """Show all installation keys: their ages, what needs them, who has them, and how far a rotation is."""
    answer = api().call("GET", "resolver", "/v1/keys")
    if out.json:
        out.one(answer)
        return
    out.rows([_row(one, answer["replicas"]) for one in answer["keys"]], _COLUMNS, title="Installation keys")
    for sentence in _remarks(answer):
        note(sentence)


def _row(key: dict[str, Any], replicas: list[dict[str, Any]]) -> dict[str, Any]:
    having = [one["replica_id"] for one in replicas if key["key_id"] in one["key_ids"]]
    return key | {"age": _age(key["since"]), "replicas": having}


def _age(since: str) -> str:
    # The service's moment by this machine's clock, which may be behind: hence no less than nothing, below.
    seconds = time.time() - _timestamp(since)
    return f"{seconds / _DAY_S:.0f} days" if seconds >= _DAY_S else f"{max(seconds, 0) / 3600:.1f} hours"


def _timestamp(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _remarks(answer: dict[str, Any]) -> list[str]:
    said = []
    rotation = answer["rotation"]
    if rotation is not None and rotation["finished_at"] is None:
        said.append(f"A rotation to {rotation['key_id']} is under way: {rotation['done']} of {rotation['total']}.")
    if rotation is not None and rotation["damaged"]:
        said.append(f"{rotation['damaged']} values did not open in the last rotation and were left as they are.")
    said += [f"{one} waits in every replica: keyfob keys rotate {one}" for one in answer["waiting"]]
    said += [
        f"Values need the key {one}, which was never current here: look at the backups." for one in answer["missing"]
    ]
    said += [
        f"{one['key_id']} has no recovery: losing its file loses {one['values']} values."
        for one in answer["keys"]
        if one["recovery_key_id"] is None and one["state"] != "retired"
    ]
    return said


@keys.command
def rotate(key_id: str | None = None, *, wait_s: float = 3600.0, out: Output = _TABLE) -> None:
    """Make a new key current and bring all values to it, while everything keeps running.

    Parameters
    ----------
    key_id
        The new key (keyfob keys generate), which every replica must have; without, the only one that waits.
    wait_s
        How long to watch; the rotation goes on without a watcher.
    """
    body = {} if key_id is None else {"key_id": key_id}
    answer = api().call("POST", "resolver", "/v1/keys/rotations", body=body)
    answer = _watched(answer, wait_s=wait_s, quiet=out.json)
    rotation = answer["rotation"]
    if rotation["finished_at"] is None:
        out.said("The rotation is under way: follow it with `keyfob keys status`.", answer)
        return
    said = f"All values are under {rotation['key_id']}: {rotation['done']} were brought to it."
    if rotation["damaged"]:
        said += f" {rotation['damaged']} did not open and were left as they are; their key can't be retired."
    out.said(f"{said} Next, when no backup is needed that is older: keyfob keys retire", answer)


def _watched(answer: dict[str, Any], *, wait_s: float, quiet: bool) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    columns = (TextColumn("rewrapping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On stderr: what a script reads from stdout is the answer alone.
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("rewrapping", total=answer["rotation"]["total"])
        while True:
            progress.update(task, completed=answer["rotation"]["done"])
            if answer["rotation"]["finished_at"] is not None or time.monotonic() >= deadline:
                return answer
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
            answer = api().call("GET", "resolver", "/v1/keys")


@keys.command
def retire(key_id: str, *, out: Output = _TABLE) -> None:
    """Check that nothing needs a former key any more, and take note of it.

    Parameters
    ----------
    key_id
        Which one (keyfob keys status).
    """
    answer = api().call("POST", "resolver", "/v1/keys/retirements", body={"key_id": key_id})
    retired = next(one for one in answer["keys"] if one["key_id"] == key_id)
    rotation = answer["rotation"]
    # Until the rotation was over some values were still under it, so backups up to then hold such values.
    since = rotation["finished_at"] if rotation else retired["retired_at"]
    out.said(
        f"Nothing in the database needs {key_id} any more: its file may leave the replicas' directories.\n"
        f"BACKUPS OLDER THAN {since} STILL NEED IT: keep the file in a safe, or what restores it, for as long as you "
        "keep any of them.",
        answer,
    )
