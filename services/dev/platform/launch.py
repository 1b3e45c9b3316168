"""Becomes one child of the platform: drops rights, ties itself to its parent's life, then executes the command.

Run as a file, by `python -I -S launch.py PARENT SIGNAL USER INHERITED COMMAND…`, so it sees neither the package
nor site-packages (20 ms). A launcher rather than `preexec_fn`: that one forks a threaded process and may deadlock.

PARENT     process id of whoever starts it
SIGNAL     number of the signal that the kernel sends when the *thread* that started it ends (prctl(2))
USER       system user to become, or "-"
INHERITED  "locale" when LC_CTYPE was given: otherwise Python itself has set it (PEP 538) and it is removed
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, signal: str, user: str, inherited: str, *command: str) -> None:
    """Execute the command, or leave with 127 and a line on stderr."""
    if inherited != "locale":
        os.environ.pop("LC_CTYPE", None)
    # Before the change of user: Python's own library may lie where the other user can't read.
    program = _found(command[0])
    if user != "-":
        _become(user)
    if sys.platform == "linux":
        # After the change of user, which clears it; execve keeps it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    # Only now: a parent that ended before prctl would never have the kernel signal its end.
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child could start")
    try:
        os.execv(program, command)  # noqa: S606 - starting a program without a shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


def _found(name: str) -> str:
    """The program's path, looked for on the child's own PATH unless a path was given."""
    if "/" in name:
        return name
    candidates = (f"{folder}/{name}" for folder in os.get_exec_path())
    return next((path for path in candidates if os.access(path, os.X_OK)), name)


def _become(user: str) -> None:
    entry = pwd.getpwnam(user)
    # Groups first, user last: without root's rights neither groups nor group can be changed.
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


if __name__ == "__main__":
    main(*sys.argv[1:])
