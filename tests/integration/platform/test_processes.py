"""A child process: exactly the environment given, nothing left behind, whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from services.dev.platform.failures import ProcessFailed
from services.dev.platform.processes import Process, plain_environment, run_to_end
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[4]
Child = Callable[..., Process]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", textwrap.dedent(code))


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


SLEEP = "import time; time.sleep(600)"
THREADS = 8
BUSY_THREADS = f"""
    import threading, time
    def work():
        while True:
            time.sleep(0.001)
    for _ in range({THREADS}):
        threading.Thread(target=work).start()
"""
SLEEP_WITH_A_CHILD = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest_asyncio.fixture(loop_scope="session")
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    started: list[Process] = []

    def make(code: str, *, env: dict[str, str] | None = None, start: bool = True) -> Process:
        process = Process("child", python(code), env=env or {}, log=tmp_path / "child.log")
        started.append(process)
        if start:
            process.start()
        return process

    yield make
    for process in started:
        process.kill()
        if process.pid is not None:
            await process.wait(5)


async def test_the_child_has_exactly_the_environment_that_was_given(child: Child, tmp_path: Path) -> None:
    os.environ["KEYFOB_TEST_OF_OURS"] = "leaks"
    try:
        # Without LC_ALL, the Python that launches it would add an LC_CTYPE of its own.
        show = "import json; print(open('/proc/self/environ').read().replace(chr(0), ';'))"
        assert await child(show, env={"A": "1"}).wait(5) == 0
    finally:
        del os.environ["KEYFOB_TEST_OF_OURS"]
    assert (tmp_path / "child.log").read_text() == "A=1;\n"


async def test_a_locale_that_was_given_arrives(child: Child, tmp_path: Path) -> None:
    show = "print(open('/proc/self/environ').read().replace(chr(0), ';'))"
    assert await child(show, env={"LC_CTYPE": "C.UTF-8"}).wait(5) == 0
    assert (tmp_path / "child.log").read_text() == "LC_CTYPE=C.UTF-8;\n"


async def test_the_plain_environment_has_no_proxy_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "x")
    environment = plain_environment(DB="y")
    assert environment["DB"] == "y"
    assert "x" not in environment.values()


async def test_output_is_appended_to_the_log(child: Child, tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("before\n")
    assert await child("import sys; print('out', flush=True); sys.exit('err')").wait(5) == 1
    assert (tmp_path / "child.log").read_text() == "before\nout\nerr\n"


async def test_it_has_a_session_of_its_own_so_ctrl_c_does_not_reach_it(child: Child) -> None:
    process = child(SLEEP)
    assert process.pid is not None
    assert os.getsid(process.pid) == process.pid


async def test_a_program_that_does_not_exist_ends_with_127_and_says_so(tmp_path: Path) -> None:
    process = Process("ghost", ("/does/not/exist",), env={}, log=tmp_path / "log")
    process.start()
    assert await process.wait(5) == 127
    assert "/does/not/exist: No such file" in (tmp_path / "log").read_text()


async def test_a_directory_that_does_not_exist_is_refused_at_start(tmp_path: Path) -> None:
    process = Process("lost", python(SLEEP), env={}, log=tmp_path / "log", cwd=tmp_path / "nowhere")
    with pytest.raises(ProcessFailed, match=r"lost can't start .*log"):
        process.start()
    assert not process.running


async def test_stop_asks_first(child: Child, tmp_path: Path) -> None:
    polite = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(0)))
        print("ready", flush=True)
        while True: time.sleep(0.05)
    """
    process = child(polite)
    await until(lambda: "ready" in (tmp_path / "child.log").read_text())
    await process.stop()
    assert process.returncode == 0
    assert "bye" in (tmp_path / "child.log").read_text()


async def test_stop_ends_a_child_that_does_not_listen(child: Child, tmp_path: Path) -> None:
    stubborn = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(600)
    """
    process = child(stubborn)
    await until(lambda: "ready" in (tmp_path / "child.log").read_text())
    await process.stop(grace_s=0.1)
    assert process.returncode == -signal.SIGKILL


async def test_a_suspended_child_is_there_and_can_be_stopped(child: Child) -> None:
    process = child(SLEEP)
    assert process.pid is not None
    process.suspend()
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    assert process.running
    process.resume()
    await until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
    process.suspend()
    await process.stop()
    assert process.returncode == -signal.SIGTERM


async def test_a_suspended_child_does_nothing_more_in_any_of_its_threads(child: Child) -> None:
    process = child(BUSY_THREADS)
    assert process.pid is not None
    await until(lambda: psutil.Process(process.pid).num_threads() > THREADS)
    for _ in range(20):
        process.suspend()
        states = [file.read_text().rpartition(")")[2].split()[0] for file in _threads_of(process.pid)]
        assert set(states) == {"T"}
        process.resume()


def _threads_of(pid: int) -> Iterator[Path]:
    return Path(f"/proc/{pid}/task").glob("*/stat")


async def test_it_can_be_started_again_after_it_ended(child: Child) -> None:
    process = child(SLEEP)
    first = process.pid
    process.kill()
    assert await process.wait(5) == -signal.SIGKILL
    process.start()
    assert process.running
    assert process.pid != first


async def test_what_a_child_leaves_in_its_group_ends_with_it(child: Child, tmp_path: Path) -> None:
    process = child(SLEEP_WITH_A_CHILD)
    grandchild = int(await until(lambda: (tmp_path / "child.log").read_text().strip()))
    assert is_alive(grandchild)
    process.kill()
    await process.wait(5)
    await until(lambda: not is_alive(grandchild))


async def test_a_child_outlives_the_thread_that_asked_for_it(child: Child, tmp_path: Path) -> None:
    # PR_SET_PDEATHSIG fires when the starting *thread* ends: asyncio's executors and short-lived loops have such.
    process = child("print('ready', flush=True); import time; time.sleep(600)", start=False)
    may_end = threading.Event()

    def ask() -> None:
        process.start()
        may_end.wait()

    asker = threading.Thread(target=ask)
    asker.start()
    await until(lambda: process.running and "ready" in (tmp_path / "child.log").read_text())
    may_end.set()
    asker.join()
    with pytest.raises(TimeoutError):
        await process.wait(0.5)
    assert process.running


async def test_a_program_is_found_on_the_path_of_the_child(tmp_path: Path) -> None:
    (tmp_path / "greet").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "greet").chmod(0o755)
    process = Process("greet", ("greet",), env={"PATH": f"/nowhere:{tmp_path}"}, log=tmp_path / "log")
    process.start()
    assert await process.wait(5) == 0
    assert (tmp_path / "log").read_text() == "hello\n"


async def test_a_waiter_that_gives_up_does_not_stop_others_from_knowing(child: Child) -> None:
    process = child(SLEEP)
    with pytest.raises(TimeoutError):
        await process.wait(0.01)
    process.kill()
    assert await process.wait(5) == -signal.SIGKILL


async def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
        import sys, time
        from pathlib import Path
        from services.dev.platform.processes import Process
        for number in (1, 2):
            child = Process("child", (sys.executable, "-c", "import time; time.sleep(600)"), env={{}},
                            log=Path({str(tmp_path / "log")!r}))
            child.start()
            print(child.pid, flush=True)
        print("done", flush=True)
        time.sleep(600)
    """
    command = (sys.executable, "-c", textwrap.dedent(parent))
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as started:
        assert started.stdout is not None
        children = [int(line) for line in iter(started.stdout.readline, "done\n")]
        # The launcher must have tied itself to its parent: it has when it became the program.
        await until(lambda: all("launch.py" not in " ".join(psutil.Process(pid).cmdline()) for pid in children))
        assert all(is_alive(pid) for pid in children)
        started.kill()
    await until(lambda: not any(is_alive(pid) for pid in children))


async def test_no_value_of_the_environment_is_in_the_arguments_or_the_repr(child: Child) -> None:
    process = child(SLEEP, env={"PASSWORD": "do-not-show"})
    assert process.pid is not None
    assert "do-not-show" not in json.dumps(psutil.Process(process.pid).cmdline())
    assert "do-not-show" not in repr(process)


async def test_a_program_run_to_its_end_fails_by_name(tmp_path: Path) -> None:
    log = tmp_path / "log"
    await run_to_end(Process("fine", python("pass"), env={}, log=log), within_s=5)
    with pytest.raises(ProcessFailed, match="broken ended with 3"):
        await run_to_end(Process("broken", python("raise SystemExit(3)"), env={}, log=log), within_s=5)
    slow = Process("slow", python(SLEEP), env={}, log=log)
    with pytest.raises(ProcessFailed, match=r"slow took longer than 0.1 s"):
        await run_to_end(slow, within_s=0.1)
    assert await slow.wait(5) == -signal.SIGKILL
