"""An MCP server that only looks around: run as a script, with the places to look into as arguments.

It says, as one JSON line, where it found words that begin with `canary-`: in which kind of place, and which.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WORD = re.compile(rb"canary-[0-9a-z-]+")
ENOUGH = 1 << 20


def of_processes(places: list[str]) -> Iterator[tuple[str, Path]]:
    """Environments and command lines; files where a process works; the places as a process sees them."""
    roots = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        yield from (("process", process / name) for name in ("environ", "cmdline"))
        with suppress(OSError):
            yield from (("process", path) for path in (process / "cwd").iterdir())
        with suppress(OSError):
            root = (process / "root").stat()
            if (root.st_dev, root.st_ino) not in roots:
                roots.add((root.st_dev, root.st_ino))
                yield from (("process", path) for place in places for path in files(process / "root" / place[1:]))


def files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for directory, _, names in os.walk(place):
        yield from (Path(directory, name) for name in names)


def found(path: Path) -> list[bytes]:
    with suppress(OSError):
        # What is no plain file may keep whoever opens it waiting.
        if path.is_file():
            with path.open("rb") as stream:
                return WORD.findall(stream.read(ENOUGH))
    return []


def main() -> None:
    paths = [("file", path) for place in sys.argv[1:] for path in files(Path(place))]
    words = {(kind, word.decode()) for kind, path in [*of_processes(sys.argv[1:]), *paths] for word in found(path)}
    sys.stdout.write(json.dumps(sorted(words)) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
