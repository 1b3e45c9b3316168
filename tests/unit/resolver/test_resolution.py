"""The races of a resolve, each with the interleaving held by hand, and every way in which it fails safely."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.dev.platform import DevIssuer
from services.resolver.sources.port import ReadDenied, SourceSealed, SourceUnreachable, ValueMissing
from shared.events.access import Phase
from shared.events.catalog import ReferenceState
from shared.events.definitions import definition_digest
from shared.events.policy import InstanceState
from tests.fakes.asgi import Reply
from tests.fakes.clock import FakeClock
from tests.fakes.estate import hospitals, patients_db
from tests.fakes.gateway import values
from tests.fakes.resolving import Bench, Pending
from tests.fakes.resolving import bench as wired
from tests.waiting import until

A, R, X, REFUSED = Phase.AUTHORISED, Phase.RELEASED, Phase.ABANDONED, Phase.REFUSED


async def begun(bench: Bench, count: int = 1) -> list[Pending]:
    """The reads that wait for the test."""
    await until(lambda: len(bench.vault.pending) >= count)
    return bench.vault.pending


def asking(bench: Bench, token: str | None = None, **wish: Any) -> asyncio.Task[Reply]:
    return asyncio.create_task(bench.gateway.ask(token or bench.token(), **wish))


def kind(reply: Reply) -> str:
    return reply.body.decode().partition("/problems/")[2].partition('"')[0]


async def test_a_granted_value_comes_sealed_with_its_lease_and_both_records(bench: Bench) -> None:
    answer = await bench.gateway.resolve(bench.token(subject="ana"))
    assert values(answer) == {"DB_URL": b"HOSPITAL-A"}
    lease = answer.fields[0].lease
    assert set(lease.rests_on) == {
        "idp/okta",
        "mapping/hospital-a-staff-hospital-a",
        "profile/hospital-a",
        "server/patients-db",
        "instance/gateway-1",
        "binding/hospital-a-patients-db-DB_URL",
        "grant/hospital-a-hospital-a/db-dsn",
        "reference/hospital-a/db-dsn",
        "source/vault",
    }
    assert (lease.version, lease.reference_id) == ("1", "reference/hospital-a/db-dsn")
    assert bench.log.phases() == [A, R]
    authorised, released = bench.log.entries
    assert authorised.resolution_id == released.resolution_id
    assert (authorised.items[0].version, released.items[0].version) == (None, "1")
    assert authorised.items[0].lease_id == lease.id
    assert answer.record.n == 0


async def test_values_are_wiped_once_the_answer_is_sealed(bench: Bench) -> None:
    await bench.gateway.resolve(bench.token())
    assert [read.secret.wiped for read in bench.vault.handed_out] == [True]


async def test_nothing_is_answered_before_the_record_is_durable(bench: Bench) -> None:
    durable = bench.log.hold()
    asked = asking(bench)
    await until(lambda: bench.vault.handed_out)
    await asyncio.sleep(0)
    assert not asked.done()
    durable.set()
    assert (await asked).status == 200


async def test_the_value_is_read_while_the_record_travels(bench: Bench) -> None:
    durable = bench.log.hold()
    asked = asking(bench)
    await until(lambda: bench.vault.handed_out, what="the read began before the record was durable")
    durable.set()
    await asked


async def test_no_record_no_value(bench: Bench) -> None:
    bench.log.down = True
    reply = await bench.gateway.ask(bench.token())
    assert (reply.status, kind(reply)) == (503, "record-failed")
    assert b"HOSPITAL-A" not in reply.body
    assert all(read.secret.wiped for read in bench.vault.handed_out)
    assert bench.reasons() == [(A, ""), (X, "record-failed")]


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        ("grant/hospital-a-hospital-a/db-dsn", 404),
        ("binding/hospital-a-patients-db-DB_URL", 404),
        ("mapping/hospital-a-staff-hospital-a", 404),
        ("profile/hospital-a", 404),
        ("server/patients-db", 404),
        ("reference/hospital-a/db-dsn", 404),
        ("source/vault", 404),
        ("idp/okta", 401),
        ("instance/gateway-1", 401),
    ],
)
async def test_a_revocation_between_decision_and_seal_releases_nothing(bench: Bench, ended: str, status: int) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.end(ended)
    bench.learn()
    value = read.answer("HOSPITAL-A", "1")
    reply = await asked
    assert reply.status == status
    assert value.secret.wiped
    assert bench.log.phases() == [A, X]


async def test_an_instance_banned_meanwhile_gets_nothing(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.again("instance/gateway-1", state=InstanceState.BANNED)
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 401


async def test_an_instance_with_other_keys_meanwhile_must_ask_again(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.instance("gateway-1")
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    reply = await asked
    assert (reply.status, bench.reasons()[-1]) == (503, (X, "changed-meanwhile"))


async def test_a_definition_changed_meanwhile_suspends_the_binding(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    other = patients_db("DB_URL", "MORE")
    bench.estate.again("server/patients-db", definition=other, digest=definition_digest(other))
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 404
    assert bench.reasons()[-1] == (X, "definition-changed")


async def test_a_reference_that_points_elsewhere_meanwhile_is_not_answered_from_the_old_place(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.again("reference/hospital-a/db-dsn", path="moved")
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 503
    assert bench.reasons()[-1] == (X, "changed-meanwhile")


async def test_a_grant_replaced_by_another_meanwhile_is_not_the_same_case(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.end("grant/hospital-a-hospital-a/db-dsn")
    bench.estate.grant("hospital-a", "hospital-a/db-dsn", id_="grant/another")
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 503


async def test_a_change_that_touches_nothing_of_it_does_not_disturb(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.estate.end("grant/hospital-b-hospital-b/db-dsn")
    bench.estate.tick()
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 200


async def test_the_answer_names_the_state_that_it_was_last_decided_on(bench: Bench) -> None:
    bench.vault.by_hand = True
    question = bench.gateway.question(bench.token())
    asked = asyncio.create_task(bench.gateway.send(question))
    (read,) = await begun(bench)
    bench.estate.tick()
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    answer = bench.gateway.opened(question, (await asked).body)
    assert answer.floor.policy == bench.estate.seqs["keyfob.policy.v1"]


async def test_a_grant_that_was_shortened_meanwhile_shortens_the_lease(bench: Bench) -> None:
    bench.vault.by_hand = True
    question = bench.gateway.question(bench.token())
    asked = asyncio.create_task(bench.gateway.send(question))
    (read,) = await begun(bench)
    soon = datetime.now(UTC) + timedelta(seconds=60)
    bench.estate.again("grant/hospital-a-hospital-a/db-dsn", ends_at=soon)
    bench.learn()
    read.answer("HOSPITAL-A", "1")
    answer = bench.gateway.opened(question, (await asked).body)
    assert answer.fields[0].lease.expires_at == pytest.approx(soon.timestamp())
    assert bench.log.entries[-1].items[0].expires_at == pytest.approx(soon.timestamp())


async def test_a_version_that_was_superseded_while_it_was_read_is_read_again(bench: Bench) -> None:
    bench.vault.by_hand = True
    question = bench.gateway.question(bench.token())
    asked = asyncio.create_task(bench.gateway.send(question))
    (first,) = await begun(bench)
    bench.estate.again("reference/hospital-a/db-dsn", version="2")
    bench.learn()
    old = first.answer("OLD", "1")
    _, second = await begun(bench, 2)
    second.answer("NEW", "2")
    answer = bench.gateway.opened(question, (await asked).body)
    assert values(answer) == {"DB_URL": b"NEW"}
    assert answer.fields[0].lease.version == "2"
    assert old.secret.wiped


async def test_a_source_that_keeps_giving_a_superseded_version_is_not_believed(bench: Bench) -> None:
    bench.estate.again("reference/hospital-a/db-dsn", version="2")
    bench.learn()
    reply = await bench.gateway.ask(bench.token())
    assert (reply.status, kind(reply)) == (503, "source-unavailable")
    assert bench.reasons() == [(A, ""), (X, "source-behind")]
    assert len(bench.vault.handed_out) == 2
    assert all(read.secret.wiped for read in bench.vault.handed_out)


async def test_a_version_that_the_catalog_has_not_heard_of_is_newer_and_good(bench: Bench) -> None:
    bench.vault.put("hospital-a/db-dsn", "NEWEST", "7")
    answer = await bench.gateway.resolve(bench.token())
    assert (values(answer), answer.fields[0].lease.version) == ({"DB_URL": b"NEWEST"}, "7")


async def test_a_revocation_while_it_is_read_again_still_counts(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (first,) = await begun(bench)
    bench.estate.again("reference/hospital-a/db-dsn", version="2")
    bench.learn()
    first.answer("OLD", "1")
    _, second = await begun(bench, 2)
    bench.estate.end("grant/hospital-a-hospital-a/db-dsn")
    bench.learn()
    second.answer("NEW", "2")
    assert (await asked).status == 404


async def test_a_joined_read_that_began_before_the_rotation_is_not_used(bench: Bench) -> None:
    bench.vault.by_hand = True
    early = asking(bench)
    await begun(bench)
    bench.estate.again("reference/hospital-a/db-dsn", version="2")
    bench.learn()
    late_question = bench.gateway.question(bench.token(), floor={"catalog": bench.estate.seqs["keyfob.catalog.v1"]})
    late = asyncio.create_task(bench.gateway.send(late_question))
    _, own = await begun(bench, 2)
    own.answer("NEW", "2")
    assert values(bench.gateway.opened(late_question, (await late).body)) == {"DB_URL": b"NEW"}
    bench.vault.pending[0].answer("OLD", "1")
    *_, third = await begun(bench, 3)
    third.answer("NEW", "2")
    assert (await early).status == 200


async def test_identical_reads_of_one_moment_are_joined_and_each_wipes_its_own(bench: Bench) -> None:
    bench.vault.by_hand = True
    questions = [bench.gateway.question(bench.token()) for _ in range(5)]
    asked = [asyncio.create_task(bench.gateway.send(question)) for question in questions]
    await until(lambda: len(bench.log.entries) == 5)
    (read,) = await begun(bench)
    read.answer("HOSPITAL-A", "1")
    replies = await asyncio.gather(*asked)
    assert len(bench.vault.pending) == 1
    for question, reply in zip(questions, replies, strict=True):
        assert values(bench.gateway.opened(question, reply.body)) == {"DB_URL": b"HOSPITAL-A"}


async def test_a_replica_behind_what_the_instance_has_seen_refuses(bench: Bench) -> None:
    bench.estate.end("grant/hospital-a-hospital-a/db-dsn")
    floor = {"policy": bench.estate.seqs["keyfob.policy.v1"]}
    reply = await bench.gateway.ask(bench.token(), floor=floor)
    assert (reply.status, kind(reply)) == (503, "not-fresh")
    assert bench.reasons() == [(REFUSED, "behind-floor")]
    assert not bench.vault.handed_out


async def test_a_replica_that_catches_up_within_the_wait_answers(bench: Bench) -> None:
    bench.estate.end("grant/hospital-a-hospital-a/db-dsn")
    floor = {"policy": bench.estate.seqs["keyfob.policy.v1"]}
    asked = asking(bench, floor=floor)
    await asyncio.sleep(0)
    bench.learn()
    reply = await asked
    assert (reply.status, kind(reply)) == (404, "not-available")


@pytest.mark.parametrize("why", ["policy-tick-old", "policy-digest", "catalog-behind", "policy-not-ready"])
async def test_a_stale_replica_refuses_and_reads_nothing(bench: Bench, why: str) -> None:
    bench.knowledge.staleness = why
    reply = await bench.gateway.ask(bench.token())
    assert (reply.status, kind(reply)) == (503, "not-fresh")
    assert bench.reasons() == [(REFUSED, why)]
    assert not bench.vault.handed_out


async def test_a_replica_that_goes_stale_while_it_reads_seals_nothing(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    (read,) = await begun(bench)
    bench.knowledge.staleness = "policy-tick-old"
    value = read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 503
    assert value.secret.wiped
    assert bench.reasons()[-1] == (X, "policy-tick-old")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ValueMissing(), "source-missing"),
        (ReadDenied(), "source-denied"),
        (SourceUnreachable(), "source-unreachable"),
        (SourceSealed(), "source-sealed"),
    ],
)
async def test_a_source_that_fails_is_a_clear_refusal(bench: Bench, failure: Exception, reason: str) -> None:
    bench.vault.failure = failure  # type: ignore[assignment]
    reply = await bench.gateway.ask(bench.token())
    assert (reply.status, kind(reply)) == (503, "source-unavailable")
    assert bench.reasons() == [(A, ""), (X, reason)]


async def test_all_sources_failures_look_alike_to_the_caller(bench: Bench) -> None:
    bodies = set()
    for failure in (ValueMissing(), ReadDenied(), SourceUnreachable(), SourceSealed()):
        bench.vault.failure = failure
        bodies.add((await bench.gateway.ask(bench.token())).body)
    assert len(bodies) == 1


async def test_when_one_field_of_several_fails_the_others_are_wiped(issuer: DevIssuer) -> None:
    estate = hospitals()
    two = patients_db("DB_URL", "API_KEY")
    estate.server("two", two)
    for field in ("DB_URL", "API_KEY"):
        estate.reference(f"two/{field}")
        estate.grant("hospital-a", f"two/{field}")
        estate.binding("hospital-a", f"two/{field}", server="two", field=field)
    bench = wired(estate, issuer)
    bench.vault.put("two/DB_URL", "dsn")
    reply = await bench.gateway.ask(bench.token(), server="two")
    assert reply.status == 503
    assert [read.secret.wiped for read in bench.vault.handed_out] == [True]
    bench.vault.put("two/API_KEY", "key")
    answer = await bench.gateway.resolve(bench.token(), server="two")
    assert values(answer) == {"DB_URL": b"dsn", "API_KEY": b"key"}


async def test_foreign_and_absent_are_answered_byte_for_byte_alike_and_both_recorded(bench: Bench) -> None:
    token = bench.token()
    replies = [
        await bench.gateway.ask(token, choices={"DB_URL": "hospital-b/db-dsn"}),
        await bench.gateway.ask(token, choices={"DB_URL": "no-such/db-dsn"}),
        await bench.gateway.ask(token, context="hospital-b"),
        await bench.gateway.ask(token, context="no-such"),
        await bench.gateway.ask(token, server="no-such"),
        await bench.gateway.ask(bench.token("strangers")),
    ]
    assert len({(reply.status, reply.body, tuple(reply.headers.items())) for reply in replies}) == 1
    assert replies[0].status == 404
    assert [reason for _, reason in bench.reasons()] == [
        "not-granted",
        "reference-unknown",
        "context-not-yours",
        "context-not-yours",
        "server-unknown",
        "no-profile",
    ]
    assert not bench.vault.handed_out


async def test_whoever_works_for_both_must_say_for_which_and_gets_that(bench: Bench) -> None:
    token = bench.token("hospital-a-staff", "hospital-b-staff")
    reply = await bench.gateway.ask(token)
    assert reply.status == 409
    assert b'"choices":["hospital-a","hospital-b"]' in reply.body
    for name in ("hospital-a", "hospital-b"):
        answer = await bench.gateway.resolve(token, context=name)
        assert values(answer) == {"DB_URL": name.upper().encode()}


async def test_a_refusal_that_cannot_be_recorded_is_still_a_refusal(bench: Bench) -> None:
    bench.log.down = True
    begun_at = time.monotonic()
    assert (await bench.gateway.ask(bench.token(), context="hospital-b")).status == 404
    assert time.monotonic() - begun_at < 2


async def test_leases_outlive_neither_token_nor_grant(issuer: DevIssuer) -> None:
    clock = FakeClock(time.time())
    bench = wired(hospitals(), issuer, clock=clock)
    bench.vault.put("hospital-a/db-dsn", "x")
    usual = await bench.gateway.resolve(bench.token())
    assert usual.fields[0].lease.expires_at == pytest.approx(clock.now + 900)
    short = await bench.gateway.resolve(bench.token(ttl_s=120))
    assert short.fields[0].lease.expires_at == short.subject_expires_at < clock.now + 121
    soon = datetime.fromtimestamp(clock.now + 60, UTC)
    bench.estate.again("grant/hospital-a-hospital-a/db-dsn", ends_at=soon)
    bench.learn()
    ending = await bench.gateway.resolve(bench.token())
    assert ending.fields[0].lease.expires_at == pytest.approx(soon.timestamp())


async def test_a_token_within_the_leeway_behind_its_expiry_gets_no_value(issuer: DevIssuer) -> None:
    bench = wired(hospitals(), issuer)
    reply = await bench.gateway.ask(bench.token(ttl_s=-5))
    assert (reply.status, bench.reasons()) == (401, [(REFUSED, "token-invalid:expired")])


async def test_a_grant_that_ends_while_the_value_is_read_counts_as_ended(issuer: DevIssuer) -> None:
    clock = FakeClock(time.time())
    bench = wired(hospitals(), issuer, clock=clock)
    ends = datetime.fromtimestamp(clock.now + 30, UTC)
    bench.estate.again("grant/hospital-a-hospital-a/db-dsn", ends_at=ends)
    bench.learn()
    bench.vault.by_hand = True
    question = bench.gateway.question(bench.token())
    asked = asyncio.create_task(bench.gateway.send(question))
    (read,) = await begun(bench)
    clock.advance(30)
    read.answer("HOSPITAL-A", "1")
    assert (await asked).status == 404
    assert bench.reasons()[-1] == (X, "not-granted")


async def test_unreadable_references_are_refused_without_a_read(bench: Bench) -> None:
    bench.estate.again("reference/hospital-a/db-dsn", state=ReferenceState.REMOVED)
    bench.learn()
    assert (await bench.gateway.ask(bench.token())).status == 404
    assert not bench.vault.handed_out


async def test_an_interrupted_resolve_is_recorded_as_abandoned_and_wiped(bench: Bench) -> None:
    bench.vault.by_hand = True
    asked = asking(bench)
    await begun(bench)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert bench.reasons() == [(A, ""), (X, "interrupted")]


async def test_a_bug_is_an_error_without_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("HOSPITAL-A is the password")

    monkeypatch.setattr(type(bench.vault), "read", broken)
    reply = await bench.gateway.ask(bench.token())
    assert reply.status == 500
    assert b"HOSPITAL-A" not in reply.body
    assert bench.reasons()[-1] == (X, "interrupted")
