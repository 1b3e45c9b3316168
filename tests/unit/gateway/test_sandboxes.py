"""Command lines of sandboxes: no value in them, nothing left to a shell; and which tool is taken."""

from __future__ import annotations

import logging
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import sandboxes
from services.gateway.sandboxes import Bubblewrap, Choice, Sandbox, Unshare, detect, works
from services.gateway.views import Own, View, make_rooms
from shared.config import Misconfigured
from shared.errors import Unavailable
from tests.thoroughness import examples

NAMES = ("bwrap", "env", "unshare", "setpriv", "mount", "umount", "mkdir", "ln", "sh")
TOOLS = {name: f"/tools/{name}" for name in NAMES}
OWN = Own(Path("/scratch/one"), Path("/memory/one"))
COMMANDS = st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=4)


def script_of(command: list[str]) -> str:
    return command[command.index("-c", command.index("--kill-child=KILL")) + 1]


@settings(max_examples=examples(50), deadline=None)
@given(command=COMMANDS)
@pytest.mark.parametrize("kind", [Bubblewrap, Unshare])
def test_the_servers_command_comes_last_and_as_it_is(kind: type[Bubblewrap | Unshare], command: list[str]) -> None:
    made = kind(TOOLS, View()).around(OWN, command)
    assert made[-len(command) :] == command
    assert made[0] == TOOLS["bwrap" if kind is Bubblewrap else "unshare"]


@pytest.mark.parametrize("odd", ["with blank", "$(id)", "quote'and\"quote", "-o", "new\nline", ";id", "\\"])
def test_odd_paths_are_words_of_the_script_and_not_code(tmp_path: Path, odd: str) -> None:
    directory = tmp_path / odd
    directory.mkdir()
    script = script_of(Unshare(TOOLS, View(shown=(directory,))).around(make_rooms(directory), ["/bin/true"]))
    words = shlex.split(script.replace("\n", " "))
    assert str(directory.resolve()) in shlex.split(script), "shown: the test's own place is in a hidden one"
    assert "$(id)" not in words
    # The shell reads it without running it.
    assert subprocess.run(["/bin/sh", "-n", "-c", script], check=False, capture_output=True).stderr == b""


def test_the_script_uses_no_variable_of_the_shells() -> None:
    """It has the server's environment: one that is called like a variable of ours would be changed, or change it."""
    script = script_of(Unshare(TOOLS, View()).around(OWN, ["/bin/true"]))
    rest = script.replace('"$@"', "").replace('"$?"', "")
    assert "$" not in rest
    assert not [line for line in rest.splitlines() if "=" in line.split(" ")[0]]


def test_every_program_of_a_sandbox_is_called_by_its_whole_path() -> None:
    script = script_of(Unshare(TOOLS, View()).around(OWN, ["/bin/true"]))
    builtin = {"set", "exec", ":", "(", ")"}
    assert {line.split()[0] for line in script.splitlines()} - builtin <= set(TOOLS.values())
    called = Unshare(TOOLS, View()).around(OWN, ["/bin/true"])
    assert not set(NAMES) - {"sh"} & set(called), "sh is only what the shell is told that it is called"


def test_without_the_gateway_that_started_it_a_server_does_not_start() -> None:
    """Between the new user namespace and the death signal nobody would end it."""
    made = Unshare(TOOLS, View()).around(OWN, ["/bin/true"])
    check = next(word for word in made if "PPID" in word)
    assert made.index("--pdeathsig") < made.index(check) < made.index("--kill-child=KILL")
    for parent, expected in (("$PPID", 0), ("1", 1)):
        found = check.replace(check.split()[3], parent)
        assert subprocess.run(["/bin/sh", "-c", found, "sh", "/bin/true"], check=False).returncode == expected


@pytest.mark.parametrize("kind", [Bubblewrap, Unshare])
def test_capabilities_and_namespaces_are_asked_for(kind: type[Bubblewrap | Unshare]) -> None:
    said = " ".join(kind(TOOLS, View()).around(OWN, ["/bin/true"]))
    needed = {
        Bubblewrap: ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop ALL"),
        Unshare: ("--map-current-user", "--mount", "--pid", "--ipc", "--bounding-set=-all", "--no-new-privs"),
    }[kind]
    assert [word for word in needed if word not in said] == []


ODD = ("PWD", "OLDPWD", "SHLVL", "_")


@pytest.mark.parametrize(
    ("kind", "refused", "taken"),
    [
        (Bubblewrap, ODD, ("A", "my.var", "my-var", "UID")),
        (Unshare, (*ODD, "my.var", "my-var", "UID", "RANDOM", "1A", "Ä"), ("A", "a_1", "own", "PATH")),
    ],
)
def test_a_variable_that_would_not_arrive_as_it_is_is_refused_by_its_name(
    kind: type[Bubblewrap | Unshare], refused: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    sandbox = kind(TOOLS, View())
    for name in refused:
        with pytest.raises(Unavailable, match=f"The variable {name} would not reach"):
            sandbox.around(OWN, ["/bin/true"], ("A", name))
    assert sandbox.around(OWN, ["/bin/true"], taken)


def test_programs_that_only_make_the_sandbox_are_not_given_the_servers_variables() -> None:
    lines = script_of(Unshare(TOOLS, View()).around(OWN, ["/bin/true"], ("DB_URL", "own"))).splitlines()
    inner = lines[lines.index("(") : lines.index(")")]
    assert inner[1] == "unset DB_URL own"
    assert not [line for line in (*lines[: lines.index("(")], *lines[lines.index(")") :]) if TOOLS["mount"] in line]


class Tool:
    """A sandbox that is only made of what it answers."""

    def __init__(self, name: str, *, working: bool = True) -> None:
        self.name = name
        self.view = View()
        self.working = working

    def around(self, own: Own, command: Any, names: Any = ()) -> list[str]:
        raise NotImplementedError


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[Choice, Tool]:
    """The tools of a host; none to begin with."""
    there: dict[Choice, Tool] = {}
    makers = {choice: lambda _, choice=choice: there.get(choice) for choice in (Choice.BUBBLEWRAP, Choice.UNSHARE)}
    monkeypatch.setattr(sandboxes, "_MAKERS", makers)
    monkeypatch.setattr(sandboxes, "works", lambda tool, _: tool.working)
    return there


def named(sandbox: Sandbox | None) -> str | None:
    return None if sandbox is None else sandbox.name


def test_auto_takes_bubblewrap_then_unshare_then_none(host: dict[Choice, Tool]) -> None:
    assert detect(Choice.AUTO, View()) is None
    host[Choice.UNSHARE] = Tool("unshare")
    assert named(detect(Choice.AUTO, View())) == "unshare"
    host[Choice.BUBBLEWRAP] = Tool("bubblewrap")
    assert named(detect(Choice.AUTO, View())) == "bubblewrap"
    host[Choice.BUBBLEWRAP].working = False
    assert named(detect(Choice.AUTO, View())) == "unshare", "what is installed and not allowed is no boundary"


@pytest.mark.parametrize("choice", [Choice.BUBBLEWRAP, Choice.UNSHARE])
def test_a_tool_that_is_named_and_does_not_work_stops_the_start(host: dict[Choice, Tool], choice: Choice) -> None:
    with pytest.raises(Misconfigured, match="KEYFOB_GATEWAY_SANDBOX"):
        detect(choice, View())
    host[choice] = Tool(choice, working=False)
    with pytest.raises(Misconfigured, match="not installed, or this host"):
        detect(choice, View())
    host[choice].working = True
    assert named(detect(choice, View())) == choice


def test_off_asks_no_tool(host: dict[Choice, Tool]) -> None:
    host[Choice.BUBBLEWRAP] = Tool("bubblewrap")
    assert detect(Choice.OFF, View()) is None


@pytest.mark.parametrize("kind", ["absent", "fails", "shares namespaces"])
def test_what_does_not_isolate_does_not_work(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tool = Tool("plain")
    tool.around = lambda _, command, __=(): {  # type: ignore[method-assign]
        "absent": ["/no/such/program"],
        "fails": ["/bin/false"],
        "shares namespaces": list(command),
    }[kind]
    assert not works(tool, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tools_are_not_looked_for_where_the_gateways_own_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandboxes, "TOOLS", "/no/such/directory")
    assert [maker(View()) for maker in sandboxes._MAKERS.values()] == [None, None]
    monkeypatch.setattr(sandboxes, "TOOLS", str(tmp_path))
    assert all(maker(View()) for maker in sandboxes._MAKERS.values())
