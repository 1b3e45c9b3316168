"""When something goes wrong half-way: what was done is said, and what was not done is not claimed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from services.cli.connection import Api, CommandFailed, Connection
from tests.unit.cli.shell import Shell

DOWN = CommandFailed("notifier at https://notifier did not answer (ConnectError): is it running?")
GRANT = {"id": "grant/1"}


def removing(shell: Shell) -> None:
    shell.services.has("/v1/grants", GRANT)
    shell.services.answers["DELETE", "/v1/grants/grant/1"] = {"event_id": "change/1", "seq": 7}
    shell.services.answers["GET", "/v1/convergence"] = DOWN


def test_a_removal_that_was_made_is_never_told_as_a_failure_alone(shell: Shell) -> None:
    removing(shell)
    said = shell.fails("grant", "remove", "grant/1")
    assert said.startswith("grant/1 is removed.")
    assert "did not answer" in said
    assert "keyfob notice show change/1" in said


def test_a_script_gets_the_receipt_of_a_removal_whose_effect_is_not_known(shell: Shell) -> None:
    removing(shell)
    code, printed, said = shell.process("grant", "remove", "grant/1", "--json")
    assert code == 1
    assert json.loads(printed) == {"change": {"event_id": "change/1", "seq": 7}, "convergence": None}
    assert said.startswith("keyfob: grant/1 is removed.")


def test_a_ban_that_was_made_is_never_told_as_a_failure_alone(shell: Shell) -> None:
    shell.services.has("/v1/instances", {"id": "instance/1", "name": "gateway-1"})
    shell.services.answers["POST", "/v1/instances/instance/1/ban"] = {"event_id": "change/1", "seq": 7}
    shell.services.answers["GET", "/v1/convergence"] = DOWN
    shell.services.answers["GET", "/v1/leases"] = DOWN
    assert shell.fails("instance", "ban", "gateway-1").startswith("Instance gateway-1 is banned.")
    assert "is not known, since audit did not answer" in shell.capture.readouterr().err


def lease(number: int, reference: str) -> dict[str, str]:
    return {"lease_id": f"lease/{number}", "reference_name": reference, "subject": "ana"}


def banning(shell: Shell, *looks: list[dict[str, str]]) -> None:
    """A ban that works, with what audit says is open before and after it."""
    shell.services.has("/v1/instances", {"id": "instance/1", "name": "gateway-1"})
    shell.services.answers["POST", "/v1/instances/instance/1/ban"] = {"event_id": "change/1", "seq": 7}
    shell.services.answers["GET", "/v1/convergence"] = {"notice": {"id": "n/1"}, "converged": True, "members": []}
    shell.services.answers["GET", "/v1/leases"] = [{"items": look} for look in looks]


def test_a_ban_lists_what_the_instance_held_before_and_what_it_got_meanwhile(shell: Shell) -> None:
    banning(shell, [lease(1, "a/url"), lease(2, "b/url")], [lease(2, "b/url"), lease(3, "c/url")])
    said = shell.run("instance", "ban", "gateway-1")
    assert "gateway-1 held 3 values" in said
    assert all(name in said for name in ("a/url", "b/url", "c/url", "Everybody has acted."))
    asked = [query for query in shell.services.queries if query.get("open")]
    assert [query["instance"] for query in asked] == ["instance/1"] * 2


def test_a_ban_gives_scripts_one_document_with_what_is_exposed(shell: Shell) -> None:
    banning(shell, [lease(1, "a/url")], [])
    told = json.loads(shell.run("instance", "ban", "gateway-1", "--json"))
    assert [one["reference_name"] for one in told["exposed"]] == ["a/url"]
    assert told["convergence"]["converged"] is True


def test_an_instance_that_held_nothing_exposes_nothing(shell: Shell) -> None:
    banning(shell, [], [])
    assert "gateway-1 held no value." in shell.run("instance", "ban", "gateway-1")


def test_a_token_is_asked_for_only_when_there_is_a_place_for_it(shell: Shell, tmp_path: Path) -> None:
    """One that could not be kept would lie open at the service, and block the name, until it expires."""
    taken = tmp_path / "token"
    taken.write_text("somebody's")
    said = shell.fails("instance", "enrol", "gw", "--token-file", str(taken), "--any-server")
    assert "cannot be made" in said
    assert shell.services.asked == []
    assert taken.read_text() == "somebody's"


def test_a_refused_enrolment_leaves_no_file_behind(shell: Shell, tmp_path: Path) -> None:
    shell.services.answers["POST", "/v1/enrolments"] = CommandFailed("There is an open enrolment by that name.")
    path = tmp_path / "token"
    assert "open enrolment" in shell.fails("instance", "enrol", "gw", "--token-file", str(path), "--any-server")
    assert not path.exists()


def test_an_enrolment_that_is_not_wanted_any_more_is_taken_back(shell: Shell) -> None:
    shell.services.answers["DELETE", "/v1/enrolments/gw%201"] = {"event_id": "change/1", "seq": 7}
    assert "gw 1" in shell.run("instance", "withdraw", "gw 1")


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("eyJ0.a-token.of-somebody\n")
    return Connection(urls={"policy": "https://policy.test"}, token_file=token)


def answering(respond: Callable[[httpx2.Request], httpx2.Response], connection: Connection) -> Api:
    return Api(connection, transport=httpx2.MockTransport(respond))


@pytest.mark.parametrize("status", [200, 302, 404, 500])
@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"[]", b'"text"', b"\xff", b"{"])
def test_an_answer_of_something_else_than_a_service_is_one_sentence(
    connection: Connection, status: int, body: bytes
) -> None:
    api = answering(lambda _: httpx2.Response(status, content=body), connection)
    if (status, body) in {(200, b"[]"), (200, b'"text"')}:
        return
    with pytest.raises(CommandFailed, match=f"policy answered {status}"):
        api.call("GET", "policy", "/v1/grants")


def test_a_redirect_is_not_followed_and_is_no_answer(connection: Connection) -> None:
    seen: list[str] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.host)
        return httpx2.Response(302, headers={"location": "https://evil.example/"}, json={})

    with pytest.raises(CommandFailed, match="policy answered 302"):
        answering(respond, connection).call("GET", "policy", "/v1/grants")
    assert seen == ["policy.test"]


@pytest.mark.parametrize(
    "url", ["http://policy.test", "http://10.0.0.7:8000", "ftp://policy.test", "policy.test", "http://["]
)
def test_the_token_is_sent_over_https_or_to_this_machine_only(connection: Connection, url: str) -> None:
    def respond(_: httpx2.Request) -> httpx2.Response:
        raise AssertionError("nothing may be sent")

    api = answering(respond, connection.model_copy(update={"urls": {"policy": url}}))
    with pytest.raises(CommandFailed, match="https"):
        api.call("GET", "policy", "/v1/grants")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://policy.test/"])
def test_loopback_needs_no_tls_and_a_slash_at_the_end_does_not_matter(connection: Connection, url: str) -> None:
    seen: list[str] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.path)
        return httpx2.Response(200, json={})

    answering(respond, connection.model_copy(update={"urls": {"policy": url}})).call("GET", "policy", "/v1/grants")
    assert seen == ["/v1/grants"]


@pytest.mark.parametrize("token", ["tök-en", "two\nlines", "\u20ac", ""])
def test_a_token_that_no_header_can_carry_is_one_sentence_without_it(connection: Connection, token: str) -> None:
    connection.token_file.write_text(token)
    api = answering(lambda _: httpx2.Response(200, json={}), connection)
    with pytest.raises(CommandFailed, match="holds no usable token") as failure:
        api.call("GET", "policy", "/v1/grants")
    assert failure.value.__cause__ is None
    assert not token or token not in str(failure.value)


def test_a_service_without_a_url_is_named(connection: Connection) -> None:
    api = answering(lambda _: httpx2.Response(200, json={}), connection)
    with pytest.raises(CommandFailed, match="no URL for notifier"):
        api.call("GET", "notifier", "/v1/notices")
