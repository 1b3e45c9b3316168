"""What was found, and which of it may be there: each exception by its exact place, and no others."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.dev.demo.stage import GATEWAYS
from services.dev.stack.layout import Layout
from shared.topics import ACCESS, AUDIT
from tests.leaks.canaries import Canaries, Canary, Finding, find, needles
from tests.leaks.places import Sight, kept_by_servers, state_files, temporary_files
from tests.leaks.planting import Planted
from tests.leaks.processes import Seen, Watch
from tests.leaks.ward import CARELESS, Ward

PRIVATE = 0o600
RECORDS = ("dump of all databases", f"topic {ACCESS}", f"topic {AUDIT}")
"""Where the record of accesses is."""


def meant_to_hold(layout: Layout) -> dict[Path, str]:
    """Files that are there to hold a secret → the labels of those that each may hold, as a pattern."""
    root = layout.root
    files = {layout.admin_token: "token of the admin"}
    files |= {
        path: f"token of {path.stem}|enrolment token of {path.stem}" for path in (root / "people").glob("*.token")
    }
    files |= {path: f"secret {path.name}" for path in (root / "secrets").rglob("*") if path.is_file()}
    for service in ("sync", "resolver"):
        files |= {path: f"{service}'s token for {path.stem}" for path in layout.credentials(service).glob("*.json")}
    files |= {path: f"key keys/{path.name}" for path in (root / "keys").glob("*.key")}
    files |= {layout.instance(name) / "enrolment.token": f"enrolment token of {name}" for name in GATEWAYS}
    for directory in (layout.installation_keys, root / "recovered"):
        files |= {path: f"(bytes of the )?installation key {path.stem}" for path in directory.glob("*.kek")}
    return files | {root / "safe.recovery": "(bytes of the )?recovery key"}


@dataclass(slots=True)
class Verdict:
    """Everything that was looked at and found."""

    looked: Counter[str] = field(default_factory=Counter)
    size: int = 0
    planted: list[tuple[str, Finding]] = field(default_factory=list)
    """What was found of the planted ones, with the kind of place."""
    leaks: list[Finding] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    """Labels that were found where they are meant to be."""


class Court:
    """Searches one sight after another."""

    def __init__(self, planted: Planted, canaries: Canaries, layout: Layout) -> None:
        self._planted = needles(planted.canaries.known)
        self._wanted = needles(canaries.known)
        self._known = canaries.known
        self._files = {str(path): pattern for path, pattern in meant_to_hold(layout).items()}
        self.verdict = Verdict()

    def search(self, sight: Sight) -> None:
        """Search a file, a dump, a topic or an answer."""
        self._count(sight.kind, sight.content)
        self.verdict.planted += [(sight.kind, one) for one in find(self._planted, sight.name, sight.content)]
        pattern = self._files.get(sight.name)
        for finding in find(self._wanted, sight.name, sight.content):
            own = pattern is not None and _matches(pattern, finding.label)
            self._judge(finding, meant=own or (self._known[finding.label].recorded and sight.name in RECORDS))

    def search_process(self, seen: Seen) -> None:
        """Search a process: no canary in its arguments, and in its environment those that it was given to use."""
        for kind, content in (("process arguments", seen.arguments), ("process environment", seen.environment)):
            self._count(kind, content)
            self.verdict.planted += [(kind, one) for one in find(self._planted, seen.name, content)]
            for finding in find(self._wanted, f"{kind} of {seen.name}", content):
                meant = kind == "process environment" and may_have(self._known[finding.label], seen)
                self._judge(finding, meant=meant)

    def _count(self, kind: str, content: bytes) -> None:
        self.verdict.looked[kind] += 1
        self.verdict.size += len(content)

    def _judge(self, finding: Finding, *, meant: bool) -> None:
        if meant:
            self.verdict.meant.add(finding.label)
        else:
            self.verdict.leaks.append(finding)


def _matches(pattern: str, label: str) -> bool:
    return re.fullmatch(f"(?:{pattern}) #[0-9]+", label) is not None


def may_have(canary: Canary, seen: Seen) -> bool:
    """Whether a process is the server that a value is for, or the gateway that its deployment gave it to."""
    words = seen.words
    if str(CARELESS) in words:
        return any(f"--serves={server}" in words for server in canary.servers)
    is_gateway = words[-4:-1] == ["services", "serve", "gateway"]
    is_the_one = any(
        f"KEYFOB_KAFKA_MEMBER={name}".encode() in seen.environment.split(b"\0") for name in canary.gateways
    )
    return (is_gateway and is_the_one) or (canary.given and "services" in words)


async def judge(ward: Ward, planted: Planted, watch: Watch, since: float) -> Verdict:
    """Search everything."""
    stack = ward.stage.stack
    court = Court(planted, ward.canaries, stack.layout)
    async for sight in _kept(ward, planted):
        court.search(sight)
    for sight in (*state_files(stack), *temporary_files(stack.layout.root, since)):
        court.search(sight)
    for seen in watch.seen:
        court.search_process(seen)
    return court.verdict


async def _kept(ward: Ward, planted: Planted) -> AsyncIterator[Sight]:
    async for sight in kept_by_servers(ward.stage.stack):
        yield sight
    for sight in (*ward.answers, Sight("answer", "planted", planted.lines("answer"))):
        yield sight


def summary(ward: Ward, planted: Planted, watch: Watch, verdict: Verdict) -> list[str]:
    """A few lines for whoever started the run: labels and numbers, never a value."""
    places = ", ".join(f"{times} {kind}" for kind, times in sorted(verdict.looked.items()))
    total, leaked = sum(verdict.looked.values()), {one.label for one in verdict.leaks}
    missing = len(planted.missing(verdict.planted))
    return [
        "driven: " + ", ".join(f"{times} {what}" for what, times in sorted(ward.driven.items())),
        f"searched: {total} places, {verdict.size / 1e6:.0f} MB ({places}); {watch.looks} looks at /proc",
        f"planted: {planted.forms()} forms in {len(planted.by_kind)} places, {missing} of them not found",
        f"canaries: {len(ward.canaries.known)}, {len(verdict.meant)} seen where they belong, {len(leaked)} leaked",
    ]


def not_private(layout: Layout) -> Iterator[str]:
    """Files that are meant to hold a secret and that somebody else could read, or that are not there."""
    for path in meant_to_hold(layout):
        if not path.is_file() or stat.S_IMODE(path.stat().st_mode) != PRIVATE:
            yield str(path)
