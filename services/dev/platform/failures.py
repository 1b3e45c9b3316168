"""What can go wrong on the embedded platform.

PlatformFailure          anything below; its text is safe to show (no values, no remote text)
├── ProcessFailed        a process died early or wasn't ready in time; names it and its log file
└── Unavailable          a part can't run on this machine (no Java, no wheel); says what is missing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class PlatformFailure(Exception):
    """A part of the embedded platform can't do its work."""


class ProcessFailed(PlatformFailure):
    """A child process died or wasn't ready within its time.

    The text names the process and its log; the log's content stays in the log.
    """

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"{name} {what}; its log is {log}")
        self.name = name
        self.log = log


class Unavailable(PlatformFailure):
    """Something that this machine doesn't have is needed; the text says what and how to get it."""
