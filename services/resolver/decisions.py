"""Decisions remembered for as long as not one fact changes: the same question on the same facts has the same answer.

A release asks twice, and usually nothing happened in between. What is remembered is dropped as a whole when any fact
of either topic changes (a tick changes none); refusals are never remembered, nor is a plan beyond the end of a grant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.resolver.domain.decision import Allowed, Denied, Person, Plan, Trusts, Wish, decide
from services.resolver.domain.snapshot import Snapshot

MOST_REMEMBERED: Final = 10_000
"""Plans, some 1.5 KB each."""

Question = tuple[bytes, str, str, str | None, tuple[tuple[str, str], ...]]
"""(digest of the subject's token, instance, server, context, choices)"""


@dataclass(slots=True)
class Decisions:
    """`domain.decision.decide`, with a memory of one moment."""

    trusts: Trusts
    _facts: Snapshot = field(default_factory=Snapshot)
    _plans: dict[Question, Plan] = field(default_factory=dict)

    def decide(
        self, snapshot: Snapshot, person: Person, instance_id: str, wish: Wish, *, token_digest: bytes, now: datetime
    ) -> Allowed | Denied:
        """The decision on `snapshot` at `now`. `token_digest` stands for the person: the token says it all."""
        if not snapshot.same_facts(self._facts) or len(self._plans) >= MOST_REMEMBERED:
            self._facts, self._plans = snapshot, {}
        question = (token_digest, instance_id, wish.server, wish.context, tuple(wish.choices.items()))
        plan = self._plans.get(question)
        if plan is not None and plan.in_force(now):
            return Allowed(plan.at(snapshot.floor))
        decided = decide(snapshot, person, instance_id, wish, now=now, trusts=self.trusts)
        # Not a refusal: a grant that begins turns it around without any fact changing.
        if isinstance(decided, Allowed):
            self._plans[question] = decided.plan
        return decided
