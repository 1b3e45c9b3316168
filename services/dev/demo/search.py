"""Looks for values where none may be: database dumps, topics, logs, the process list, files.

Searches for each needle in plain, base64 at its three alignments, hex and URL-encoded form. The search first has to
find what was planted for it: one that finds nothing because it looks at nothing would prove nothing.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from services.dev.demo.reading import read_topic, topic_names


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that was looked at, and what stands there."""

    name: str
    content: bytes


def encodings(value: str) -> dict[str, bytes]:
    """The forms in which a value could hide, by name."""
    raw = value.encode()
    forms = {"plain": raw, "hex": raw.hex().encode(), "url": quote(value, safe="").encode()}
    for shift in range(3):
        padded = base64.b64encode(b"\0" * shift + raw)
        # The first and last characters depend on the neighbours; those in between stand wherever the value does.
        forms[f"base64+{shift}"] = padded[(shift * 4 + 2) // 3 : len(padded) // 4 * 4 - 4]
    return forms


def find(values: Mapping[str, str], place: Place) -> list[str]:
    """Sentences that say which value stands in the place, by its label and never itself."""
    found = []
    for label, value in values.items():
        for form, needle in encodings(value).items():
            if needle in place.content:
                found.append(f"{label} ({form}) in {place.name}")
    return found


def files(roots: Sequence[Path], *, without: Sequence[Path]) -> Iterator[Place]:
    """All regular files below `roots`, except below `without`."""
    for root in roots:
        for path in sorted(root.rglob("*")):
            if any(path.is_relative_to(excluded) for excluded in without) or not path.is_file() or path.is_symlink():
                continue
            # Kafka's indices are made at their full size, megabytes of zeros each: nothing hides in those.
            yield Place(str(path), path.read_bytes().rstrip(b"\0"))


def process_list() -> Iterator[Place]:
    """The arguments of every process on the machine."""
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        arguments = "\0".join(process.info["cmdline"] or ())
        yield Place(f"arguments of process {process.info['pid']} ({process.info['name']})", arguments.encode())


async def topics(bootstrap: str) -> AsyncIterator[Place]:
    """Every record of every partition of every topic, from the start: keys, headers and payloads."""
    for topic in await topic_names(bootstrap):
        content = bytearray()
        # Aborted ones too: no committed reader is given them, and they stand in the topic all the same.
        async for record in read_topic(bootstrap, topic, committed=False):
            content += (record.key or b"") + b"\n" + (record.value or b"") + b"\n"
            content += b"\n".join(name.encode() + b"=" + value for name, value in record.headers) + b"\n"
        yield Place(f"topic {topic}", bytes(content))
