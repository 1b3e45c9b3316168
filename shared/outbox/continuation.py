"""Where a relay goes on, or why it must not.

    topic is at what we published, or ahead by commits that still wait here   continue behind the topic's newest
    topic holds a commit that this database never issued                      Rewound: the database was restored to
                                                                              an earlier moment
    topic holds that number, but of another commit                            Rewound, and went on since
    topic is behind what we published                                         the topic lost commits
    topic is a log that keeps nothing for so long                             continue behind what we published

When the database was rewound or the topic lost commits, publishing would hide revocations or bring old grants back, so
the relay refuses and a person decides from which side to rebuild.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from shared.outbox.tail import Tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the database knows: the newest commit, and the newest known to be in the topic."""

    issued_seq: int
    published_seq: int


@dataclass(frozen=True, slots=True)
class Continue:
    """Publish everything after this commit."""

    published_seq: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Publish nothing."""

    reason: str


def judge(tail: Tail, counters: Counters, waiting_id: uuid.UUID | None) -> Continue | Refuse:
    """Compare the topic's tail with the database; `waiting_id` is the outbox's commit of the tail's number."""
    if tail.expired:
        return Continue(counters.published_seq)
    if tail.seq > counters.issued_seq:
        return Refuse(
            f"rewound: the topic holds commit {tail.seq}, this database issued {counters.issued_seq}; "
            "it was restored to an earlier moment, rebuild one from the other"
        )
    # Ahead of what was noted is what a crash leaves, if it is this very commit and not another of its number.
    if tail.seq > counters.published_seq and waiting_id != tail.commit_id:
        return Refuse(
            f"rewound: commit {tail.seq} in the topic is not the one in this database; "
            "it was restored to an earlier moment and went on, rebuild one from the other"
        )
    if tail.seq < counters.published_seq:
        return Refuse(
            f"behind: the topic ends with commit {tail.seq}, but {counters.published_seq} was published; "
            "the topic lost commits, rebuild it from the database"
        )
    return Continue(tail.seq)
