"""`keyfob value`: what is typed or piped goes out byte for byte, by no argument, and nothing of it is shown."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import httpx2
import pytest

from services.cli.commands import values as module
from services.cli.connection import Api, Connection
from tests.unit.cli.shell import Shell

DONE = {"action": "set", "server": "lab", "field": "KEY", "at": "2026-11-23T08:00:00Z", "event_id": "change/1"}
CANARY = b"canary \xff\x00 value"


class Piped:
    """Standard input that is no terminal."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.fixture
def puts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was sent by PUT: the octets and the query."""
    sent: list[dict[str, Any]] = []

    def call(method: str, service: str, path: str, **more: Any) -> Any:
        sent.append({"what": f"{method} {service} {path}", **more})
        return DONE

    monkeypatch.setattr(shell.services, "call", call, raising=False)
    return sent


@pytest.fixture
def shell(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    # Slots keep the fake's methods from being replaced: one without them.
    class Loose(type(shell.services)):  # type: ignore[misc]
        pass

    shell.services = Loose()
    monkeypatch.setattr("services.cli.session.Api", lambda _: shell.services)
    return shell


def test_what_is_piped_in_goes_out_as_it_is(
    shell: Shell, puts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(CANARY))
    said = shell.run("value", "set", "lab", "KEY")
    assert puts == [
        {
            "what": "PUT resolver /v1/values",
            "octets": CANARY,
            "query": {"server": "lab", "field": "KEY", "profile": None},
        }
    ]
    assert "is entered" in said
    assert "canary" not in said


def test_what_is_typed_is_not_shown(shell: Shell, puts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(module, "getpass", lambda _: "typed")
    shell.run("value", "set", "lab", "KEY", "--profile", "ward")
    assert puts[0]["octets"] == b"typed"
    assert puts[0]["query"]["profile"] == "ward"


def test_a_line_break_at_the_end_is_kept_and_told_of(
    shell: Shell, puts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(b"value\n"))
    code, _, said = shell.process("value", "set", "lab", "KEY")
    assert code == 0
    assert puts[0]["octets"] == b"value\n"
    assert "line break" in said


@pytest.mark.parametrize(("content", "said"), [(b"", "Nothing was entered"), (b"x" * 65_537, "65536 bytes")])
def test_nothing_and_too_much_are_not_sent(
    shell: Shell, puts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(content))
    assert said in shell.fails("value", "set", "lab", "KEY")
    assert puts == []


def test_a_value_is_no_argument(shell: Shell, puts: list[dict[str, Any]]) -> None:
    with pytest.raises(Exception, match=r"Unused|token|argument"):
        shell.run("value", "set", "lab", "KEY", "the-value-itself")
    assert puts == []


def test_a_list_shows_names_and_times(shell: Shell) -> None:
    item = {"server": "lab", "field": "KEY", "profile": None, "set_at": "2026", "last_used_at": None}
    shell.services.answers["GET", "/v1/values"] = {"items": [item]}
    assert "lab" in shell.run("value", "list")
    assert json.loads(shell.run("value", "list", "--profile", "ward", "--json")) == [item]
    assert shell.services.queries[-1] == {"profile": "ward"}


def test_deleting_says_who_has_let_go(shell: Shell) -> None:
    members = [{"name": "gateway-1", "kind": "gateway", "state": "dropped", "at": "2026", "until": None}]
    answer = {"converged": True, "members": members, "notice": {"id": "notice/1"}}
    shell.services.answers["DELETE", "/v1/values"] = DONE | {"action": "deleted"}
    shell.services.answers["GET", "/v1/convergence"] = answer
    said = shell.run("value", "delete", "lab", "KEY")
    assert "is deleted. Everybody has acted." in " ".join(said.split())


def test_octets_travel_in_the_body_and_not_in_the_address(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=DONE)

    connection = Connection(urls={"resolver": "https://resolver.example"}, token_file=token)
    api = Api(connection, transport=httpx2.MockTransport(answer))
    api.call("PUT", "resolver", "/v1/values", octets=CANARY, query={"server": "lab", "field": "KEY", "profile": None})
    api.close()
    (request,) = seen
    assert request.content == CANARY
    assert request.headers["content-type"] == "application/octet-stream"
    assert str(request.url) == "https://resolver.example/v1/values?server=lab&field=KEY"
