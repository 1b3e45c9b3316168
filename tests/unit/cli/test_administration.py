"""Each command is one request that a person could have written: which one, and with what in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.shell import Shell

DIGEST = "d" * 64
STDIO = {"transport": "stdio", "command": "/opt/x", "args": [], "fields": []}

CREATING: list[tuple[str, str, dict[str, Any]]] = [
    (
        "idp add okta --issuer https://o --jwks-uri https://o/jwks",
        "/v1/idps",
        {
            "name": "okta",
            "issuer": "https://o",
            "jwks_uri": "https://o/jwks",
            "audience": "keyfob",
            "groups_claim": "groups",
        },
    ),
    ("profile create ward", "/v1/profiles", {"name": "ward", "description": ""}),
    (
        "profile map ward --idp okta --group nurses",
        "/v1/mappings",
        {"profile": "ward", "idp": "okta", "group": "nurses"},
    ),
    ("grant add --profile p --reference r", "/v1/grants", {"profile": "p", "reference": "r"}),
    (
        "grant add --profile p --reference r --server s --field F --destination h.example",
        "/v1/grants",
        {"profile": "p", "reference": "r", "server": "s", "field": "F", "destination": "h.example"},
    ),
    (
        "binding add --profile p --server s --field F --reference r",
        "/v1/bindings",
        {"profile": "p", "server": "s", "field": "F", "reference": "r"},
    ),
    (
        f"binding add --profile p --server s --field F --reference r --digest {DIGEST}",
        "/v1/bindings",
        {"profile": "p", "server": "s", "field": "F", "reference": "r", "definition_digest": DIGEST},
    ),
    (
        "binding add --profile p --server s --field F --local subject",
        "/v1/bindings",
        {"profile": "p", "server": "s", "field": "F", "local": "subject"},
    ),
    (
        "binding add --profile p --server s --field F --environment V --label.env prod --label.region eu",
        "/v1/bindings",
        {
            "profile": "p",
            "server": "s",
            "field": "F",
            "environment": {"variable": "V", "labels": {"env": "prod", "region": "eu"}},
        },
    ),
    (
        "variable allow V --label.tenant a",
        "/v1/variables",
        {"name": "V", "labels": {"tenant": "a"}},
    ),
    ("variable allow V", "/v1/variables", {"name": "V", "labels": {}}),
    (
        "server create lab --command /opt/x --arg=-v --arg=--port --field DB_URL --owner it",
        "/v1/servers",
        {
            "name": "lab",
            "owner": "it",
            "definition": STDIO | {"args": ["-v", "--port"], "fields": [{"inject": "environment", "name": "DB_URL"}]},
        },
    ),
    (
        "server create lab --command /opt/x --file-field PGPASSFILE",
        "/v1/servers",
        {"name": "lab", "owner": "", "definition": STDIO | {"fields": [{"inject": "file", "name": "PGPASSFILE"}]}},
    ),
    (
        "server create lab --url https://h.example/mcp --field X-Api-Key",
        "/v1/servers",
        {
            "name": "lab",
            "owner": "",
            "definition": {
                "transport": "http",
                "url": "https://h.example/mcp",
                "fields": [{"inject": "header", "name": "X-Api-Key", "header": "X-Api-Key"}],
            },
        },
    ),
    (
        "source add main --origin https://v.example:8200 --prefix ward",
        "/v1/sources",
        {
            "name": "main",
            "place": {"provider": "kv2", "origin": "https://v.example:8200", "mount": "secret", "prefix": "ward"},
        },
    ),
]


@pytest.mark.parametrize(("line", "path", "body"), CREATING, ids=lambda one: one if isinstance(one, str) else "")
def test_creating_sends_what_was_said_and_nothing_that_was_not(
    shell: Shell, line: str, path: str, body: dict[str, Any]
) -> None:
    shell.services.answers["POST", path] = {"id": "it/1"}
    shell.run(*line.split())
    assert shell.services.bodies("POST") == [body]


LISTS = {
    "idp list": "/v1/idps",
    "profile list": "/v1/profiles",
    "profile mappings": "/v1/mappings",
    "grant list": "/v1/grants",
    "binding list": "/v1/bindings",
    "server list": "/v1/servers",
    "variable list": "/v1/variables",
    "source list": "/v1/sources",
    "reference list": "/v1/references",
    "audit leases": "/v1/leases",
    "notice list": "/v1/notices",
    "audit list": "/v1/records",
    "source coverage": "/v1/coverage",
}


@pytest.mark.parametrize(("line", "path"), LISTS.items())
def test_every_list_gives_scripts_all_that_the_service_said(shell: Shell, line: str, path: str) -> None:
    item = {"id": "it/1", "unheard-of": {"in": "tables"}}
    shell.services.has(path, item)
    assert json.loads(shell.run(*line.split(), "--json")) == [item]
    assert [asked for asked, _, _ in shell.services.asked] == ["GET"]


REMOVALS = {
    "idp remove": "idps",
    "profile remove": "profiles",
    "profile unmap": "mappings",
    "grant remove": "grants",
    "binding remove": "bindings",
    "server remove": "servers",
    "variable remove": "variables",
    "instance remove": "instances",
}


@pytest.mark.parametrize(("line", "plural"), REMOVALS.items())
def test_removing_goes_by_id_and_waits_for_everybody(shell: Shell, line: str, plural: str) -> None:
    shell.services.has(f"/v1/{plural}", {"id": "it/0", "name": "other"}, {"id": "it/1", "name": "a name"})
    shell.services.answers["DELETE", f"/v1/{plural}/it/1"] = {"event_id": "change/1", "seq": 3}
    shell.services.answers["GET", "/v1/convergence"] = {"notice": {"id": "n/1"}, "converged": True, "members": []}
    assert "a name is removed. Everybody has acted." in shell.run(*line.split(), "a name")
    assert shell.services.queries[-1]["event_id"] == "change/1"


def test_removing_without_waiting_says_how_to_follow_it(shell: Shell) -> None:
    shell.services.has("/v1/grants", {"id": "grant/1"})
    shell.services.answers["DELETE", "/v1/grants/grant/1"] = {"event_id": "change/1", "seq": 3}
    assert "keyfob notice show change/1" in shell.run("grant", "remove", "grant/1", "--wait-s", "0")
    assert len(shell.services.asked) == 2


def test_a_long_wait_is_several_polls_and_ends_when_everybody_has_acted(shell: Shell) -> None:
    shell.services.has("/v1/grants", {"id": "grant/1"})
    shell.services.answers["DELETE", "/v1/grants/grant/1"] = {"event_id": "change/1", "seq": 3}
    still = {"notice": {"id": "n/1"}, "converged": False, "members": []}
    shell.services.answers["GET", "/v1/convergence"] = [still, still, still | {"converged": True}]
    assert "Everybody has acted." in shell.run("grant", "remove", "grant/1", "--wait-s", "60")
    assert [query["wait_s"] for query in shell.services.queries[-3:]] == [10, 10, 10]


def test_a_wait_is_not_longer_than_was_asked(shell: Shell) -> None:
    shell.services.has("/v1/grants", {"id": "grant/1"})
    shell.services.answers["DELETE", "/v1/grants/grant/1"] = {"event_id": "change/1", "seq": 3}
    still = {"notice": {"id": "n/1"}, "converged": False, "members": []}
    shell.services.answers["GET", "/v1/convergence"] = [still, still]
    assert "Still waiting for the notice." in shell.run("grant", "remove", "grant/1", "--wait-s", "12")
    assert [query["wait_s"] for query in shell.services.queries[-2:]] == [10, 2]


def test_a_name_that_nothing_has_changes_nothing(shell: Shell) -> None:
    shell.services.has("/v1/profiles", {"id": "profile/1", "name": "ward"})
    assert shell.fails("profile", "remove", "Ward") == "There is no profile 'Ward'."
    assert [asked for asked, _, _ in shell.services.asked] == ["GET"]


def test_a_window_is_sent_with_its_time_zone(shell: Shell) -> None:
    shell.services.answers["POST", "/v1/grants"] = {"id": "grant/1"}
    shell.run("grant", "add", "--profile", "p", "--reference", "r", "--ends-at", "2030-01-01T12:00:00+00:00")
    (body,) = shell.services.bodies("POST")
    assert "starts_at" not in body
    sent = body["ends_at"]
    assert sent.count("T") == 1
    assert sent[-6] in "+-"


@pytest.mark.parametrize(
    "options",
    ["", "--reference r --local subject", "--local profile --environment V", "--reference r --label.env prod"],
)
def test_a_binding_needs_exactly_one_origin_before_anybody_is_asked(shell: Shell, options: str) -> None:
    for command in ("add", "set"):
        line = f"binding {command} --profile p --server s --field F {options}"
        assert "--environment" in shell.fails(*line.split())
    assert shell.services.asked == []


def test_setting_makes_a_binding_where_there_is_none(shell: Shell) -> None:
    shell.services.has("/v1/bindings", {"id": "binding/1", "field": "OTHER"})
    shell.services.answers["POST", "/v1/bindings"] = {"id": "binding/2"}
    said = shell.run(*["binding", "set", "--profile", "p", "--server", "s", "--field", "F", "--local", "profile"])
    assert said == "For p, F of s comes from: local value of the profile.\n"
    assert shell.services.queries[0] == {"profile": "p", "server": "s"}


def test_setting_moves_the_binding_that_is_there_and_waits_for_everybody(shell: Shell) -> None:
    shell.services.has("/v1/bindings", {"id": "binding/1", "field": "F"}, {"id": "binding/2", "field": "G"})
    moved = {"event_id": "change/1", "seq": 3, "ended": ["binding/1"]}
    shell.services.answers["PUT", "/v1/bindings/binding/1"] = [moved, moved | {"ended": []}]
    shell.services.answers["GET", "/v1/convergence"] = {"notice": {"id": "n/1"}, "converged": True, "members": []}
    line = [
        "binding",
        "set",
        "--profile",
        "p",
        "--server",
        "s",
        "--field",
        "F",
        "--environment",
        "V",
        "--label.env",
        "prod",
    ]
    assert "variable V of the instance with env=prod. Everybody has acted." in shell.run(*line)
    # Set again to what it is, nothing ended, and there is nobody to wait for.
    assert "Everybody" not in shell.run(*line)
    (body, _) = shell.services.bodies("PUT")
    assert body["environment"] == {"variable": "V", "labels": {"env": "prod"}}


def test_approving_pins_what_was_read(shell: Shell) -> None:
    shell.services.has("/v1/bindings", {"id": "binding/1"})
    shell.services.answers["POST", "/v1/bindings/binding/1/approve"] = {"id": "binding/1"}
    shell.run("binding", "approve", "binding/1", "--digest", DIGEST)
    shell.run("binding", "approve", "binding/1")
    assert shell.services.bodies("POST") == [{"definition_digest": DIGEST}, {}]


def test_a_definition_comes_from_a_file(shell: Shell, tmp_path: Path) -> None:
    shell.services.answers["POST", "/v1/servers"] = {"id": "server/1"}
    file = tmp_path / "lab.json"
    file.write_text(json.dumps(STDIO))
    shell.run("server", "create", "lab", "--file", str(file))
    assert shell.services.bodies("POST") == [{"name": "lab", "owner": "", "definition": STDIO}]


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_a_definition_that_cannot_be_read_is_one_sentence(shell: Shell, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "lab.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    assert "not a readable JSON definition" in shell.fails("server", "create", "lab", "--file", str(file))
    assert shell.services.asked == []


@pytest.mark.parametrize("line", ["", "--command /opt/x --url https://h.example"])
def test_a_server_is_one_thing(shell: Shell, line: str) -> None:
    assert "Say what the server is" in shell.fails("server", "create", "lab", *line.split())


def test_changing_a_definition_keeps_the_owner(shell: Shell, tmp_path: Path) -> None:
    shell.services.has("/v1/servers", {"id": "server/1", "name": "lab", "owner": "it"})
    shell.services.answers["PUT", "/v1/servers/server/1"] = {"id": "server/1"}
    file = tmp_path / "lab.json"
    file.write_text(json.dumps(STDIO))
    assert "approve its bindings" in shell.run("server", "update", "lab", "--file", str(file))
    assert shell.services.bodies("PUT") == [{"definition": STDIO, "owner": "it"}]


def test_an_instance_is_listed_with_what_it_last_said(shell: Shell) -> None:
    instance = {"id": "instance/1", "name": "gw", "instance_id": "instance/1", "open_leases": 3, "delivery": "https"}
    shell.services.has("/v1/instances", instance)
    shell.services.has("/v1/bindings")
    shell.services.has("/v1/variables")
    (listed,) = json.loads(shell.run("instance", "list", "--json"))
    assert (listed["name"], listed["profile"], listed["open_leases"]) == ("gw", "https", 3)
    assert "https" in shell.run("instance", "list")
    assert "https" in shell.run("instance", "show", "gw")


def test_an_instance_is_allowed_again_by_its_id(shell: Shell) -> None:
    shell.services.has("/v1/instances", {"id": "instance/1", "name": "gw"})
    shell.services.answers["POST", "/v1/instances/instance/1/allow"] = {"id": "instance/1"}
    assert "gw is allowed again" in shell.run("instance", "allow", "gw")


def test_an_enrolment_says_what_the_instance_may_run_and_where(shell: Shell, tmp_path: Path) -> None:
    shell.services.answers["POST", "/v1/enrolments"] = [{"token": "t"}]
    file = str(tmp_path / "token")
    shell.run("instance", "enrol", "gw", "--token-file", file, "--server", "a", "--server", "b", "--label.env", "prod")
    (body,) = shell.services.bodies("POST")
    said = {"name": "gw", "labels": {"env": "prod"}, "allowed_servers": ["a", "b"], "expires_in_s": 3600}
    assert body == said | {"delivery": "sealed"}


def test_an_enrolment_fixes_the_profile(shell: Shell, tmp_path: Path) -> None:
    shell.services.answers["POST", "/v1/enrolments"] = [{"token": "t"}]
    file = str(tmp_path / "token")
    shell.run("instance", "enrol", "gw", "--token-file", file, "--any-server", "--profile", "https")
    assert shell.services.bodies("POST")[0]["delivery"] == "https"


def test_the_record_is_asked_for_by_what_was_named(shell: Shell) -> None:
    shell.services.has("/v1/records", {"n": 1, "references": [{"name": "db", "version": "3"}, {"name": "x"}]})
    printed = shell.run("audit", "list", "--reference", "db", "--since", "2030-01-01T00:00:00Z", "--limit", "7")
    assert "db@3, x" in printed
    query = shell.services.queries[0]
    assert (query["reference"], query["since"], query["limit"]) == ("db", "2030-01-01T00:00:00Z", 7)
    assert query["subject"] is None


def test_open_leases_are_those_that_are_open(shell: Shell) -> None:
    shell.services.has("/v1/leases")
    shell.run("audit", "leases", "--reference", "db")
    assert shell.services.queries == [{"open": True, "reference": "db"}]


def test_a_notice_is_shown_by_its_own_id_or_by_its_cause(shell: Shell) -> None:
    answer = {"notice": {"id": "notice/1", "cause_id": "change/1"}, "converged": True, "members": []}
    shell.services.answers["GET", "/v1/notices/notice/1"] = answer
    shell.services.answers["GET", "/v1/convergence"] = answer
    for asked in ("notice/1", "change/1"):
        assert "Everybody has acted." in shell.run("notice", "show", asked)
        assert shell.services.queries[-1]["event_id"] == "change/1"


def test_a_notice_that_nobody_knows_is_not_called_done(shell: Shell) -> None:
    shell.services.answers["GET", "/v1/convergence"] = None
    assert "No notice is known for change/1" in shell.fails("notice", "show", "change/1")


def test_a_script_gets_the_members_and_the_failure_of_a_notice_that_waits(shell: Shell) -> None:
    answer = {"notice": {"id": "notice/1"}, "converged": False, "members": [{"name": "gw", "state": "fenced"}]}
    shell.services.answers["GET", "/v1/convergence"] = answer
    code, printed, said = shell.process("notice", "show", "change/1", "--json")
    assert (code, json.loads(printed)) == (1, answer)
    assert said == "keyfob: Still waiting for gw.\n"


def test_a_sync_is_followed_until_it_has_ended(shell: Shell) -> None:
    running = {"id": "sync/1", "state": "running", "seen": 3}
    shell.services.answers["POST", "/v1/syncs"] = running
    shell.services.answers["GET", "/v1/syncs/sync/1"] = [running, {"id": "sync/1", "state": "done", "seen": 9}]
    done = shell.run("sync", "main", "--json")
    assert json.loads(done)["seen"] == 9
    assert shell.services.bodies("POST") == [{"source": "main"}]


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_sync_that_did_not_finish_ends_with_failure(shell: Shell, state: str) -> None:
    shell.services.answers["POST", "/v1/syncs"] = {"id": "sync/1", "state": state}
    assert "did not finish" in shell.fails("sync", "--wait-s", "0")
    assert shell.services.bodies("POST") == [{}]


def test_a_source_and_its_references_go_together(shell: Shell) -> None:
    shell.services.has("/v1/sources", {"id": "source/1", "name": "main"})
    shell.services.answers["DELETE", "/v1/sources/source/1"] = {"entity_id": "source/1"}
    assert "references with it" in shell.run("source", "remove", "main")


def test_only_what_was_named_of_a_reference_is_changed(shell: Shell) -> None:
    shell.services.has("/v1/references", {"id": "reference/1", "name": "db"})
    shell.services.answers["PUT", "/v1/references/reference/1"] = {"id": "reference/1"}
    assert "db2 is changed" in shell.run("reference", "set", "db", "--new-name", "db2", "--owner", "")
    assert shell.services.bodies("PUT") == [{"name": "db2", "owner": ""}]


@pytest.mark.parametrize("line", ["grunt list", "grant add --profile p", "reference list --no-such-option"])
def test_what_is_no_command_is_refused_before_anything_is_asked(shell: Shell, line: str) -> None:
    code, _, _ = shell.process(*line.split())
    assert code
    assert shell.services.asked == []
