"""How the process ends: its exit code is for scripts and supervisors, its last line for people."""

from __future__ import annotations

import signal
import sys
from types import ModuleType

import pytest

from services.__main__ import app
from services.cli.connection import CommandFailed
from shared.config import Misconfigured
from shared.serving import EXIT_MISCONFIGURED
from tests.unit.cli.shell import Shell


def played(monkeypatch: pytest.MonkeyPatch, **commands: object) -> None:
    """Let `services.dev.commands` be these, without importing the embedded platform."""
    module = ModuleType("services.dev.commands")
    for name, command in commands.items():
        setattr(module, name, command)
    monkeypatch.setitem(sys.modules, "services.dev.commands", module)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandFailed("It did not work."), 1, "keyfob: It did not work.\n"),
        (Misconfigured("Set KEYFOB_X."), EXIT_MISCONFIGURED, "keyfob: Set KEYFOB_X.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_end_is_a_code_and_one_line_without_a_stack_trace(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def demo() -> int:
        raise error

    played(monkeypatch, demo=demo)
    assert shell.process("demo") == (code, "", said)


@pytest.mark.parametrize("code", [0, 3])
def test_the_code_of_a_demo_is_that_of_the_process(shell: Shell, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    played(monkeypatch, demo=lambda: code, dev=lambda: code)
    assert shell.process("demo")[0] == code
    assert shell.process("dev")[0] == code


def test_a_token_of_the_development_issuer_is_printed_alone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def token(subject: str, groups: list[str], *, ttl_s: int) -> str:
        asked.append((subject, groups, ttl_s))
        return "a.b.c"

    played(monkeypatch, token=token)
    assert shell.run("dev", "token", "agent-a", "--group", "staff", "--group", "ward") == "a.b.c\n"
    assert asked == [("agent-a", ["staff", "ward"], 3600)]


def test_only_services_that_exist_can_be_served(shell: Shell) -> None:
    code, _, _ = shell.process("serve", "everything")
    assert code


def test_every_command_says_what_it_does() -> None:
    unsaid = [name for group in app.subapps for name in [*group.name] if not group.help.strip()]
    assert unsaid == []


def test_a_reader_that_went_away_is_no_stack_trace(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `keyfob audit list --json | head -1`."""

    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            raise OSError

        def isatty(self) -> bool:
            return False

    shell.services.has("/v1/grants")
    monkeypatch.setattr("sys.stdout", Closed())
    code, _, said = shell.process("grant", "list", "--json")
    assert (code, said) == (128 + signal.SIGPIPE, "")
