"""What the resolver does with each origin of a binding; what it can't bring it refuses, and records that it did."""

from __future__ import annotations

import pytest

from services.resolver.domain.decision import Denied, Reason
from shared.errors import NotAvailable
from shared.events.policy import EnvironmentOrigin, LocalOwner, LocalValueOrigin, Origin
from tests.fakes.estate import hospitals
from tests.unit.resolver.table import Table

ELSEWHERE: dict[str, Origin] = {
    "subject": LocalValueOrigin(owner=LocalOwner.SUBJECT),
    "profile": LocalValueOrigin(owner=LocalOwner.PROFILE),
    "environment": EnvironmentOrigin(variable="HOSPITAL_DB_URL", labels={"env": "prod"}),
}


@pytest.fixture
def table() -> Table:
    estate = hospitals()
    estate.instance(labels={"env": "prod"})
    return Table(estate)


@pytest.mark.parametrize("origin", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_origin_that_this_resolver_cannot_bring_is_refused_like_what_is_not_there(
    table: Table, origin: Origin
) -> None:
    table.estate.binding_to("hospital-a", origin)
    decided = table.ask()
    assert isinstance(decided, Denied)
    assert decided.reason is Reason.ORIGIN_UNSUPPORTED
    assert isinstance(decided.error, NotAvailable)


@pytest.mark.parametrize("origin", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_never_picks_a_reference_for_a_field_that_comes_from_elsewhere(table: Table, origin: Origin) -> None:
    table.estate.binding_to("hospital-a", origin)
    assert table.reason(choices={"DB_URL": "hospital-a/db-dsn"}) is Reason.CHOICE_NOT_OPEN
