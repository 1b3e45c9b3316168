"""The notifier's HTTP interface: who may read it, how it shows where everybody stands, how lists go on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.notifier.api import MOST_AT_ONCE, Ports, routes
from services.notifier.domain.convergence import Bounds, Dropped, Member, MemberKind, Published
from services.notifier.domain.receipts import Heard
from services.notifier.domain.times import LATEST
from services.notifier.handlers import Quiet
from services.notifier.inquiries import Inquiries
from services.notifier.pulse import Pulse
from shared.events.alerts import Alert, Severity
from shared.events.notices import Notice, NoticeKind
from shared.events.receipts import GatewayReceipt, ResolverReceipt
from tests.fakes.enrolled import T0, Enrolled
from tests.fakes.notes import FakeNotes
from tests.fakes.readers import GROUPS, Reader, guard

BOUNDS = Bounds(gateway=timedelta(seconds=60), resolver=timedelta(seconds=15))
PATHS = ["/v1/notices", "/v1/notices/notice/1", "/v1/convergence?event_id=change/1", "/v1/alerts", "/v1/instances"]
GATEWAYS = tuple(Member(kind=MemberKind.GATEWAY, id=f"instance/{n}", name=f"gateway-{n}") for n in range(1, 5))
RESOLVER = Member(kind=MemberKind.RESOLVER, id="resolver-1", run="run/r1", name="resolver-1")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@dataclass
class Office:
    """The interface on fakes; `now` is the clock."""

    notes: FakeNotes = field(default_factory=FakeNotes)
    heard: Heard = field(default_factory=Heard)
    policy: Enrolled = field(default_factory=Enrolled)
    quiet: Quiet = field(default_factory=Quiet)
    now: datetime = T0

    def __post_init__(self) -> None:
        self.heard.complete_until = LATEST
        inquiries = Inquiries(self.notes.begin, self.heard, Pulse(), Pulse(), self.quiet, BOUNDS, lambda: self.now)
        ports = Ports(inquiries, self.notes.begin, self.heard, lambda: self.policy.snapshot)
        self.reader = Reader(routes(ports, guard()))

    def note(self, number: int, *members: Member) -> Published:
        said = Notice(
            id=f"notice/{number}", kind=NoticeKind.ROTATION, cause_id=f"change/{number}", catalog_seq=7, at=T0
        )
        made = Published(notice=said, offset=100 + number, at=T0, bounds_from=T0, members=members)
        self.notes.noted[said.id] = made
        return made

    def hear(self, member: Member, *, applied: int, dropped: int, leases: int = 0, run: str = "run/1") -> None:
        receipt = GatewayReceipt(
            instance_id=member.id,
            run=run,
            n=0,
            applied_offset=applied,
            dropped_offset=dropped,
            open_leases=leases,
            variables=(f"VARIABLE_OF_{run.rpartition('/')[2].upper()}",),
            at=self.now,
        )
        self.heard.gateway(receipt, self.now)

    def hear_resolver(self, **more: Any) -> None:
        fields = {"replica_id": "resolver-1", "run": "run/r1", "policy_seq": 1, "catalog_seq": 6, "fresh": True}
        self.heard.resolver(ResolverReceipt.model_validate(fields | more | {"at": self.now}), self.now)


@pytest.fixture
def office() -> Office:
    made = Office()
    made.note(1, GATEWAYS[0])
    return made


@pytest.mark.parametrize("path", [*PATHS, "/v1/resolvers"])
@pytest.mark.parametrize(("group", "status"), GROUPS.items())
async def test_roles_decide(office: Office, path: str, group: str, status: int) -> None:
    assert (await office.reader.reply(path, group=group)).status == status


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_here_changes_anything(office: Office, path: str, method: str) -> None:
    assert (await office.reader.reply(path, method=method)).status == 405


async def test_each_standing_is_shown_with_its_time(office: Office) -> None:
    office.note(2, *GATEWAYS, RESOLVER)
    office.hear(GATEWAYS[0], applied=102, dropped=102)
    office.hear(GATEWAYS[1], applied=102, dropped=101, leases=1)
    office.now = at(10)
    office.hear(GATEWAYS[2], applied=101, dropped=101, leases=1)
    office.hear_resolver()
    office.now = at(60)
    view = await office.reader.get("/v1/notices/notice/2")
    assert not view["converged"]
    assert view["converged_at"] is None
    found = {member["name"]: (member["state"], member["at"], member["until"]) for member in view["members"]}
    assert found == {
        "gateway-1": ("dropped", shown(at(0)), None),
        "gateway-2": ("expired", shown(at(60)), None),
        "gateway-3": ("pending", None, shown(at(70))),
        "gateway-4": ("expired", shown(at(60)), None),
        "resolver-1": ("expired", shown(at(25)), None),
    }
    assert {member["name"]: member["last_heard"] for member in view["members"]}["gateway-4"] is None


def shown(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def test_a_gateway_that_fenced_is_not_shown_as_done(office: Office) -> None:
    office.hear(GATEWAYS[0], applied=101, dropped=100, leases=1)
    view = await office.reader.get("/v1/convergence", event_id="change/1")
    assert [member["state"] for member in view["members"]] == ["fenced"]
    assert not view["converged"]


async def test_when_everybody_expired_or_dropped_the_last_one_is_when_it_converged(office: Office) -> None:
    office.note(2, GATEWAYS[0], GATEWAYS[1])
    office.now = at(5)
    office.hear(GATEWAYS[0], applied=102, dropped=102)
    office.now = at(61)
    view = await office.reader.get("/v1/notices/notice/2")
    assert view["converged"]
    assert view["converged_at"] == shown(at(60))


async def test_what_was_written_down_counts_before_what_is_in_memory(office: Office) -> None:
    office.notes.settled["notice/1"] = {GATEWAYS[0]: Dropped(at(3))}
    office.now = at(4)
    view = await office.reader.get("/v1/notices/notice/1")
    assert (view["converged"], view["converged_at"]) == (True, shown(at(3)))


async def test_a_notice_that_concerned_nobody_is_converged_without_a_time(office: Office) -> None:
    office.note(2)
    view = await office.reader.get("/v1/notices/notice/2")
    assert (view["converged"], view["converged_at"], view["members"]) == (True, None, [])


@pytest.mark.parametrize("name", ["notice/9", "change/9", "x"])
async def test_what_is_not_there_is_404(office: Office, name: str) -> None:
    reply = await office.reader.reply(f"/v1/notices/{name}")
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


async def test_of_an_event_that_called_for_nothing_the_answer_is_null(office: Office) -> None:
    office.quiet.add("change/8")
    assert await office.reader.get("/v1/convergence", event_id="change/8", wait_s=30) is None


@pytest.mark.parametrize(
    "target",
    [
        "/v1/convergence",
        "/v1/convergence?event_id=",
        "/v1/convergence?event_id=a%00b",
        "/v1/convergence?event_id=a%20b",
        "/v1/convergence?event_id=x&wait_s=30.1",
        "/v1/convergence?event_id=x&wait_s=inf",
        "/v1/convergence?event_id=x&wait_s=nan",
        f"/v1/notices?limit={MOST_AT_ONCE + 1}",
        "/v1/notices?limit=0",
        "/v1/notices?after=-1",
        f"/v1/alerts?after={2**63}",
        "/v1/notices/" + "x" * 201,
    ],
)
async def test_bad_input_is_400_and_not_quoted(office: Office, target: str) -> None:
    reply = await office.reader.reply(target)
    assert reply.status == 400
    assert json.loads(reply.body)["status"] == 400
    assert b"x" * 200 not in reply.body


async def test_the_list_counts_who_is_waited_for_and_goes_on(office: Office) -> None:
    office.note(2, *GATEWAYS)
    office.hear(GATEWAYS[0], applied=102, dropped=102)
    office.hear(GATEWAYS[1], applied=102, dropped=100, leases=1)
    first = await office.reader.get("/v1/notices", limit=1)
    (line,) = first["items"]
    assert (line["id"], line["members"], line["waiting"], line["converged"]) == ("notice/2", 4, 3, False)
    second = await office.reader.get("/v1/notices", limit=1, after=first["next"])
    assert [one["id"] for one in second["items"]] == ["notice/1"]
    assert (await office.reader.get("/v1/notices", limit=1, after=second["next"])) == {"items": [], "next": None}
    assert (await office.reader.get("/v1/notices"))["next"] is None


async def test_alerts_come_newest_first_and_go_on(office: Office) -> None:
    for number in range(3):
        alert = Alert(id=f"alert/{number}", kind="x", severity=Severity.INFO, summary="s", at=T0)
        await office.notes.keep_alerts([alert])
    first = await office.reader.get("/v1/alerts", limit=2)
    assert [one["id"] for one in first["items"]] == ["alert/2", "alert/1"]
    rest = await office.reader.get("/v1/alerts", limit=2, after=first["next"])
    assert ([one["id"] for one in rest["items"]], rest["next"]) == (["alert/0"], None)


async def test_instances_are_shown_with_what_they_said_last_banned_ones_at_the_end(office: Office) -> None:
    silent, banned, lively = (office.policy.enrol(name) for name in ("silent", "banned", "lively"))
    office.policy.ban(banned, name="banned")
    member = Member(kind=MemberKind.GATEWAY, id=lively.id)
    office.hear(member, applied=7, dropped=6, leases=2, run="run/old")
    office.now = at(1)
    office.hear(member, applied=9, dropped=9, run="run/new")
    items = (await office.reader.get("/v1/instances"))["items"]
    assert [(one["name"], one["active"]) for one in items] == [("lively", True), ("silent", True), ("banned", False)]
    assert (items[0]["run"], items[0]["applied_offset"], items[0]["open_leases"]) == ("run/new", 9, 0)
    assert items[0]["last_heard"] == shown(at(1))
    assert [one["variables"] for one in items] == [["VARIABLE_OF_NEW"], [], []]
    assert items[1]["instance_id"] == silent.id
    assert items[1]["last_heard"] is items[1]["run"] is None


async def test_resolvers_are_shown_run_by_run(office: Office) -> None:
    office.hear_resolver(run="run/r2", stopping=True)
    office.now = at(-1)
    office.hear_resolver(fresh=False)
    items = (await office.reader.get("/v1/resolvers"))["items"]
    assert [(one["run"], one["fresh"], one["stopping"]) for one in items] == [
        ("run/r1", False, False),
        ("run/r2", True, True),
    ]
