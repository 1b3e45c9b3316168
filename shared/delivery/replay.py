"""Remembering the ids of assertions until they expire, in bounded memory, per replica and instance.

A replayed assertion gains nothing (only the instance opens the answer), so replicas don't share this, and a
restart forgets it: what one sees twice is refused, what two replicas see is for audit to flag.

An instance that sends more than `per_instance` within one lifetime has its oldest ids forgotten, and from then
on assertions that expire no later than the youngest forgotten one are refused: memory is bounded, a replay is
never let through, and no instance can use up another's room.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

SWEEP_EVERY_S: Final = 60
"""How often the rooms of instances that fell silent are given back."""


@dataclass(slots=True)
class _Seen:
    """One instance's ids with their expiry, oldest arrival first; `floor` is the youngest expiry forgotten."""

    ids: OrderedDict[str, int] = field(default_factory=OrderedDict)
    floor: int = 0
    latest: int = 0

    def forget_expired(self, now: float) -> None:
        # By arrival, not by expiry: one that lives longer keeps those behind it for a minute at most.
        while self.ids and next(iter(self.ids.values())) <= now:
            self.ids.popitem(last=False)

    def forget_oldest(self) -> None:
        _, expires_at = self.ids.popitem(last=False)
        # From now on nothing can tell a replay of it from a new one, so what expires no later is refused.
        self.floor = max(self.floor, expires_at)


class ReplayWindow:
    """The ids that one replica saw. About 200 bytes an id; no method waits."""

    __slots__ = ("_instances", "_per_instance", "_swept_at")

    def __init__(self, *, per_instance: int = 65_536) -> None:
        """Remember up to `per_instance` ids of each instance: 2,000 a second at a lifetime of 30 s."""
        self._per_instance = per_instance
        self._instances: dict[str, _Seen] = {}
        self._swept_at = 0.0

    def admit(self, instance_id: str, assertion_id: str, *, expires_at: int, now: float) -> bool:
        """Whether this is the first sight of the id; it is remembered until `expires_at` (seconds since 1970)."""
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._sweep(now)
        seen = self._instances.setdefault(instance_id, _Seen())
        seen.forget_expired(now)
        if assertion_id in seen.ids or expires_at <= seen.floor:
            return False
        seen.ids[assertion_id] = expires_at
        seen.latest = max(seen.latest, expires_at)
        if len(seen.ids) > self._per_instance:
            seen.forget_oldest()
        return True

    def __len__(self) -> int:
        """How many ids are remembered now."""
        return sum(len(seen.ids) for seen in self._instances.values())

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        # A floor matters only to assertions that could still be valid, so it may go with the last id.
        self._instances = {name: seen for name, seen in self._instances.items() if seen.latest > now}
