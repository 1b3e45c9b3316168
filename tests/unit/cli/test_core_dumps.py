"""Whatever `keyfob` runs, its memory goes into no core file: each process that holds a secret begins here."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Root owns the entries of a process that can't be dumped (proc_pid(5)), which shows only on somebody else's process.
_STARTED = """
import ctypes, os, sys
from pathlib import Path
import services.__main__ as program

def state():
    own = Path("/proc", str(os.getpid()))
    core = next(line for line in (own / "limits").read_text().splitlines() if line.startswith("Max core file size"))
    return (own / "environ").stat().st_uid == os.geteuid(), core.split()[4:6]

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which the change of user took away
before, _ = state()
program.app = lambda *_, **__: print(before, *state())
program.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_core_dumps_are_off_before_any_command_runs() -> None:
    ran = subprocess.run([sys.executable, "-c", _STARTED], check=False, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True False ['0', '0']\n", ran.stderr
