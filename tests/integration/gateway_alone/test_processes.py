"""Children end: politely, for certain, and with us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.gateway import processes
from services.gateway.processes import Launch
from shared.errors import Unavailable
from tests.integration.gateway_alone.test_changes import alive
from tests.waiting import until

SLEEPER = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
PARENT = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    "print(child.pid, flush=True); time.sleep(600)"
)

DIES = """
import asyncio, os, signal, sys
from services.gateway import processes
from services.gateway.processes import Launch
async def main():
    child = await processes.start(Launch(command=sys.executable, args=("-c", {sleeper!r}), environment={{}}))
    print(child.pid, flush=True)
    await asyncio.sleep(600)
{runner}
"""


def launch(code: str) -> Launch:
    return Launch(command=sys.executable, args=("-I", "-c", code), environment={})


async def test_a_polite_child_gets_the_chance_to_be_polite() -> None:
    child = await processes.start(
        launch("import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print(1, flush=True); signal.pause()")
    )
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    await child.end(grace_s=5)
    assert child.process.returncode == 7


async def test_a_stubborn_child_is_killed_after_the_grace() -> None:
    child = await processes.start(launch(STUBBORN))
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    started = time.monotonic()
    await child.end(grace_s=0.2)
    assert 0.2 <= time.monotonic() - started < 2
    assert child.process.returncode == -signal.SIGKILL


async def test_without_grace_it_is_killed_at_once() -> None:
    child = await processes.start(launch(STUBBORN))
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    started = time.monotonic()
    child.kill()
    await child.end(grace_s=0)
    assert time.monotonic() - started < 1
    assert not alive(str(child.pid))


async def test_the_whole_group_goes_even_where_the_leader_is_gone_already() -> None:
    child = await processes.start(launch(PARENT.format(child=STUBBORN)))
    assert child.process.stdout is not None
    grandchild = (await child.process.stdout.readline()).decode().strip()
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: child.process.returncode is not None)
    assert alive(grandchild)
    await child.end(grace_s=0.1)
    await until(lambda: not alive(grandchild))


async def test_ending_again_changes_nothing() -> None:
    child = await processes.start(launch(SLEEPER))
    await asyncio.gather(child.end(grace_s=0.1), child.end(grace_s=0.1))
    await child.end(grace_s=0.1)
    child.kill()


@pytest.mark.parametrize("loop", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"])
async def test_children_die_with_a_gateway_that_is_killed(loop: str) -> None:
    code = DIES.format(sleeper=SLEEPER, runner=loop)
    root = Path(__file__).parents[3]
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=root, stdout=subprocess.PIPE, start_new_session=True
    )
    assert gateway.stdout is not None
    pid = (await gateway.stdout.readline()).decode().strip()
    assert alive(pid)
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()
    await until(lambda: not alive(pid))


async def test_what_a_child_inherits_is_only_its_pipes() -> None:
    code = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1], dict(os.environ), flush=True)"
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        child = await processes.start(launch(code))
        assert child.process.stdout is not None
        found = (await child.process.stdout.readline()).decode()
    finally:
        os.close(leak)
    await child.end(grace_s=0.1)
    assert found.startswith("[0, 1, 2] ")
    assert "PATH" not in found


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "./relative", "a/b", "/etc/passwd"])
def test_only_programs_that_are_there_are_found(command: str) -> None:
    with pytest.raises(Unavailable):
        processes.find_program(command, "/usr/bin:/bin")


def test_a_bare_name_is_looked_for_in_the_configured_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable):
        processes.find_program("tool", "/usr/bin:/bin")
    assert processes.find_program("tool", str(tmp_path)) == str(program)


async def test_a_null_byte_in_a_value_is_refused_without_quoting_it() -> None:
    with pytest.raises(Unavailable) as refused:
        await processes.start(Launch(command="/bin/true", args=(), environment={"A": "secret\0value"}))
    assert "secret" not in refused.value.detail
