"""The HTTP interface: who may ask, and that no input gives more than a problem document."""

from __future__ import annotations

import pytest

from tests.integration.notifier.conftest import Stage

BAD_QUERIES = [
    ("/v1/convergence", {}),
    ("/v1/convergence", {"event_id": ""}),
    ("/v1/convergence", {"event_id": "x" * 300}),
    ("/v1/convergence", {"event_id": "change/\u0000"}),
    ("/v1/convergence", {"event_id": "change/1", "wait_s": "31"}),
    ("/v1/convergence", {"event_id": "change/1", "wait_s": "-1"}),
    ("/v1/convergence", {"event_id": "change/1", "wait_s": "nan"}),
    ("/v1/notices", {"limit": "0"}),
    ("/v1/notices", {"limit": "100000"}),
    ("/v1/notices", {"after": "-1"}),
    ("/v1/notices", {"after": "99999999999999999999999"}),
    ("/v1/alerts", {"after": "x"}),
]


async def test_bad_input_is_the_callers_fault_and_is_not_echoed(stage: Stage) -> None:
    async with stage.notifier() as running:
        for path, query in BAD_QUERIES:
            answer = await running.http.get(path, params=query)
            assert answer.status_code == 400, (path, query, answer.status_code, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "x" * 300 not in answer.text
        for path in ("/v1/notices/notice/%00", "/v1/notices/%ff", f"/v1/notices/{'x' * 300}"):
            assert (await running.http.get(path)).status_code == 400, path
        for path in ("/v1/notices/notice/none", "/v1/nothing"):
            assert (await running.http.get(path)).status_code == 404, path
        assert await running.convergence("change/unknown", wait_s=0) is None
        assert (await running.http.post("/v1/notices", content=b"x" * 100_000)).status_code in {405, 413}


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer nonsense", "Basic eDp5"])
async def test_strangers_learn_nothing(stage: Stage, authorization: str) -> None:
    async with stage.notifier() as running:
        for path in ("/v1/notices", "/v1/convergence?event_id=change/1", "/v1/instances", "/v1/alerts"):
            answer = await running.http.get(path, headers={"authorization": authorization})
            assert answer.status_code == 401, path


async def test_roles_decide(stage: Stage) -> None:
    async with stage.notifier() as running:
        expected = {"keyfob-admins": 200, "keyfob-operators": 200, "keyfob-auditors": 200, "nurses": 403}
        for group, status in expected.items():
            headers = {"authorization": f"Bearer {stage.token(group)}"}
            assert (await running.http.get("/v1/notices", headers=headers)).status_code == status


async def test_lists_go_on_where_they_stopped(stage: Stage) -> None:
    async with stage.notifier() as running:
        changes = [await stage.rotate(reference=f"reference/{number}") for number in range(5)]
        await running.noted(changes[-1].id)
        seen, after = [], {}
        while True:
            page = await running.get("/v1/notices", limit=2, **after)
            seen += [item["cause_id"] for item in page["items"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert seen == [change.id for change in reversed(changes)]
