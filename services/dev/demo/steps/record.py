"""Steps 12 and 13: what is on the record, and what is nowhere."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jsonschema import Draft202012Validator

from services.dev.demo.narration import expect, until
from services.dev.demo.people import homes
from services.dev.demo.reading import read_topic
from services.dev.demo.search import Place, files, find, process_list, topics
from services.dev.demo.stage import Stage
from services.dev.platform.postgres import program
from services.dev.platform.processes import Process, plain_environment
from shared.topics import AUDIT

_SCHEMA = Path(__file__).resolve().parents[4] / "schemas/events/keyfob.audit.record/v1.json"
_SHOWN = 14
_DUMP_S = 60.0


async def read_audit(stage: Stage) -> None:
    """The trail of both references, and the same records from the topic by a consumer that knows only the schema."""
    trail = {}
    for hospital in stage.hospitals:
        answer = await stage.stack.call("GET", "audit", "/v1/records", query={"reference": hospital.path, "limit": 200})
        trail[hospital.path] = answer["items"]
        expect(answer["items"], f"there are records about {hospital.path}")
    records = sorted((record for items in trail.values() for record in items), key=lambda record: int(record["n"]))
    _show(stage, records)
    numbers = {int(record["n"]) for record in records}

    # Waited for: records reach the topic from the outbox, a moment after the API shows them.
    async def look() -> dict[int, dict[str, Any]] | None:
        bootstrap = stage.stack.platform.broker.bootstrap
        bodies = [json.loads(one.value) async for one in read_topic(bootstrap, AUDIT, committed=True)]
        read = {int(body["n"]): body for body in bodies}
        return read if numbers <= read.keys() else None

    read = await until(look, within_s=10, sentence="the topic has every record that the API shows")
    validator = Draft202012Validator(json.loads(_SCHEMA.read_text()))
    for record in read.values():
        validator.validate(record)
    expect(all(read[int(record["n"])]["action"] == record["action"] for record in records), "both tell the same")
    expect(sorted(read) == list(range(1, len(read) + 1)), "the records are numbered without a gap")
    stage.narrator.say(f"{len(read)} records from topic {AUDIT}, numbered without a gap, each valid by its schema")


def _show(stage: Stage, records: list[dict[str, Any]]) -> None:
    columns = ("n", "who", "context", "what", "version", "instance", "decision", "when")
    rows = []
    for record in records[:_SHOWN]:
        first: dict[str, Any] = next(iter(record.get("references", ())), {})
        what = f"{record['action'].rpartition(':')[2]} {first.get('name', '')}"
        decision = record.get("decision") or record.get("reason")
        when = str(record["at"])[11:23]
        who = (record["n"], record.get("actor"), record.get("context"))
        rows.append([*who, what, first.get("version"), record.get("instance_name"), decision, when])
    stage.narrator.table(columns, rows)
    if len(records) > _SHOWN:
        stage.narrator.say(f"… and {len(records) - _SHOWN} more")


async def search_everywhere(stage: Stage) -> None:
    """Every password and token that was used, in every place where none may be."""
    used = {
        f"password {number} of {hospital.name}": password
        for hospital in stage.hospitals
        for number, password in enumerate(hospital.used, 1)
    }
    used |= {f"token of agent {number}": token for number, token in enumerate(stage.tokens, 1)}
    planted = {"what was planted": secrets.token_urlsafe(24)}
    decoy = stage.stack.layout.logs / "planted.txt"
    decoy.write_text(f"a line with {planted['what was planted']} in it\n")
    looked, found, proof = 0, [], []
    try:
        async for place in _places(stage):
            looked += 1
            found += find(used, place)
            proof += find(planted, place)
    finally:
        decoy.unlink()
    expect(proof, "the search finds what was planted for it")
    expect(not found, f"no value anywhere, but: {'; '.join(found[:5])}")
    stage.narrator.say(f"{len(used)} passwords and tokens, {looked} places searched: found nowhere")
    stage.narrator.say(f"the search works: {proof[0]}")


async def _places(stage: Stage) -> AsyncIterator[Place]:
    stack = stage.stack
    yield Place("dump of all databases", await _dump(stage))
    async for place in topics(stack.platform.broker.bootstrap):
        yield place
    theirs = (*stack.layout.own_data, homes(stage))
    for place in await asyncio.to_thread(lambda: list(files([stack.layout.root], without=theirs))):
        yield place
    for place in process_list():
        yield place


async def _dump(stage: Stage) -> bytes:
    """All databases as SQL, by PostgreSQL's own pg_dumpall; the password goes through the environment."""
    postgres = stage.stack.platform.postgres
    target = stage.stack.layout.own_data[0] / "dump.sql"
    dump = Process(
        "pg_dumpall",
        (str(program("pg_dumpall")), "-h", postgres.host, "-p", str(postgres.port), "-U", "postgres", "-w"),
        env=plain_environment(PGPASSWORD=unquote(urlsplit(postgres.dsn()).password or "")),
        log=target,
    )
    # A process appends to its log: what a run that was killed left there would stand in front.
    target.unlink(missing_ok=True)
    dump.start()
    expect(await dump.wait(_DUMP_S) == 0, "the databases can be dumped")
    content = target.read_bytes()
    target.unlink()
    expect(b"keyfob_policy" in content and b"Ada Alder" in content, "the dump has the databases in it")
    return content
