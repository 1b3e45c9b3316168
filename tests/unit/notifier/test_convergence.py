"""Where members stand, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.notifier.domain.convergence import (
    Bounds,
    Dropped,
    Expired,
    Fenced,
    GatewayProgress,
    Member,
    MemberKind,
    Pending,
    Published,
    Settled,
    Standing,
    certainly_published,
    convergence,
    gateway_progress,
    next_bound,
)
from services.notifier.domain.expectations import Departure, expected_members, is_gone
from services.notifier.domain.receipts import Heard
from shared.events.notices import Notice, NoticeKind
from shared.events.receipts import GatewayReceipt, ResolverReceipt
from shared.projection.instances import KnownInstance

T0 = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
BOUNDS = Bounds(gateway=timedelta(seconds=60), resolver=timedelta(seconds=15))
OFFSET = 100
GATEWAY = Member(kind=MemberKind.GATEWAY, id="instance/1", name="gateway-1")
LOCAL_VALUE = {"policy_seq": None, "catalog_seq": None, "custody_seq": 7}
RESOLVER = Member(kind=MemberKind.RESOLVER, id="resolver-1", run="run/r1", name="resolver-1")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def published(*members: Member, policy_seq: int | None = None, catalog_seq: int | None = 7) -> Published:
    notice = Notice(
        id="notice/1",
        kind=NoticeKind.ROTATION,
        cause_id="change/1",
        policy_seq=policy_seq,
        catalog_seq=catalog_seq,
        at=T0,
    )
    return Published(notice=notice, offset=OFFSET, at=T0, bounds_from=T0, members=members)


def gateway(
    heard: Heard, seconds: float, *, applied: int, dropped: int, leases: int = 0, run: str = "run/1", n: int = 0
) -> None:
    receipt = GatewayReceipt(
        instance_id=GATEWAY.id,
        run=run,
        n=n,
        applied_offset=applied,
        dropped_offset=dropped,
        open_leases=leases,
        at=at(seconds),
    )
    heard.gateway(receipt, at(seconds))


def resolver(heard: Heard, seconds: float, **more: object) -> None:
    fields = {"replica_id": "resolver-1", "run": "run/r1", "policy_seq": 5, "catalog_seq": 6, "fresh": True}
    heard.resolver(ResolverReceipt.model_validate(fields | more | {"at": at(seconds)}), at(seconds))


def standing(heard: Heard, now: float, member: Member = GATEWAY, settled: Settled | None = None) -> Standing:
    state = convergence(published(member), heard, settled or {}, now=at(now), bounds=BOUNDS)
    (only,) = state.members
    assert state.converged == isinstance(only.standing, Dropped | Expired)
    return only.standing


def test_a_resolver_has_no_commit_to_apply_for_a_local_value_but_must_have_been_heard() -> None:
    told = replace(published(RESOLVER), notice=published().notice.model_copy(update=LOCAL_VALUE))
    silent = convergence(told, Heard(), {}, now=at(2), bounds=BOUNDS)
    assert [one.standing for one in silent.members] == [Pending(at(15))]
    heard = Heard()
    resolver(heard, 1)
    assert [one.standing for one in convergence(told, heard, {}, now=at(2), bounds=BOUNDS).members] == [Dropped(at(1))]


def test_a_gateway_that_was_never_heard_is_pending_until_its_bound_and_then_expired() -> None:
    assert standing(Heard(), 0) == Pending(at(60))
    assert standing(Heard(), 59.999) == Pending(at(60))
    assert standing(Heard(), 60) == Expired(at(60))


def test_a_gateway_that_applied_but_still_drains_is_fenced_not_done() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET - 1, leases=1)
    assert standing(heard, 2) == Fenced(at(61))


def test_a_gateway_that_dropped_is_done_and_stays_so() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET)
    assert standing(heard, 2) == Dropped(at(1))


def test_a_gateway_that_says_that_it_holds_leases_does_not_expire_while_it_says_so() -> None:
    heard = Heard()
    for n in range(100):
        gateway(heard, n, applied=OFFSET - 1, dropped=OFFSET - 1, leases=2, n=n)
    assert standing(heard, 99.5) == Pending(at(99 + 60))


def test_a_fenced_gateway_that_can_not_stop_its_child_never_converges() -> None:
    heard = Heard()
    for n in range(500):
        gateway(heard, n, applied=OFFSET, dropped=OFFSET - 1, leases=1, n=n)
    assert isinstance(standing(heard, 499.5), Fenced)


def test_a_stopped_gateway_is_pending_until_its_bound() -> None:
    heard = Heard()
    gateway(heard, -1, applied=OFFSET - 1, dropped=OFFSET - 1, leases=3)
    assert standing(heard, 30) == Pending(at(60))
    assert standing(heard, 61) == Expired(at(60))


def test_a_restarted_gateway_holds_nothing_of_what_came_before() -> None:
    heard = Heard()
    gateway(heard, -1, applied=OFFSET - 1, dropped=OFFSET - 1, leases=3, run="run/1")
    gateway(heard, 5, applied=OFFSET, dropped=OFFSET, run="run/2")
    assert standing(heard, 6) == Dropped(at(5))


def test_two_processes_with_the_keys_of_one_instance_must_both_drop() -> None:
    heard = Heard()
    gateway(heard, -1, applied=OFFSET - 1, dropped=OFFSET - 1, leases=3, run="run/1", n=0)
    gateway(heard, 5, applied=OFFSET, dropped=OFFSET, run="run/2")
    gateway(heard, 6, applied=OFFSET - 1, dropped=OFFSET - 1, leases=3, run="run/1", n=1)
    assert isinstance(standing(heard, 7), Pending)
    gateway(heard, 8, applied=OFFSET, dropped=OFFSET, run="run/1", n=2)
    assert isinstance(standing(heard, 9), Dropped)


def test_a_receipt_that_was_overtaken_takes_nothing_back() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET, n=7)
    gateway(heard, 2, applied=OFFSET - 5, dropped=OFFSET - 5, leases=4, n=6)
    assert standing(heard, 3) == Dropped(at(1))


def test_what_a_gateway_dropped_of_a_topic_that_was_made_anew_since_proves_nothing() -> None:
    heard = Heard()
    gateway(heard, -2, applied=5000, dropped=5000, n=6)
    gateway(heard, -1, applied=OFFSET - 1, dropped=OFFSET - 1, leases=1, n=7)
    assert standing(heard, 0) == Pending(at(60))
    assert gateway_progress(heard, bounds=BOUNDS) == [GatewayProgress(GATEWAY.id, OFFSET - 1, at(-1))]
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET - 1, leases=1, n=8)
    assert standing(heard, 2) == Fenced(at(61))


def test_what_was_proved_once_stays_when_memory_is_lost() -> None:
    assert standing(Heard(), 3, settled={GATEWAY: Dropped(at(1))}) == Dropped(at(1))


def test_a_resolver_is_done_when_it_decides_on_state_that_holds_the_change() -> None:
    heard = Heard()
    resolver(heard, 1, catalog_seq=6)
    assert standing(heard, 2, RESOLVER) == Pending(at(16))
    resolver(heard, 3, catalog_seq=7)
    assert standing(heard, 4, RESOLVER) == Dropped(at(3))


def test_a_policy_notice_looks_at_the_sequence_of_policy() -> None:
    heard = Heard()
    resolver(heard, 1, policy_seq=5, catalog_seq=1000)
    state = convergence(published(RESOLVER, policy_seq=6, catalog_seq=None), heard, {}, now=at(2), bounds=BOUNDS)
    assert not state.converged


def test_a_silent_resolver_expires_by_its_own_bound() -> None:
    assert standing(Heard(), 14.9, RESOLVER) == Pending(at(15))
    assert standing(Heard(), 15, RESOLVER) == Expired(at(15))


def test_a_resolver_that_lags_and_calls_itself_fresh_does_not_expire() -> None:
    heard = Heard()
    resolver(heard, 14, catalog_seq=6, fresh=True)
    assert standing(heard, 16, RESOLVER) == Pending(at(29))


def test_a_resolver_that_said_goodbye_is_done() -> None:
    heard = Heard()
    resolver(heard, 1, stopping=True)
    assert standing(heard, 2, RESOLVER) == Dropped(at(1))


def test_another_run_of_the_same_replica_proves_nothing_about_this_one() -> None:
    heard = Heard()
    resolver(heard, -1)
    resolver(heard, 1, run="run/r2", catalog_seq=99)
    assert standing(heard, 2, RESOLVER) == Pending(at(15))


def test_all_must_be_done() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET)
    state = convergence(published(GATEWAY, RESOLVER), heard, {}, now=at(2), bounds=BOUNDS)
    assert not state.converged
    assert next_bound(state) == at(15)
    assert gateway_progress(heard, bounds=BOUNDS) == [GatewayProgress(GATEWAY.id, OFFSET, at(1))]


def test_with_nobody_there_nobody_can_use_it() -> None:
    assert convergence(published(), Heard(), {}, now=T0, bounds=BOUNDS).converged


def instance(name: str, *, active: bool = True, since_seq: int = 5) -> KnownInstance:
    return KnownInstance(f"instance/{name}", name, active, since_seq)


def names(members: tuple[Member, ...]) -> list[str]:
    return [member.name for member in members]


def departure(*, policy_seq: int = 5, offset: int = OFFSET, seconds: float = 0) -> Departure:
    return Departure(instance_id=GATEWAY.id, policy_seq=policy_seq, offset=offset, at=at(seconds))


def test_expected_are_active_instances_and_those_that_are_not_gone_yet() -> None:
    known = [instance("active"), instance("banned-lately", active=False), instance("banned-long-ago", active=False)]
    members = expected_members(known, (), gone={"instance/banned-long-ago"}, at=T0, bounds=BOUNDS)
    assert names(members) == ["active", "banned-lately"]


def test_expected_are_resolvers_heard_within_their_bound_that_did_not_say_goodbye() -> None:
    heard = Heard()
    resolver(heard, -1, replica_id="lively")
    resolver(heard, -14, replica_id="slow")
    resolver(heard, -15, replica_id="lost")
    resolver(heard, -1, replica_id="leaving", stopping=True)
    members = expected_members((), heard.resolvers(), gone=(), at=T0, bounds=BOUNDS)
    assert names(members) == ["lively", "slow"]


def is_gone_at(seconds: float, told: Departure | None, heard: Heard, *, since_seq: int = 5) -> bool:
    banned = instance("1", active=False, since_seq=since_seq)
    return is_gone(banned, told, heard.gateway_runs(GATEWAY.id), at=at(seconds), bounds=BOUNDS)


def test_a_banned_instance_is_waited_for_until_it_dropped_or_its_bound_passed() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET - 1, leases=1, n=0)
    assert not is_gone_at(59, departure(), heard)
    assert is_gone_at(61, departure(), heard)
    gateway(heard, 2, applied=OFFSET, dropped=OFFSET, n=1)
    assert is_gone_at(3, departure(), heard)


def test_a_removed_instance_that_shows_that_it_is_alive_is_waited_for_as_long_as_it_does() -> None:
    heard = Heard()
    for n in range(100):
        gateway(heard, n, applied=OFFSET, dropped=OFFSET - 1, leases=1, n=n)
    assert not is_gone_at(99 + 59, departure(), heard)
    assert is_gone_at(99 + 60, departure(), heard)


def test_a_removed_instance_that_holds_leases_and_has_not_read_of_its_end_is_waited_for() -> None:
    heard = Heard()
    gateway(heard, 50, applied=OFFSET - 1, dropped=OFFSET - 1, leases=1)
    assert not is_gone_at(50 + 59, departure(), heard)
    assert is_gone_at(50 + 60, departure(), heard)


def test_an_instance_whose_ban_was_not_told_yet_is_waited_for() -> None:
    heard = Heard()
    gateway(heard, 1, applied=OFFSET, dropped=OFFSET)
    assert not is_gone_at(1000, None, heard)


def test_an_earlier_ban_says_nothing_about_a_later_one() -> None:
    assert not is_gone_at(1000, departure(policy_seq=5), Heard(), since_seq=6)


def test_a_message_was_published_when_it_was_read_or_when_its_producer_must_have_given_up() -> None:
    assert certainly_published(given_at=at(0), read_at=at(0.004)) == at(0.004)
    assert certainly_published(given_at=at(0), read_at=at(3600)) == at(20)
    assert certainly_published(given_at=at(0.5), read_at=at(0)) == at(0.5)
