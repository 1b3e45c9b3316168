"""For any interleaving of holding, notices, ticks, receipts, stops, crashes and restarts: never converged while a
gateway may still use the value. The model is a gateway as it is built: one process at a time, everything from one
topic in order, fenced by itself when its ticks are old. Time is simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.notifier.domain.convergence import (
    Bounds,
    Member,
    MemberKind,
    Published,
    convergence,
)
from services.notifier.domain.receipts import Heard
from shared.events.notices import Notice, NoticeKind
from shared.events.receipts import GatewayReceipt
from tests.thoroughness import examples

T0 = datetime(2026, 11, 23, tzinfo=UTC)
BOUND = 60
BOUNDS = Bounds(gateway=timedelta(seconds=BOUND), resolver=timedelta(seconds=15))
MEMBER = Member(kind=MemberKind.GATEWAY, id="instance/1", name="gateway-1")


@dataclass
class Gateway:
    """One instance: reads the topic in order, holds at most one lease of the old value."""

    topic: list[tuple[str, int]]
    run: int = 0
    n: int = 0
    position: int = 0
    running: bool = True
    holds: bool = False
    fenced: bool = False
    pending_offset: int | None = None
    drains_until: int = 0
    last_tick_at: int = 0
    sent: list[GatewayReceipt] = field(default_factory=list)

    def may_use(self, now: int) -> bool:
        """Calls that drain still use it, and a stopped process might be continued: only its own bound ends that.

        What a notice ended, it may use as long as the newest tick before that notice allows, and no later one.
        """
        until = self.drains_until if self.fenced else self.last_tick_at + BOUND
        return self.holds and now < until

    def acquire(self, now: int, notice_offset: int | None) -> None:
        """Resolve: the old value can only be had while this gateway has not seen the notice."""
        seen = notice_offset is not None and self.position > notice_offset
        if self.running and not seen and now - self.last_tick_at < BOUND:
            self.holds, self.fenced, self.pending_offset = True, False, None

    def read_one(self, now: int) -> None:
        if not self.running or self.position >= len(self.topic):
            return
        if now - self.last_tick_at >= BOUND:
            # Its bound passed, perhaps while it was stopped: a newer tick must not bring anything back.
            self.holds, self.fenced, self.pending_offset = False, False, None
        kind, at = self.topic[self.position]
        if kind == "tick":
            self.last_tick_at = max(self.last_tick_at, at)
        elif self.holds:
            self.fenced, self.pending_offset, self.drains_until = True, self.position, self.last_tick_at + BOUND
        self.position += 1

    def drop(self, now: int) -> None:
        if self.running and (self.fenced or now - self.last_tick_at >= BOUND):
            self.holds, self.fenced, self.pending_offset = False, False, None

    def receipt(self, now: int) -> GatewayReceipt | None:
        if not self.running:
            return None
        applied = self.position - 1
        dropped = applied if self.pending_offset is None else self.pending_offset - 1
        said = GatewayReceipt(
            instance_id=MEMBER.id,
            run=f"run/{self.run}",
            n=self.n,
            applied_offset=applied,
            dropped_offset=dropped,
            open_leases=int(self.holds),
            at=T0 + timedelta(seconds=now),
        )
        self.n += 1
        return said

    def restart(self, now: int) -> None:
        """The process dies, with everything that it held; the new one begins behind everything in the topic."""
        self.run += 1
        self.n, self.holds, self.fenced, self.pending_offset = 0, False, False, None
        self.position, self.running, self.last_tick_at = len(self.topic), True, now


ACTIONS = st.sampled_from(
    [
        "second",
        "almost",
        "minute",
        "tick",
        "read",
        "read",
        "acquire",
        "drop",
        "receipt",
        "lost receipt",
        "stop",
        "go",
        "restart",
    ]
)


@dataclass
class World:
    """A gateway, its topic, what the notifier heard of it, and the time in seconds."""

    now: int = 0
    topic: list[tuple[str, int]] = field(default_factory=lambda: [("tick", 0)])
    heard: Heard = field(default_factory=Heard)
    published: Published | None = None

    def __post_init__(self) -> None:
        self.gateway = Gateway(self.topic)

    def act(self, action: str) -> None:
        gateway = self.gateway
        steps: dict[str, Callable[[], object]] = {
            "second": lambda: self._pass(1),
            "almost": lambda: self._pass(BOUND - 1),
            "minute": lambda: self._pass(BOUND),
            "tick": lambda: self.topic.append(("tick", self.now)),
            "notice": self._publish,
            "read": lambda: gateway.read_one(self.now),
            "acquire": lambda: gateway.acquire(self.now, self.published.offset if self.published else None),
            "drop": lambda: gateway.drop(self.now),
            "receipt": self._hear,
            "lost receipt": lambda: gateway.receipt(self.now),
            "stop": lambda: setattr(gateway, "running", False),
            "go": lambda: setattr(gateway, "running", True),
            "restart": lambda: gateway.restart(self.now),
        }
        steps[action]()

    @property
    def converged(self) -> bool:
        return (
            self.published is not None
            and convergence(
                self.published, self.heard, {}, now=T0 + timedelta(seconds=self.now), bounds=BOUNDS
            ).converged
        )

    def _pass(self, seconds: int) -> None:
        self.now += seconds

    def _hear(self) -> None:
        said = self.gateway.receipt(self.now)
        if said is not None:
            self.heard.gateway(said, said.at)

    def _publish(self) -> None:
        self.topic.append(("notice", self.now))
        at = T0 + timedelta(seconds=self.now)
        notice = Notice(id="notice/1", kind=NoticeKind.ROTATION, cause_id="change/1", catalog_seq=7, at=at)
        offset = len(self.topic) - 1
        self.published = Published(notice=notice, offset=offset, at=at, bounds_from=at, members=(MEMBER,))


@settings(max_examples=examples(400), deadline=None)
@given(before=st.lists(ACTIONS, max_size=12), after=st.lists(ACTIONS, max_size=40))
@example(before=[], after=["second", "tick", "read", "read", "read", "almost"])  # a tick after the notice
def test_never_converged_while_the_gateway_may_use_the_value(before: list[str], after: list[str]) -> None:
    world = World()
    for action in ["acquire", *before, "notice", *after]:
        world.act(action)
        assert not (world.converged and world.gateway.may_use(world.now)), action


def test_the_model_converges_at_all() -> None:
    world = World()
    for action in ("acquire", "notice", "read", "read", "drop", "receipt"):
        assert not world.converged
        world.act(action)
    assert world.converged
