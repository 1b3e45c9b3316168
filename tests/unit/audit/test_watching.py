"""A record that an instance was told of is called lost when it can't come any more, and not a moment earlier."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from services.audit.domain.echoes import Echo
from services.audit.watching import AT_ONCE, EchoWatch, Mark
from shared.errors import Unavailable
from shared.events.access import AccessRecord
from tests.fakes.enrolled import read
from tests.fakes.journal import FakeJournal
from tests.unit.audit.accesses import AT, STREAM, access, digest
from tests.unit.audit.test_trails import trail
from tests.waiting import until


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def echo(record: AccessRecord, *, hash_: str = "") -> Echo:
    return Echo(stream=record.stream, n=record.n, hash=hash_ or digest(record), instance_id="instance/1", at=AT)


@dataclass
class Progress:
    """The port `AccessProgress`: the topic's ends, and how far it was recorded."""

    end: int = 0
    recorded: int = 0
    away: int = 0

    async def ends(self) -> Mapping[int, int]:
        if self.away:
            self.away -= 1
            raise Unavailable("the broker is away")
        return {0: self.end}

    async def reached(self, ends: Mapping[int, int]) -> bool:
        return self.recorded >= ends[0]


@dataclass
class Watch:
    """A watch on fakes; `now` is the clock."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    progress: Progress = field(default_factory=Progress)
    now: datetime = AT

    @property
    def watch(self) -> EchoWatch:
        return EchoWatch(self.journal.begin, self.progress, lambda: self.now, 0.0)

    def remember(self, *echoes: Echo) -> None:
        self.journal.echoes.update(dict.fromkeys(echoes, self.now))

    def reasons(self) -> list[str]:
        return [reason for reason in self.journal.reasons() if reason]


@pytest.fixture
def watch() -> Watch:
    return Watch()


async def test_the_first_look_only_takes_its_bearings(watch: Watch) -> None:
    watch.remember(echo(access(n=3)))
    watch.now, watch.progress.end = at(1), 17
    assert await watch.watch.look(None) == Mark(at(1), {0: 17})
    assert watch.reasons() == []


async def test_nothing_is_lost_before_everything_up_to_the_mark_was_recorded(watch: Watch) -> None:
    watch.remember(echo(access(n=3)))
    mark = Mark(at(1), {0: 5})
    watch.progress.recorded = 4
    assert await watch.watch.look(mark) is mark
    assert watch.reasons() == []
    watch.progress.recorded = 5
    assert await watch.watch.look(mark) is not mark
    assert watch.reasons() == ["stream-tail-lost"]
    assert watch.journal.echoes == {}, "it is told once"


async def test_a_record_that_came_meanwhile_was_only_late(watch: Watch) -> None:
    late = access(n=0)
    watch.remember(echo(late))
    await trail(watch.journal).on_access((read(late, key=STREAM),))
    await watch.watch.look(Mark(at(1), {0: 0}))
    assert (watch.reasons(), watch.journal.echoes) == ([], {})


async def test_one_that_came_with_other_content_is_a_contradiction(watch: Watch) -> None:
    record = access(n=0)
    watch.remember(echo(record, hash_="0" * 64))
    await trail(watch.journal).on_access((read(record, key=STREAM),))
    await watch.watch.look(Mark(at(1), {0: 0}))
    assert watch.reasons() == ["stream-contradicted"]


async def test_what_was_remembered_after_the_mark_waits_for_the_next(watch: Watch) -> None:
    """Its record may stand behind the ends that the mark asked for."""
    watch.now = at(2)
    watch.remember(echo(access(n=3)))
    following = await watch.watch.look(Mark(at(1), {0: 0}))
    assert (watch.reasons(), len(watch.journal.echoes)) == ([], 1)
    watch.now = at(3)
    await watch.watch.look(Mark(at(2.5), following.ends))
    assert watch.reasons() == ["stream-tail-lost"]


async def test_the_time_of_a_mark_is_taken_before_its_ends(watch: Watch) -> None:
    """The other way round, what was echoed in between would be judged by ends that don't hold its record yet."""
    seen: list[str] = []

    def clock() -> datetime:
        seen.append("time")
        return AT

    class Asked(Progress):
        async def ends(self) -> Mapping[int, int]:
            seen.append("ends")
            return {0: 0}

    await EchoWatch(watch.journal.begin, Asked(), clock, 0.0).look(None)
    assert seen == ["time", "ends"]


async def test_the_next_mark_is_made_before_anything_is_settled(watch: Watch) -> None:
    watch.remember(echo(access(n=3)))
    watch.progress.away = 1
    with pytest.raises(Unavailable):
        await watch.watch.look(Mark(at(1), {0: 0}))
    assert len(watch.journal.echoes) == 1, "nothing was done by halves"


async def test_however_many_there_are_all_are_settled_in_portions(watch: Watch) -> None:
    watch.remember(*(echo(access(n=n), hash_=f"{n:064x}") for n in range(AT_ONCE + 5)))
    await watch.watch.look(Mark(at(1), {0: 0}))
    assert watch.journal.echoes == {}
    assert len(watch.reasons()) == AT_ONCE + 5
    assert watch.journal.transactions == 2


async def test_the_same_loss_is_on_record_once_whoever_finds_it(watch: Watch) -> None:
    for _ in range(2):
        watch.remember(echo(access(n=3)))
        await watch.watch.look(Mark(at(1), {0: 0}))
    assert watch.reasons() == ["stream-tail-lost"]


async def test_an_outage_is_waited_out_and_looked_at_again(watch: Watch) -> None:
    watch.progress.away = 3
    watch.remember(echo(access(n=3)))
    watch.now = at(1)
    loop = asyncio.create_task(watch.watch.run())
    try:
        await until(watch.reasons)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_an_error_of_another_kind_ends_the_loop(watch: Watch) -> None:
    watch.progress = None  # type: ignore[assignment] - something that is simply wrong
    with pytest.raises(AttributeError):
        await watch.watch.run()
