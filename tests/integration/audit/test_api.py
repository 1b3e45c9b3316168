"""The HTTP interface: filters, pages, exports, roles, and input that nobody should send."""

from __future__ import annotations

import csv
import io

import pytest

from shared.events.access import AccessSubject, Phase
from shared.events.audit import AuditRecord
from tests.integration.audit.conftest import Stage, item

BAD_QUERIES = [
    ("/v1/records", {"limit": "0"}),
    ("/v1/records", {"limit": "100000"}),
    ("/v1/records", {"after": "-1"}),
    ("/v1/records", {"after": "99999999999999999999999"}),
    ("/v1/records", {"since": "yesterday"}),
    ("/v1/records", {"since": "2026-01-01T00:00:00"}),
    ("/v1/records", {"action": "nonsense"}),
    ("/v1/records", {"format": "xml"}),
    ("/v1/records", {"reference": "a\u0000b"}),
    ("/v1/records", {"subject": "x" * 300}),
    ("/v1/records", {"instance": ""}),
    ("/v1/leases", {"open": "maybe"}),
    ("/v1/leases", {"after": "\u0000"}),
    ("/v1/references/a%00b/who-did", {}),
    ("/v1/references/%ff/who-did", {"until": "x"}),
]


async def test_bad_input_is_the_callers_fault_and_is_not_echoed(stage: Stage) -> None:
    async with stage.audit() as running:
        for path, query in BAD_QUERIES:
            answer = await running.http.get(path, params=query)
            assert answer.status_code == 400, (path, query, answer.status_code, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "x" * 300 not in answer.text
        assert (await running.http.get("/v1/nothing")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/records", "/v1/records?format=csv", "/v1/leases", "/v1/references/r/who-did"])
async def test_roles_decide(stage: Stage, path: str) -> None:
    async with stage.audit() as running:
        assert (await running.http.get(path, headers={"authorization": ""})).status_code == 401
        for group, status in {"keyfob-auditors": 200, "keyfob-admins": 200, "nurses": 403}.items():
            headers = {"authorization": f"Bearer {stage.token(group)}"}
            assert (await running.http.get(path, headers=headers)).status_code == status


async def test_filters_find_what_is_asked_for_and_pages_go_on(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        other = AccessSubject(idp_id="idp/1", subject="agent-b")
        await resolver.say(
            resolver.record(Phase.AUTHORISED, items=(item(), item(reference="reference/2", name="hospital-b/db-url"))),
            resolver.record(Phase.REFUSED, subject=other, reason="not-available", instance_name="gateway-2"),
            resolver.record(Phase.AUTHORISED, items=(item(reference="reference/2", name="hospital-b/db-url"),)),
        )
        await running.records(3)

        async def found(**query: object) -> list[int]:
            return [one["n"] for one in (await running.get("/v1/records", **query))["items"]]

        assert await found(reference="hospital-b/db-url") == [1, 3]
        assert await found(reference="reference/1") == [1]
        assert await found(subject="agent-b") == [2]
        assert await found(instance="gateway-2") == [2]
        assert await found(action="resolver:reference:refuse") == [2]
        assert await found(since="2100-01-01T00:00:00Z") == []
        first = await running.get("/v1/records", limit=2)
        assert [one["n"] for one in first["items"]] == [1, 2]
        assert await found(limit=2, after=first["next"]) == [3]


async def test_exports_hold_everything_and_run_nothing(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        evil = '=HYPERLINK("http://evil")'
        records = [resolver.record(Phase.REFUSED, reason="not-available", server_name=evil) for _ in range(12)]
        await resolver.say(*records)
        await running.records(12)

        lines = (await running.http.get("/v1/records", params={"format": "jsonl", "limit": 5})).text.splitlines()
        assert [AuditRecord.model_validate_json(line).n for line in lines] == list(range(1, 13))
        table = (await running.http.get("/v1/records", params={"format": "csv"})).text
        rows = list(csv.DictReader(io.StringIO(table)))
        assert [int(row["n"]) for row in rows] == list(range(1, 13))
        assert {row["server_name"] for row in rows} == {"'" + evil}
