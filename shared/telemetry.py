"""Logs, traces, counters: one JSON line per event on stdout, W3C trace context on messages, no secret in any of them.

`configure` is called once, by a service's wiring. Without it, logs go to structlog's default and spans cost nothing.
Set `KEYFOB_TRACES_FILE` to append finished spans as JSON lines to a file; an OTLP exporter for spans and counters is
used when it is installed and `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import SecretBytes as PydanticSecretBytes
from pydantic import SecretStr

from shared.crypto.secret import SecretBytes
from shared.errors import KeyfobError

HIDDEN = "[hidden]"
FRAMES_KEPT = 12
_SENSITIVE = re.compile(
    r"(^|[_\-.])(value|values|tokens?|password|passwd|secret|secrets|authorization|credential|credentials|cookie|dsn"
    r"|private[_\-]?key|api[_\-]?key)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^\s\"'<>]{1,512}@")
"""Up to the last @ of the word: a password that nobody percent-encoded may hold one, and a slash."""
_PROPAGATOR = TraceContextTextMapPropagator()


def configure(service: str, *, level: str = "INFO", traces_file: Path | None = None) -> None:
    """Set up logs and traces of this process. `traces_file` defaults to `KEYFOB_TRACES_FILE`."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared_steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace,
        show_where_it_failed,
        hide_secrets,
    ]
    structlog.configure(
        processors=[*shared_steps, _named(service), structlog.processors.JSONRenderer(sort_keys=False)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(service, shared_steps, threshold)
    _configure_traces(service, traces_file)
    _configure_counters(service)


def hide_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what must never be logged: keys named like a secret, and types made to hold one, at any depth."""
    return {key: HIDDEN if _SENSITIVE.search(key) else _masked(item) for key, item in event.items()}


def add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the current trace and span id."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


def show_where_it_failed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace exception information by the type and the frames.

    Messages of foreign exceptions may quote what must not be logged (a parser its input, a driver its parameters), so
    only our own, whose detail is safe to show, keep theirs.
    """
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        # The innermost ones: frameworks fill the outer ones.
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_KEPT:]
        event["exception"] = type(error).__name__
        event["at"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        if isinstance(error, KeyfobError):
            event["detail"] = error.detail
    return event


def tracer() -> Tracer:
    """The one tracer of this code base."""
    return trace.get_tracer("keyfob")


def current_traceparent() -> str | None:
    """The W3C `traceparent` of the current span, or None when there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(
    name: str, *, parent: str | None = None, kind: SpanKind = SpanKind.INTERNAL, **attributes: str
) -> Iterator[Span]:
    """A span under `parent` (a `traceparent`), or under the current one. Attributes are ids, never values.

    An exception marks the span as failed by its type only: messages may quote what must not be kept.
    """
    context = None if parent is None else _PROPAGATOR.extract({"traceparent": parent})
    with tracer().start_as_current_span(
        name, context=context, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def count(name: str, amount: int = 1) -> None:
    """Add to a counter; it costs nothing where nobody collects them."""
    _counter(name).add(amount)


@cache
def _counter(name: str) -> metrics.Counter:
    return metrics.get_meter("keyfob").create_counter(name)


class JsonLinesExporter(SpanExporter):
    """Appends finished spans to a file, one JSON object a line: for development and tests."""

    def __init__(self, path: Path, service: str) -> None:
        self._path = path
        self._service = service

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans; a full disk must not stop a service."""
        lines = "".join(json.dumps(self._line(span)) + "\n" for span in spans)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held open."""

    def _line(self, span: ReadableSpan) -> dict[str, Any]:
        context = span.get_span_context()
        return {
            "service": self._service,
            "name": span.name,
            "trace_id": format(context.trace_id, "032x") if context else None,
            "span_id": format(context.span_id, "016x") if context else None,
            "parent_id": format(span.parent.span_id, "016x") if span.parent else None,
            "kind": span.kind.name,
            "start_ns": span.start_time,
            "end_ns": span.end_time,
            "status": span.status.status_code.name,
            "attributes": dict(span.attributes or {}),
        }


def _masked(item: Any) -> Any:
    match item:
        case Mapping():
            return {str(key): HIDDEN if _SENSITIVE.search(str(key)) else _masked(inner) for key, inner in item.items()}
        case tuple() if names := getattr(item, "_fields", ()):
            # A named tuple, such as SQLAlchemy's URL: its members have names to be judged by.
            return _masked(dict(zip(names, item, strict=True)))
        case list() | tuple() | set() | frozenset():
            return [_masked(inner) for inner in item]
        case _:
            return _masked_one(item)


def _masked_one(item: Any) -> Any:
    match item:
        case SecretBytes() | SecretStr() | PydanticSecretBytes() | bytes() | bytearray() | memoryview():
            return HIDDEN
        case None | bool() | int() | float():
            return item
        case str():
            return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", item)
        case BaseException():
            # The words of others' exceptions may quote anything, as in `show_where_it_failed`.
            return type(item).__name__ + (f": {item.detail}" if isinstance(item, KeyfobError) else "")
        case PurePath() | UUID() | date():
            return str(item)
        case _:
            # The renderer would write its repr, and nobody knows what that shows.
            return f"<{type(item).__name__}>"


def _named(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"service": service, **event}

    return add


def _adopt_standard_logging(service: str, steps: list[structlog.typing.Processor], threshold: int) -> None:
    """Lines of libraries look like ours; those about single requests stay quiet."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _named(service),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Never lower for libraries, whatever our own level: at DEBUG some of them write whole requests.
    root.setLevel(max(threshold, logging.INFO))
    for noisy in ("aiokafka", "faststream", "httpx", "httpcore", "asyncio", "alembic", "uvicorn.access", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _configure_traces(service: str, traces_file: Path | None) -> None:
    path = traces_file or (Path(named) if (named := os.environ.get("KEYFOB_TRACES_FILE")) else None)
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if path is not None:
        # One by one, since a process that is killed writes no last batch.
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(path, service)))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        with suppress(ImportError):
            provider.add_span_processor(BatchSpanProcessor(_otlp_exporter()))
    trace.set_tracer_provider(provider)


def _configure_counters(service: str) -> None:
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        with suppress(ImportError):
            module = import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
            exporter: MetricExporter = module.OTLPMetricExporter()
            reader = PeriodicExportingMetricReader(exporter)
            metrics.set_meter_provider(MeterProvider([reader], Resource.create({"service.name": service})))


def _otlp_exporter() -> SpanExporter:
    module = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter
