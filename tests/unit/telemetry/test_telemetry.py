"""One JSON line per event; no secret in it, whatever somebody hands to the logger; traces reach across messages."""

from __future__ import annotations

import io
import json
import logging
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pydantic import BaseModel, SecretStr, ValidationError
from rpds import HashTrieMap
from sqlalchemy import make_url
from yarl import URL

from shared import telemetry
from shared.crypto.secret import SecretBytes
from shared.errors import BadRequest
from shared.telemetry import HIDDEN, JsonLinesExporter, configure, current_traceparent, hide_secrets, span

CANARY = "hunter2-canary"


class Held:
    """Something whose repr shows what it holds, as a dataclass does."""

    def __init__(self, held: bytes) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"Held({self.held!r})"


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the process prints, with logging configured for it and put back afterwards."""
    captured = io.StringIO()
    monkeypatch.setattr(sys, "stdout", captured)
    monkeypatch.setattr(telemetry, "_configure_traces", lambda *_: None)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure("tests")
    yield captured
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(stdout: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.getvalue().splitlines()]


def test_an_event_is_one_json_line(stdout: io.StringIO) -> None:
    structlog.get_logger().info("grant-ended", grant="grant/1", note="two\nlines")
    (line,) = lines(stdout)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "service": "tests",
        "event": "grant-ended",
        "level": "info",
        "grant": "grant/1",
        "note": "two\nlines",
    }


@pytest.mark.parametrize(
    "name",
    ["value", "token", "password", "secret", "authorization", "Authorization", "access_token", "db_password", "api_key",
     "client-secret", "x.cookie", "dsn", "credentials", "tokens"],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_hidden_at_any_depth(stdout: io.StringIO, name: str) -> None:
    structlog.get_logger().info("x", **{name: CANARY}, nested={"deep": [{name: CANARY}]})
    assert CANARY not in stdout.getvalue()
    (line,) = lines(stdout)
    assert line[name] == HIDDEN


@pytest.mark.parametrize("name", ["reference", "key", "key_id", "token_count", "event_id", "secrets_seen"])
def test_other_names_are_shown(stdout: io.StringIO, name: str) -> None:
    structlog.get_logger().info("x", **{name: "shown"})
    assert lines(stdout)[0][name] == "shown"


@pytest.mark.parametrize(
    "held",
    [
        SecretBytes(CANARY.encode()),
        SecretStr(CANARY),
        CANARY.encode(),
        bytearray(CANARY.encode()),
        f"postgresql://app:{CANARY}@db/x",
        f"cannot connect to amqp://:{CANARY}@host:1/",
        f"postgresql://app:p@ss/{CANARY}@db/x",
        URL(f"https://app:{CANARY}@vault:8200/v1"),
        make_url(f"postgresql://app:{CANARY}@db/x"),
        MappingProxyType({"token": CANARY}),
        HashTrieMap({"token": CANARY}),
        Held(CANARY.encode()),
        ValueError(CANARY),
        [OSError(1, CANARY)],
        {"deep": ({"cause": ValueError(CANARY)},)},
        [SecretStr(CANARY)],
        {"a": (CANARY.encode(),)},
    ],
)
def test_what_holds_a_secret_is_hidden_whatever_its_name(stdout: io.StringIO, held: Any) -> None:
    structlog.get_logger().info("x", thing=held)
    assert CANARY not in stdout.getvalue()
    assert len(lines(stdout)) == 1


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (None, None),
        (7, 7),
        (True, True),
        ("https://vault:8200/v1?mail=a", "https://vault:8200/v1?mail=a"),
        (Path("/etc/keyfob"), "/etc/keyfob"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00+00:00"),
        (BadRequest("too deep"), "BadRequest: too deep"),
        (ValueError("x"), "ValueError"),
        ({1: {"a"}}, {"1": ["a"]}),
    ],
    ids=repr,
)
def test_what_holds_none_is_shown(stdout: io.StringIO, held: Any, shown: Any) -> None:
    structlog.get_logger().info("x", thing=held)
    assert lines(stdout)[0]["thing"] == shown


def fail(error: Exception) -> NoReturn:
    raise error


class Model(BaseModel):
    number: int


def test_an_exception_is_shown_by_type_and_place_and_not_by_its_words(stdout: io.StringIO) -> None:
    try:
        Model.model_validate({"number": CANARY})
    except ValidationError:
        structlog.get_logger().exception("failed")
    assert CANARY not in stdout.getvalue()
    (line,) = lines(stdout)
    assert line["exception"] == "ValidationError"
    assert any("test_telemetry.py" in place for place in line["at"])


def test_our_own_errors_keep_their_detail(stdout: io.StringIO) -> None:
    try:
        fail(BadRequest("too deep"))
    except BadRequest:
        structlog.get_logger().exception("failed")
    assert lines(stdout)[0]["detail"] == "too deep"


def test_lines_of_libraries_look_the_same_and_hide_the_same(stdout: io.StringIO) -> None:
    library = logging.getLogger("some.library")
    library.info("connected to %s", f"redis://u:{CANARY}@h")
    try:
        fail(ValueError(CANARY))
    except ValueError:
        library.exception("oops")
    assert CANARY not in stdout.getvalue()
    first, second = lines(stdout)
    assert (first["service"], first["level"]) == ("tests", "info")
    assert (second["event"], second["exception"]) == ("oops", "ValueError")


@pytest.fixture
def spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A provider of this test's own, writing to a file."""
    file = tmp_path / "spans.jsonl"
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(file, "tests")))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("tests"))
    return file


def exported(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_trace_goes_on_behind_a_message(spans: Path) -> None:
    with span("publish"):
        carried = current_traceparent()
    assert current_traceparent() is None
    with span("consume", parent=carried, reference="reference/1"):
        pass
    published, consumed = exported(spans)
    assert consumed["trace_id"] == published["trace_id"]
    assert consumed["parent_id"] == published["span_id"]
    assert consumed["attributes"] == {"reference": "reference/1"}


@pytest.mark.parametrize("garbage", ["", "x", "00-0-0-01", "\x00"])
def test_a_parent_that_makes_no_sense_starts_a_new_trace(spans: Path, garbage: str) -> None:
    with span("consume", parent=garbage):
        assert current_traceparent()
    assert exported(spans)[0]["parent_id"] is None


def test_a_failed_span_keeps_the_type_of_the_error_only(spans: Path) -> None:
    with pytest.raises(ValueError, match=CANARY), span("work"):
        raise ValueError(CANARY)
    assert CANARY not in spans.read_text()
    assert exported(spans)[0]["status"] == "ERROR"


def test_a_log_line_names_its_trace(spans: Path) -> None:
    with span("work"):
        event = telemetry.add_trace(None, "", {"event": "x"})
        context = trace.get_current_span().get_span_context()
    assert event["trace_id"] == format(context.trace_id, "032x")
    assert spans.exists()


def test_a_file_that_can_not_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(tmp_path / "no" / "such" / "folder", "tests")))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("tests"))
    with span("work"):
        pass


def test_hiding_does_not_change_what_the_caller_holds() -> None:
    held = {"token": CANARY}
    hide_secrets(None, "", {"inner": held})
    assert held == {"token": CANARY}
