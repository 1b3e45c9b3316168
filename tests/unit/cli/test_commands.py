"""What commands print and how they end."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.__main__ import app, main
from services.cli import session
from services.cli.commands import removal
from services.cli.connection import CommandFailed

MEMBERS = [
    {"id": "instance/1", "name": "gateway-1", "kind": "gateway", "state": "dropped", "at": "now", "until": None},
    {"id": "instance/2", "name": "gateway-2", "kind": "gateway", "state": "pending", "at": None, "until": "later"},
]
GRANTS = [{"id": "grant/1", "profile_name": "hospital-a", "reference_name": "hospital-a/db-url"}]


class FakeApi:
    """Answers by (method, path); remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, service: str, path: str, *, body: object = None, query: object = None) -> Any:
        self.asked.append((method, path, body))
        return self.answers[(method, path)]

    def every(self, service: str, path: str, **query: object) -> list[dict[str, Any]]:
        return list(self.call("GET", service, path)["items"])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    fake = FakeApi()
    session.api.cache_clear()
    monkeypatch.setattr("services.cli.session.load_connection", lambda: None)
    monkeypatch.setattr("services.cli.session.Api", lambda _: fake)
    yield fake
    session.api.cache_clear()


@pytest.fixture
def run() -> Callable[..., int]:
    def run_command(*arguments: str) -> int:
        return int(app(list(arguments), result_action="return_value", exit_on_error=False) or 0)

    return run_command


def test_a_list_is_json_for_scripts(api: FakeApi, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    api.answers[("GET", "/v1/grants")] = {"items": GRANTS}
    run("grant", "list", "--json")
    assert json.loads(capsys.readouterr().out) == GRANTS


def test_a_list_is_a_table_for_people(
    api: FakeApi, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[("GET", "/v1/grants")] = {"items": GRANTS}
    run("grant", "list")
    printed = capsys.readouterr().out
    assert "hospital-a/db-url" in printed
    assert "profile name" in printed


def test_a_grant_is_made_with_the_limits_that_were_named(api: FakeApi, run: Callable[..., int]) -> None:
    api.answers[("POST", "/v1/grants")] = {"id": "grant/1"}
    run("grant", "add", "--profile", "a", "--reference", "r", "--server", "s", "--label.env", "prod")
    assert api.asked == [
        ("POST", "/v1/grants", {"profile": "a", "reference": "r", "server": "s", "labels": {"env": "prod"}})
    ]


def test_removing_a_grant_names_who_has_not_answered(
    api: FakeApi, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[("GET", "/v1/grants")] = {"items": GRANTS}
    api.answers[("DELETE", "/v1/grants/grant/1")] = {"event_id": "change/1", "seq": 7}
    api.answers[("GET", "/v1/convergence")] = {
        "notice": {"id": "notice/1"},
        "converged": False,
        "members": MEMBERS,
    }
    run("grant", "remove", "grant/1", "--wait-s", "1")
    printed = capsys.readouterr().out
    assert "Still waiting for gateway-2." in printed
    assert "Everybody has acted" not in printed


def test_a_notice_that_is_not_through_ends_with_failure(api: FakeApi, run: Callable[..., int]) -> None:
    api.answers[("GET", "/v1/convergence")] = {"notice": {"id": "notice/1"}, "converged": False, "members": MEMBERS}
    with pytest.raises(CommandFailed, match="Still waiting for gateway-2"):
        run("notice", "show", "change/1")


def test_nobody_is_done_while_a_member_is_pending() -> None:
    assert removal.verdict({"converged": False, "members": MEMBERS}) == "Still waiting for gateway-2."
    assert removal.verdict({"converged": True, "members": MEMBERS[:1]}) == "Everybody has acted."


def test_an_enrolment_token_goes_to_a_private_file_and_nowhere_else(
    api: FakeApi, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[("POST", "/v1/enrolments")] = {"token": "once-only", "enrolment_id": "enrolment/1"}
    path = tmp_path / "token"
    run("instance", "enrol", "gw", "--token-file", str(path), "--any-server", "--json")
    assert path.read_text() == "once-only"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "once-only" not in capsys.readouterr().out


def test_an_enrolment_that_may_run_nothing_is_refused(api: FakeApi, run: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="--any-server"):
        run("instance", "enrol", "gw", "--token-file", str(tmp_path / "token"))
    assert api.asked == []


def test_a_failure_is_one_sentence_and_a_code(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[("GET", "/v1/profiles")] = {"items": []}
    monkeypatch.setattr("sys.argv", ["keyfob", "profile", "remove", "absent"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "keyfob: There is no profile 'absent'.\n"
