"""Refused enrolments are on record: a token that somebody else used before, or that is over, may have been stolen.

Each record is a commit, and whoever asks is nobody: so a replica makes few of them for each enrolment, and tokens that
nobody promised are for its log alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.policy.domain.enrolments import Enrolment
from services.policy.domain.kinds import ENROLMENT
from services.policy.domain.ports import Work
from shared.events.changes import PolicyAction

MOST: Final = 5
WINDOW_S: Final = 60.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RefusalAllowance:
    """How often one replica says that an enrolment was refused: `most` times in `window_s` seconds for each one.

    Tokens that nobody promised have an allowance together, so that they can't hide the use of a real one.
    """

    most: int = MOST
    window_s: float = WINDOW_S
    clock: Callable[[], float] = time.monotonic
    _said: dict[str, deque[float]] = field(default_factory=dict)

    def admits(self, enrolment: Enrolment | None) -> bool:
        """Whether to say it once more, which then counts. The log is told here."""
        who, now = "" if enrolment is None else enrolment.record.id, self.clock()
        # Kept only while they count: enrolments come and go.
        self._said = {name: said for name, said in self._said.items() if said[-1] > now - self.window_s}
        said = self._said.setdefault(who, deque())
        while said and said[0] <= now - self.window_s:
            said.popleft()
        if len(said) >= self.most:
            return False
        said.append(now)
        _log.warning("enrolment refused", enrolment=who or "unknown")
        return True


def tell_refusal(work: Work, enrolment: Enrolment) -> None:
    """Say that somebody came with the token of this enrolment and was not let in."""
    promised = enrolment.record
    work.announce(PolicyAction.REFUSED, kind=ENROLMENT, entity_id=promised.id, name=promised.name)
