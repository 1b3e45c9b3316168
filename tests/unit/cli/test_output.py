"""Tables and JSON: people see what is there, and nothing that somebody wrote acts on their terminal."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.shell import Shell

PROFILE = {"id": "profile/1", "name": "ward", "description": "ward three"}


@pytest.mark.parametrize(
    "name", ["[red]ward[/red]", "ward[/]", "[link=https://evil.example]ward[/link]", "[", ":bomb:"]
)
def test_a_name_is_shown_as_it_is_whatever_a_table_makes_of_brackets(shell: Shell, name: str) -> None:
    shell.services.has("/v1/profiles", PROFILE | {"name": name})
    assert name in shell.run("profile", "list")


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x1b]0;owned\x07", "\x9b2J", "a\rb", "a\x08b", "\u202etxt.exe", "\ud800"])
def test_what_would_act_on_the_terminal_is_not_printed(shell: Shell, evil: str) -> None:
    """A subject is whatever its identity provider says, a path whatever somebody called a secret."""
    record = {"n": 1, "actor": f"agent{evil}", "references": []}
    shell.services.answers["GET", "/v1/records"] = {"items": [record]}
    printed = shell.run("audit", "list")
    assert "agent" in printed
    assert not set("\x1b\x9b\r\x08\x07\u202e\ud800") & set(printed)


def test_one_entity_is_shown_field_by_field_and_as_harmlessly(shell: Shell) -> None:
    server = {"id": "server/1", "name": "[b]lab[/b]\x1b[2J", "definition": {"transport": "stdio", "args": ["-x", "-y"]}}
    shell.services.has("/v1/servers", server)
    printed = shell.run("server", "show", "server/1")
    assert "[b]lab[/b]" in printed
    assert "\x1b" not in printed
    assert "transport=stdio, args=-x, -y" in printed


def test_json_keeps_every_field_and_every_character(shell: Shell) -> None:
    profile = PROFILE | {"name": "Kinderklinik Süd [b]"}
    shell.services.has("/v1/profiles", profile)
    assert json.loads(shell.run("profile", "list", "--json")) == [profile]


def test_json_never_holds_a_raw_control_character(shell: Shell) -> None:
    shell.services.has("/v1/profiles", PROFILE | {"name": "a\x1b[2J\x9b\u202e\ud800"})
    printed = shell.run("profile", "list", "--json")
    assert printed.isascii()
    assert json.loads(printed)[0]["name"] == "a\x1b[2J\x9b\u202e\ud800"


def test_an_empty_list_says_so(shell: Shell) -> None:
    shell.services.has("/v1/profiles")
    assert shell.run("profile", "list").strip() == "Profiles: none"
    assert json.loads(shell.run("profile", "list", "--json")) == []


def test_what_is_missing_is_an_empty_cell_and_a_yes_is_a_word(shell: Shell) -> None:
    shell.services.has("/v1/bindings", {"id": "binding/1", "current": False, "field": None})
    printed = shell.run("binding", "list")
    assert " no " in printed
    assert "None" not in printed


def test_a_wide_table_keeps_its_ids_whole_when_it_is_piped(shell: Shell) -> None:
    ids = [f"grant/{number:032x}" for number in range(3)]
    shell.services.has(
        "/v1/grants", *({"id": one, "profile_name": "p" * 30, "reference_name": "r" * 40} for one in ids)
    )
    printed = shell.run("grant", "list")
    assert all(one in printed for one in ids)
