"""Canaries that are put where the search must find them: one for each kind of place, in every form.

A search that can't find is worse than none. The forms are written here by other code than that which looks for them.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from aiokafka import AIOKafkaProducer

from services.dev.platform.processes import Process, plain_environment
from services.dev.stack import Stack
from services.dev.stack.environments import DATABASE
from tests.leaks.canaries import Canaries, Canary, Finding, needles
from tests.leaks.places import SHARED_MEMORY

TOPIC = "leaks.planted"
KINDS = {
    "process arguments": "process arguments",
    "process environment": "process environment",
    "core file": "core file",
    "database": "database",
    "topic key": "topic",
    "topic header": "topic",
    "topic value": "topic",
    "log": "log",
    "trace": "trace",
    "state": "state",
    "temporary file": "temporary file",
    "temporary file elsewhere": "temporary file",
    "memory file": "memory file",
    "answer": "answer",
}
"""What is planted → the kind of place in which it must be found."""
_CORE_S = 20.0


def written(value: bytes) -> bytes:
    """A value in every form, as whoever writes it would, a form a line."""
    text = value.decode()
    quoted = quote(text, safe="")
    lower = "%".join(one if n == 0 else one[:2].lower() + one[2:] for n, one in enumerate(quoted.split("%")))
    texts = [text, value.hex(), value.hex().upper(), quoted, lower, quote_plus(text)]
    texts += [json.dumps(text), json.dumps(text, ensure_ascii=False)]
    for before in (b"", b"x", b"xy"):
        texts += [write(before + value + b"zz").decode() for write in (base64.b64encode, base64.urlsafe_b64encode)]
    return "\n".join(texts).encode()


@dataclass(slots=True)
class Planted:
    """What was planted, and whether it was found."""

    canaries: Canaries = field(default_factory=Canaries)
    by_kind: dict[str, Canary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in KINDS:
            self.by_kind[kind] = self.canaries.new(f"planted: {kind}", whole=True)

    def lines(self, kind: str) -> bytes:
        """What to write there."""
        return written(self.by_kind[kind].secret)

    def missing(self, found: Collection[tuple[str, Finding]]) -> list[str]:
        """Kinds of places with the forms that were not found in them; `found` has the kind of each place."""
        seen = {(kind, finding.label, finding.form) for kind, finding in found}
        wanted = set(needles(self.canaries.known).values())
        return sorted(
            f"{canary.label}, {form}"
            for kind, canary in self.by_kind.items()
            for label, form in wanted
            if label == canary.label and (KINDS[kind], label, form) not in seen
        )

    def forms(self) -> int:
        """How many needles there are to be found."""
        return len(needles(self.canaries.known))


@asynccontextmanager
async def planted(stack: Stack) -> AsyncIterator[Planted]:
    """Everything planted, until the block ends."""
    made = Planted()
    elsewhere = [Path("/tmp") / f"keyfob-planted-{os.getpid()}", SHARED_MEMORY / f"keyfob-planted-{os.getpid()}"]  # noqa: S108 - to be found
    files = {
        "log": stack.layout.logs / "planted.log",
        "state": stack.layout.root / "planted",
        "temporary file": Path(tempfile.gettempdir()) / "planted",
        "temporary file elsewhere": elsewhere[0],
        "memory file": elsewhere[1],
    }
    try:
        for kind, path in files.items():
            path.write_bytes(b"before\n" + made.lines(kind) + b"\nafter\n")
        with (stack.layout.root / "traces.jsonl").open("ab") as traces:
            traces.write(made.lines("trace") + b"\n")
        await _into_the_database(stack, made)
        await _into_a_topic(stack, made)
        await _into_a_core_file(stack, made)
        process = _process(stack, made, "planted")
        process.start()
        try:
            yield made
        finally:
            await process.stop()
    finally:
        for path in elsewhere:
            path.unlink(missing_ok=True)


async def _into_the_database(stack: Stack, made: Planted) -> None:
    postgres = stack.platform.postgres
    text = made.lines("database").decode()
    # Quoted with dollars: nothing in it is special then, not even backslashes.
    await postgres.execute("CREATE TABLE planted (here text)", database=DATABASE)
    statement = f"INSERT INTO planted VALUES ($planted${text}$planted$)"  # noqa: S608 - it is all ours
    await postgres.execute(statement, database=DATABASE)


async def _into_a_topic(stack: Stack, made: Planted) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.platform.broker.bootstrap, compression_type="gzip")
    await producer.start()
    try:
        headers = [("planted", made.lines("topic header"))]
        await producer.send_and_wait(TOPIC, made.lines("topic value"), key=made.lines("topic key"), headers=headers)
    finally:
        await producer.stop()


def _process(stack: Stack, made: Planted, name: str) -> Process:
    """One that shows canaries in its arguments and its environment, and has one in its memory."""
    environment = {kind.replace(" ", "_"): made.lines(kind).decode() for kind in ("process environment", "core file")}
    arguments = ("-c", "import time; time.sleep(3600)", made.lines("process arguments").decode())
    return Process(
        name,
        (sys.executable, *arguments),
        env=plain_environment(**environment),
        log=stack.layout.logs / f"{name}.log",
        cwd=stack.layout.root,
    )


async def _into_a_core_file(stack: Stack, made: Planted) -> None:
    """A real one where this machine makes them in working directories, else a file by that name."""
    process = _process(stack, made, "planted-core")
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGABRT)
    await process.wait(_CORE_S)
    if not core_files(stack):
        (stack.layout.root / "core.planted").write_bytes(made.lines("core file"))


def core_files(stack: Stack) -> list[str]:
    """The core files that there are, by name."""
    return sorted(path.name for path in stack.layout.root.glob("core*") if path.is_file())
