"""The command line against services in memory: what was asked of them, what was printed, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.__main__ import app, main
from services.cli.connection import CommandFailed

Call = tuple[str, str]


@dataclass(slots=True)
class FakeServices:
    """Answers by (method, path); an answer that is an exception is raised. Remembers what it was asked."""

    answers: dict[Call, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    queries: list[Mapping[str, Any]] = field(default_factory=list)

    def call(self, method: str, service: str, path: str, *, body: object = None, query: object = None) -> Any:
        self.asked.append((method, f"{service} {path}", body))
        self.queries.append(query if isinstance(query, Mapping) else {})
        answer = self.answers[method, path]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def every(self, service: str, path: str, **query: object) -> list[dict[str, Any]]:
        return list(self.call("GET", service, path, query=query)["items"])

    def has(self, path: str, *items: Mapping[str, Any]) -> None:
        """Let a list hold these."""
        self.answers["GET", path] = {"items": list(items)}

    def bodies(self, method: str) -> list[Any]:
        """What was sent with a method, in order."""
        return [body for asked, _, body in self.asked if asked == method]


@dataclass(slots=True)
class Shell:
    services: FakeServices
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: str) -> str:
        """What a command that must succeed prints."""
        assert not app(list(arguments), result_action="return_value", exit_on_error=False)
        return self.capture.readouterr().out

    def fails(self, *arguments: str) -> str:
        """The sentence of a command that must fail."""
        with pytest.raises(CommandFailed) as failure:
            app(list(arguments), result_action="return_value", exit_on_error=False)
        return str(failure.value)

    def process(self, *arguments: str) -> tuple[object, str, str]:
        """(exit code, stdout, stderr) of the whole command."""
        self.monkeypatch.setattr("sys.argv", ["keyfob", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capture.readouterr()
        return ended.value.code, printed.out, printed.err
