"""`keyfob binding explain`: one question, and its answer in rows that a person can act on."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.cli.shell import Shell

GIVEN: dict[str, Any] = {
    "instance": {"id": "instance/1", "name": "gateway-1"},
    "labels": {},
    "allowed": False,
    "refused": {"reason": "not-bound", "words": "No binding.", "kind": "not-available", "choices": []},
    "profile": {"id": "profile/1", "name": "ward"},
    "profile_rule": "named-in-request",
    "group": "nurses",
    "fields": [
        {
            "field": "DB_URL",
            "binding_id": "binding/1",
            "origin": "reference",
            "rule": "own-default",
            "source": {"id": "reference/1", "name": "ward/url"},
            "refused": None,
        },
        {
            "field": "API_KEY",
            "binding_id": None,
            "origin": None,
            "rule": None,
            "source": None,
            "refused": {"reason": "not-bound", "words": "No binding.", "kind": "not-available", "choices": []},
        },
    ],
}
REFUSED: dict[str, Any] = {
    "instance": {"id": "instance/2", "name": "gateway-2"},
    "refused": {
        "reason": "context-ambiguous",
        "words": "Several.",
        "kind": "choice-needed",
        "choices": ["ward-a", "ward-b"],
    },
    "profile": None,
    "fields": [],
}


def answered(shell: Shell) -> None:
    shell.services.answers["POST", "/v1/explain"] = {"policy_seq": 7, "instances": [GIVEN, REFUSED]}


def test_only_what_was_said_is_asked(shell: Shell) -> None:
    answered(shell)
    shell.run("binding", "explain", "--subject", "ana", "--server", "lab")
    options = ["--group", "a", "--group", "b", "--idp", "okta", "--context", "c", "--instance", "g", "--pick.F", "r"]
    shell.run("binding", "explain", "--subject", "ana", "--server", "lab", *options)
    plain, full = shell.services.bodies("POST")
    assert plain == {"subject": "ana", "server": "lab", "groups": [], "choices": {}}
    assert full == plain | {
        "groups": ["a", "b"],
        "idp": "okta",
        "context": "c",
        "instance": "g",
        "choices": {"F": "r"},
    }
    assert {asked for _, asked, _ in shell.services.asked} == {"resolver /v1/explain"}


def test_a_table_names_profile_rule_binding_and_refusal_for_each_field(shell: Shell) -> None:
    answered(shell)
    said = shell.run("binding", "explain", "--subject", "ana", "--server", "lab")
    given, refused, before = (line for line in said.splitlines() if "gateway-" in line)
    for words in ("given", "ward", "DB_URL", "own-default", "binding/1"):
        assert words in given
    assert "API_KEY" in refused
    assert "not-bound" in said
    assert "gateway-2" in before
    assert "ward-a, ward-b" in " ".join(said.split())


def test_scripts_get_the_whole_answer(shell: Shell) -> None:
    answered(shell)
    told = json.loads(shell.run("binding", "explain", "--subject", "ana", "--server", "lab", "--json"))
    assert told["instances"] == [GIVEN, REFUSED]
