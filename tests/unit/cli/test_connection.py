"""The command's way to the services: what a person sees when something is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from services.cli.connection import VARIABLE, Api, CommandFailed, Connection, load_connection

TOKEN = "eyJ0.a-token.of-somebody"


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")
    return Connection(urls={"policy": "https://policy.test"}, token_file=token)


def answering(respond: Callable[[httpx2.Request], httpx2.Response], connection: Connection) -> Api:
    return Api(connection, transport=httpx2.MockTransport(respond))


def test_the_token_travels_in_the_header(connection: Connection) -> None:
    seen = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        return httpx2.Response(200, json={})

    answering(respond, connection).call("GET", "policy", "/v1/grants")
    assert seen == [f"Bearer {TOKEN}"]


def test_a_problem_is_told_in_its_own_words(connection: Connection) -> None:
    problem = {"detail": "There is nothing by that name for you.", "choices": ["a", "b"]}
    api = answering(lambda _: httpx2.Response(404, json=problem), connection)
    with pytest.raises(CommandFailed, match=r"nothing by that name for you\. Choose from: a, b\."):
        api.call("GET", "policy", "/v1/grants")


def test_an_answer_that_is_no_problem_document_is_named_by_its_status(connection: Connection) -> None:
    api = answering(lambda _: httpx2.Response(502, text="<html>gateway</html>"), connection)
    with pytest.raises(CommandFailed, match="policy answered 502"):
        api.call("GET", "policy", "/v1/grants")


def test_a_service_that_is_down_is_named_without_the_token(connection: Connection) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with pytest.raises(CommandFailed, match=r"policy at https://policy\.test did not answer") as failure:
        answering(refuse, connection).call("GET", "policy", "/v1/grants")
    assert TOKEN not in str(failure.value)


def test_a_list_is_read_to_its_last_page(connection: Connection) -> None:
    pages = {None: {"items": [{"id": "1"}], "next": "1"}, "1": {"items": [{"id": "2"}], "next": None}}

    def respond(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=pages[request.url.params.get("after")])

    assert [item["id"] for item in answering(respond, connection).every("policy", "/v1/grants")] == ["1", "2"]


def test_a_token_file_that_others_can_read_is_refused(connection: Connection) -> None:
    connection.token_file.chmod(0o644)
    with pytest.raises(CommandFailed, match="chmod 600"):
        answering(lambda _: httpx2.Response(200, json={}), connection).call("GET", "policy", "/v1/grants")


def test_a_missing_connection_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.json"))
    with pytest.raises(CommandFailed, match="keyfob dev"):
        load_connection()


def test_a_malformed_connection_file_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({"urls": 3}))
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(CommandFailed, match="not a connection file"):
        load_connection()
