"""One estate, asked who gets what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from services.resolver.domain.decision import Allowed, Denied, Person, Plan, Reason, Wish, decide
from services.resolver.domain.snapshot import Snapshot
from services.resolver.trust import Trust, pinned
from tests.fakes.estate import Estate
from tests.fakes.resolving import FakeKnowledge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STAFF_A = Person(idp_id="idp/okta", subject="ana", groups=frozenset({"hospital-a-staff"}))
BOTH = replace(STAFF_A, groups=frozenset({"hospital-a-staff", "hospital-b-staff"}))
GRANT_A = "grant/hospital-a-hospital-a/db-dsn"
INSTANCE = "instance/gateway-1"


@dataclass(slots=True)
class Table:
    """One estate, asked."""

    estate: Estate

    def snapshot(self) -> Snapshot:
        knowledge = FakeKnowledge(self.trust())
        knowledge.learn(self.estate)
        return knowledge.snapshot()

    def trust(self) -> Trust:
        policy, catalog = self.estate.policy_key.verify_key, self.estate.catalog_key.verify_key
        return pinned(policy_key=policy.to_base64(), catalog_key=catalog.to_base64())

    def ask(self, person: Person = STAFF_A, server: str = "patients-db", **wish: Any) -> Allowed | Denied:
        said = Wish(server=server, context=wish.get("context"), choices=wish.get("choices", {}))
        return decide(self.snapshot(), person, INSTANCE, said, now=NOW, trusts=self.trust())

    def plan(self, person: Person = STAFF_A, **wish: Any) -> Plan:
        decided = self.ask(person, **wish)
        assert isinstance(decided, Allowed), decided
        return decided.plan

    def reason(self, person: Person = STAFF_A, **wish: Any) -> Reason:
        decided = self.ask(person, **wish)
        assert isinstance(decided, Denied)
        return decided.reason
