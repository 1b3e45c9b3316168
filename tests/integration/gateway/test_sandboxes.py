"""What a hostile server finds of its siblings, with and without a sandbox; and that nobody outlives an end."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from services.gateway import processes, views
from services.gateway.files import ValueFiles, usual_places
from services.gateway.processes import Child, Launch
from services.gateway.sandboxes import TOOLS, Choice, Sandbox, Unshare, detect, works
from services.gateway.upstream import Limits, Upstream
from services.gateway.views import View, make_rooms
from shared.config import Misconfigured
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from tests.fakes import spy
from tests.fakes.agent_side import said, teller
from tests.waiting import until

ROOT = Path(__file__).parents[3]
INSTALLED = tuple({ROOT, Path(sys.prefix), Path(sys.base_prefix)})
"""A checkout may lie in /tmp, which sandboxes hide."""
SPY = Path(spy.__file__)
BOTH = (Choice.BUBBLEWRAP, Choice.UNSHARE)

SHARED = ("/tmp", "/dev/shm")  # noqa: S108 - what a server would share without a sandbox

VICTIM = """
import os, sys
for place in (".", "/tmp", "/dev/shm"):
    with open(os.path.join(place, sys.argv[1]), "w") as stream:
        stream.write(os.environ["IN_" + {".": "WORK", "/tmp": "TMP", "/dev/shm": "SHM"}[place]])
print("up", flush=True)
sys.stdin.read()
"""
WITH_GRANDCHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
def bye(*_):
    time.sleep(0.1)
    sys.exit(7)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
while True:
    signal.pause()
"""
TELLER = """
import json, os
from pathlib import Path
Path("/tmp/a").write_text("x")
Path("b").write_text("y")
print(json.dumps({
    "fds": sorted(int(one) for one in os.listdir("/proc/self/fd"))[:-1],
    "environment": Path("/proc/self/environ").read_text(),
    "here": os.getcwd(),
    "tmp": os.listdir("/var/tmp"),
    "uid": os.getuid(),
    "value": Path(os.environ["KEY"]).read_text(),
    "status": Path("/proc/self/status").read_text(),
    "mounts": Path("/proc/self/mountinfo").read_text(),
}), flush=True)
input()
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
GATEWAY = """
import asyncio, sys
from pathlib import Path
from services.gateway import processes
from services.gateway.processes import Launch
from services.gateway.sandboxes import Choice, detect
from services.gateway.views import View
async def main():
    sandbox = detect(Choice(sys.argv[1]), View(shown=tuple(map(Path, sys.argv[3:]))))
    launch = Launch(command=sys.executable, args=("-I", "-c", sys.argv[2]), environment={}, sandbox=sandbox)
    child = await processes.start(launch)
    await child.process.stdout.readline()
    print(child.pid, child.directory, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@dataclass(frozen=True)
class Home:
    """Where one gateway keeps its things."""

    identity: Path
    token: Path
    scratch: Path
    values: ValueFiles
    view: View


def not_temporary() -> Path:
    """A new directory in what sandboxes show."""
    (ROOT / "build").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="keyfob-test-", dir=ROOT / "build")).resolve()


def needed(choice: Choice, view: View) -> Sandbox:
    """The sandbox by that tool, or the test is skipped."""
    try:
        found = detect(choice, view)
    except Misconfigured as why:
        pytest.skip(str(why))
    assert found is not None
    return found


@pytest.fixture
def users_own() -> Iterator[Path]:
    """A directory that no sandbox hides."""
    directory = not_temporary()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def home() -> Iterator[Home]:
    directory = not_temporary()
    identity, scratch, token = directory / "identity", directory / "scratch", directory / "enrolment.token"
    identity.mkdir()
    scratch.mkdir()
    values = ValueFiles.of(secrets.token_hex(8), usual_places())
    assert values.root is not None, "no memory file system here"
    hidden = (identity, token, scratch, values.root.parent)
    yield Home(identity, token, scratch, values, View(hidden=hidden, shown=INSTALLED))
    values.clear()
    shutil.rmtree(directory)


def launch(code: str, home: Home, sandbox: Sandbox | None, *args: str, **environment: str) -> Launch:
    return Launch(
        command=sys.executable,
        args=("-I", "-S", "-c", code, *args),
        environment=environment,
        sandbox=sandbox,
        scratch_dir=home.scratch,
    )


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


async def line_of(child: Child) -> str:
    assert child.process.stdout is not None
    async with asyncio.timeout(30):
        return (await child.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def running(launched: Launch) -> AsyncIterator[tuple[Child, str]]:
    """A child, and its first line."""
    child = await processes.start(launched)
    try:
        yield child, await line_of(child)
    finally:
        await child.end(grace_s=0)


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def looked_around(home: Home, sandbox: Sandbox | None) -> tuple[set[str], set[str]]:
    """What a spy found beside a server with values everywhere, and through its processes."""
    names = {kind: f"canary-{kind}-{secrets.token_hex(8)}" for kind in ("environment", "work", "tmp", "shm", "file")}
    (home.identity / "instance.key").write_text("canary-identity")
    home.token.write_text("canary-token")
    files = home.values.put({"KEY": SecretBytes(names["file"].encode())})
    left = f"keyfob-test-{secrets.token_hex(8)}"
    given = {"DB_URL": names["environment"], "IN_WORK": names["work"], "IN_TMP": names["tmp"], "IN_SHM": names["shm"]}
    victim = replace(launch(VICTIM, home, sandbox, left, **given), files=files)
    try:
        async with running(victim) as (child, _):
            places = [home.identity, home.token, child.directory, home.scratch, files, home.values.root]
            everywhere = [*places, *(Path(place, left) for place in SHARED)]
            # The strongest spy: it knows every path.
            args = ("-I", "-S", str(SPY), *map(str, everywhere))
            async with running(replace(launch("", home, sandbox), args=args)) as (_, line):
                words: list[tuple[str, str]] = json.loads(line)
    finally:
        await asyncio.to_thread(remove, files)
        await asyncio.to_thread(remove, *(Path(place, left) for place in SHARED))
    kinds = {(kind, word.split("-")[1]) for kind, word in words}
    return {word for kind, word in kinds if kind == "file"}, {word for kind, word in kinds if kind != "file"}


async def test_without_a_sandbox_a_server_reads_its_siblings_values_and_the_gateways_keys(home: Home) -> None:
    """The control: the same spy, which would find what there is to be found."""
    in_files, in_processes = await looked_around(home, None)
    assert in_files == {"identity", "token", "work", "file", "tmp", "shm"}
    assert {"environment", "work"} <= in_processes


@pytest.mark.parametrize("choice", BOTH)
async def test_in_a_sandbox_it_finds_nothing(home: Home, choice: Choice) -> None:
    sandbox = needed(choice, home.view)
    assert await looked_around(home, sandbox) == (set(), set())


@pytest.mark.parametrize("choice", BOTH)
async def test_a_server_has_what_is_its_own_and_nothing_more(home: Home, choice: Choice) -> None:
    files = home.values.put({"KEY": SecretBytes(b"a value")})
    given = {"KEY": f"{files}/KEY", "ODD": "x y'\"$(id)\n\tü", "own": "mine"}
    launched = replace(launch(TELLER, home, needed(choice, home.view), **given), files=files)
    async with running(launched) as (child, line):
        seen = json.loads(line)
        directory = child.directory
        assert (directory / "work" / "b").read_text() == "y", "outside it is the same file"
    told = dict(one.split("=", 1) for one in seen["environment"].split("\0") if one)
    assert told == given, "nothing of the tools'"
    assert seen["fds"] == [0, 1, 2]
    assert seen["here"] == str(directory / "work")
    assert "a" in seen["tmp"]
    assert seen["value"] == "a value"
    assert seen["uid"] == os.getuid()
    assert "CapBnd:\t0000000000000000" in seen["status"]
    assert "NoNewPrivs:\t1" in seen["status"]
    assert str(directory / "before") not in seen["mounts"], "the whole tree is nowhere any more"
    assert not directory.exists(), "everything it wrote is gone with it"


@pytest.mark.parametrize("choice", BOTH)
async def test_it_can_not_write_anywhere_else(home: Home, choice: Choice, users_own: Path) -> None:
    """Not even what its user owns: the next server might run it."""
    places = [users_own, ROOT, Path("/"), Path("/run"), Path("/proc/sys/kernel"), home.identity]
    code = (
        "import sys\n"
        "for place in sys.argv[1:]:\n"
        "    try: open(place + '/canary', 'w').close()\n"
        "    except OSError: continue\n"
        "    print(place, flush=True)\n"
        "print('end', flush=True)\n"
    )
    async with running(launch(code, home, needed(choice, home.view), *map(str, places))) as (_, line):
        assert line == "end"
    async with running(launch(code, home, None, str(users_own))) as (_, line):
        assert line == str(users_own), "the control"


@pytest.mark.parametrize("choice", BOTH)
@pytest.mark.parametrize("grace_s", [0.0, 0.5])
async def test_a_descendant_that_left_the_group_is_gone_when_the_server_is(
    home: Home, choice: Choice, grace_s: float
) -> None:
    async with running(launch(WITH_GRANDCHILD, home, needed(choice, home.view))) as (child, _):
        everybody = below(child.pid)
        assert len({os.getsid(process.pid) for process in everybody}) > 1, "somebody has left"
        if not grace_s:
            child.kill()
        await child.end(grace_s=grace_s)
        assert not [process for process in everybody if runs(process)]


async def test_without_a_sandbox_it_stays(home: Home) -> None:
    """The control of the test above."""
    async with running(launch(WITH_GRANDCHILD, home, None)) as (child, _):
        (grandchild,) = below(child.pid)
        await child.end(grace_s=0)
        assert runs(grandchild)
        grandchild.kill()


@pytest.mark.parametrize("choice", BOTH)
async def test_a_server_that_crashes_takes_its_descendants_along(home: Home, choice: Choice) -> None:
    code = WITH_GRANDCHILD.replace("time.sleep(600)\n", "sys.stdin.readline(); import os; os._exit(3)\n")
    async with running(launch(code, home, needed(choice, home.view))) as (child, _):
        everybody = below(child.pid)
        assert child.process.stdin is not None
        child.process.stdin.write(b"\n")
        await until(lambda: child.process.returncode is not None)
        assert child.process.returncode == 3
        await until(lambda: not [process for process in everybody if runs(process)])


@pytest.mark.parametrize("choice", BOTH)
async def test_a_polite_server_may_finish(home: Home, choice: Choice) -> None:
    async with running(launch(POLITE, home, needed(choice, home.view))) as (child, _):
        await child.end(grace_s=10)
        assert child.process.returncode == 7


@pytest.mark.parametrize("choice", BOTH)
async def test_a_stubborn_one_is_killed_after_the_grace(home: Home, choice: Choice) -> None:
    async with running(launch(STUBBORN, home, needed(choice, home.view))) as (child, _):
        everybody = below(child.pid)
        started = time.monotonic()
        await child.end(grace_s=0.2)
        assert 0.2 <= time.monotonic() - started < 3
        assert child.process.returncode == -signal.SIGKILL
        assert not [process for process in everybody if runs(process)]


@pytest.mark.parametrize("choice", BOTH)
async def test_nobody_outlives_a_gateway_that_is_killed(home: Home, choice: Choice) -> None:
    needed(choice, home.view)
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", GATEWAY, choice, WITH_GRANDCHILD, *map(str, INSTALLED)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert gateway.stdout is not None
    pid, directory = (await gateway.stdout.readline()).decode().split()
    everybody = [psutil.Process(int(pid)), *below(int(pid))]
    assert len(everybody) >= 3
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()
    await until(lambda: not [process for process in everybody if runs(process)])
    shutil.rmtree(directory)


@pytest.mark.parametrize("choice", BOTH)
async def test_mcp_works_through_it(home: Home, choice: Choice) -> None:
    sandbox = needed(choice, home.view)
    limits = Limits(
        start_s=20,
        stop_s=1,
        drain_s=1,
        line_limit=1 << 20,
        command_path="/usr/bin:/bin",
        scratch_dir=home.scratch,
        sandbox=sandbox,
        files=home.values,
    )
    given = {"DB_URL": SecretBytes(b"one value"), "KEY": SecretBytes(b"another\0value")}
    upstream = Upstream(teller(files=("KEY",)), given, limits)
    life = asyncio.create_task(upstream.run())
    async with upstream.call() as session:
        environment = json.loads(said(await session.call_tool("environment", {})))
        file = said(await session.call_tool("given", {"name": "KEY", "file": True}))
    upstream.stop()
    await life
    # CPython adds the last one by itself (PEP 538).
    assert set(environment) - {"LC_CTYPE"} == {"DB_URL", "GREETING", "KEY"}
    assert environment["DB_URL"][::-1] == "one value"
    assert file.startswith("13 ")
    assert list(home.scratch.iterdir()) == []


@pytest.mark.parametrize("choice", BOTH)
async def test_a_variable_that_the_sandbox_would_lose_is_refused_and_leaves_nothing(home: Home, choice: Choice) -> None:
    sandbox = needed(choice, home.view)
    with pytest.raises(Unavailable, match="PWD"):
        await processes.start(launch(TELLER, home, sandbox, PWD="/"))
    assert list(home.scratch.iterdir()) == []


async def test_programs_that_make_a_sandbox_hold_no_value(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be in processes that nobody knows to be the server's."""
    # The programs of this test must not be covered while they work.
    monkeypatch.setattr(views, "SHARED", ())
    sandbox = needed(Choice.UNSHARE, home.view)
    assert isinstance(sandbox, Unshare)
    told, tools = home.identity / "told", dict(sandbox.tools)
    for name in ("mount", "mkdir", "ln", "umount"):
        # It writes down the environment that it gets, then does its work.
        program = home.identity / name
        program.write_text(f'#!/bin/sh\ncat /proc/$$/environ >>{told}\nexec {tools[name]} "$@"\n')
        program.chmod(0o755)
        tools[name] = str(program)
    watched = replace(sandbox, tools=tools, view=View(hidden=(home.token,)))
    async with running(launch("print('up', flush=True)", home, watched, DB_URL="canary-value")) as (_, line):
        assert line == "up"
    found = told.read_bytes()
    assert b"PWD" in found, "the control: they did tell"
    assert b"canary" not in found


@pytest.mark.parametrize("choice", BOTH)
async def test_a_program_that_the_sandbox_hides_is_refused_with_what_to_do(home: Home, choice: Choice) -> None:
    program = home.identity / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    sandbox = needed(choice, home.view)
    with pytest.raises(Unavailable, match="KEYFOB_GATEWAY_SANDBOX_SHOWS"):
        await processes.start(Launch(command=str(program), args=(), environment={}, sandbox=sandbox))


@pytest.mark.parametrize("choice", BOTH)
def test_a_gateway_needs_no_privilege_for_it(choice: Choice) -> None:
    """The same for an ordinary user; where the tests run as one, the other tests have shown it."""
    if os.getuid() or shutil.which("setpriv", path=TOOLS) is None:
        pytest.skip("needs root and setpriv, to become somebody else")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    directory = Path(tempfile.mkdtemp(prefix="keyfob-test-")).resolve()
    try:
        keys = directory / "keys"
        keys.mkdir()
        (keys / "key").write_text("canary-key")
        sandbox = needed(choice, View(hidden=(keys,)))
        rooms = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            rooms.append(make_rooms(directory / name))
        for path in (directory, *directory.rglob("*")):
            os.chown(path, 65534, 65534)
        sleeping = [*nobody, *sandbox.around(rooms[0], ["sh", "-c", "echo up; sleep 600"])]
        look = ["sh", "-c", f"cat /proc/[0-9]*/environ {keys}/key; echo; id -u; grep CapEff /proc/self/status"]
        environment = {"PATH": TOOLS, "DB_URL": "canary-environment"}
        with subprocess.Popen(sleeping, env=environment, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "up\n"
            plain, boxed = (
                subprocess.run(command, env={"PATH": TOOLS}, capture_output=True, text=True, check=False).stdout
                for command in ([*nobody, *look], [*nobody, *sandbox.around(rooms[1], look)])
            )
            victim.kill()
    finally:
        shutil.rmtree(directory)
    assert {"canary-key", "canary-environment"} <= set(plain.replace("\0", "\n").replace("DB_URL=", "").split())
    assert "canary" not in boxed
    assert boxed.split()[-3:] == ["65534", "CapEff:", "0" * 16]


@pytest.mark.parametrize("choice", BOTH)
def test_a_tool_that_does_not_isolate_counts_as_none(
    choice: Choice, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = needed(choice, home.view)
    assert works(sandbox, home.scratch)
    monkeypatch.setattr(type(sandbox), "around", lambda _, __, command, ___=(): list(command))
    assert not works(sandbox, home.scratch)
    assert list(home.scratch.iterdir()) == []
