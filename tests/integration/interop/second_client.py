"""A gateway of somebody else's: written from `docs/protocol.md` alone, it shares no code with Keyfob.

Section numbers are those of that page. It enrols, resolves, obeys notices and ticks, and proves it by receipts; what it
holds are bytes in memory, and a "use" of them is a block of code. A test keeps it free of imports from the product.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tests.integration.interop.formats import Keys, NotGenuine, definition, request_hash, tick, unb64

NOTICES, RECEIPTS = "keyfob.notices.v1", "keyfob.receipts.v1"
FENCE_S, DRAIN_S, QUESTION_S, CALL_S = 60.0, 30.0, 6.0, 4.0


class Refused(Exception):
    """What a resolver, policy or this client itself says no with; `kind` is the end of a problem's type."""

    def __init__(self, status: int, kind: str) -> None:
        super().__init__(status, kind)
        self.status, self.kind = status, kind


@dataclass(eq=False)
class Lease:
    """One value and how long it may be used. `fenced_at` is the offset of the notice that ended it."""

    id: str
    reference_id: str
    version: str
    rests_on: frozenset[str]
    floor: tuple[int, int]
    expires_at: float = field(default=float("inf"))
    name: str = ""
    value: bytes | None = field(default=None, repr=False)
    expires_monotonic: float = field(default=float("inf"))
    fenced: str | None = None
    fenced_at: int | None = None
    uses: int = 0

    def ended_by(self, notice: dict[str, Any]) -> str | None:
        """Section 8: `drain`, `kill`, or None where it stays."""
        seqs = notice.get("policy_seq"), notice.get("catalog_seq")
        if seqs != (None, None) and self.floor[0] >= (seqs[0] or 0) and self.floor[1] >= (seqs[1] or 0):
            return None
        ended = notice.get("ended", [])
        hit = self.reference_id in ended or not self.rests_on.isdisjoint(ended)
        for old in notice.get("superseded", []):
            hit = hit or (old["reference_id"] == self.reference_id and old.get("current") != self.version)
        return ("drain" if notice["kind"] == "rotation" and not ended else "kill") if hit else None


@dataclass(eq=False)
class Out:
    """A resolve that is out, and what came meanwhile."""

    floor: tuple[int, int]
    notices: list[dict[str, Any]] = field(default_factory=list)
    first_offset: int | None = None
    lost: bool = False


@dataclass(eq=False)
class SecondClient:
    """One instance. `enrol`, `start`, `run` as a task, then `resolve` and `using`."""

    name: str
    keys: Keys = field(default_factory=Keys)
    enrolled: dict[str, Any] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    floor: tuple[int, int] = (0, 0)
    out: list[Out] = field(default_factory=list)
    applied: int = -1
    heard: tuple[int, float, float] | None = None
    caught_up_at: int = 0
    ended: list[dict[str, str]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    run_id: str = field(default_factory=lambda: f"run/{secrets.token_hex(16)}")
    n: int = 0
    due: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return str(self.enrolled["instance_id"])

    async def enrol(self, policy_url: str, token: str) -> None:
        body = self.keys.enrolment(token, self.name)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{policy_url}/v1/enrol", json=body, allow_redirects=False) as answer,
        ):
            said = await answer.json(content_type=None)
            if answer.status != 200:
                raise Refused(answer.status, str(said["type"]).rpartition("/")[2])
        self.enrolled = said

    # Sections 3, 8 and 9.

    async def start(self) -> None:
        broker, place = self.enrolled["bootstrap"]["broker"], TopicPartition(NOTICES, 0)
        committed = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "none"}
        self.producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all")
        self.consumer = AIOKafkaConsumer(bootstrap_servers=broker, **committed)
        await self.producer.start()
        await self.consumer.start()
        self.consumer.assign([place])
        end = (await self.consumer.end_offsets([place]))[place]
        begin = max((await self.consumer.beginning_offsets([place]))[place], end - 500)
        self.consumer.seek(place, begin)
        self.applied, self.caught_up_at = begin - 1, end - 1

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._tell())
                tasks.create_task(self._watch())
        finally:
            self.end_all("session")
            await self.say()
            await self.consumer.stop()
            await self.producer.stop()

    async def _read(self) -> None:
        place = TopicPartition(NOTICES, 0)
        while True:
            try:
                batch = await self.consumer.getmany(place, timeout_ms=200)
            except OffsetOutOfRangeError:
                self._lose()
                await self.consumer.seek_to_beginning(place)
                continue
            for message in batch.get(place, []):
                headers = {name: value.decode() for name, value in message.headers}
                self.take(message.offset, headers.get("ce_type"), message.value or b"")
            self.applied = max(self.applied, await self.consumer.position(place) - 1)

    def take(self, offset: int, type_: str | None, value: bytes) -> None:
        """One message of notices."""
        if type_ == "keyfob.notice.v1":
            try:
                self._apply(offset, json.loads(value))
            except (ValueError, KeyError, TypeError, AttributeError):
                self._lose(offset)
        elif type_ == "keyfob.notice.tick.v1":
            with suppress(NotGenuine):
                seq, signed_at = tick(value, unb64(self.enrolled["policy_key"]))
                # Before it is taken in: whoever slept through the bound held too long already.
                self.is_fenced()
                if self.heard is None or seq > self.heard[0]:
                    self.heard = (seq, time.monotonic(), signed_at)
        self.applied = max(self.applied, offset)

    def _apply(self, offset: int, notice: dict[str, Any]) -> None:
        seqs = notice.get("policy_seq") or 0, notice.get("catalog_seq") or 0
        self.floor = max(self.floor[0], seqs[0]), max(self.floor[1], seqs[1])
        for out in self.out:
            out.notices.append(notice)
            out.first_offset = offset if out.first_offset is None else out.first_offset
        for lease in list(self.leases.values()):
            if how := lease.ended_by(notice):
                self._fence(lease, how, "notice", offset)

    def _fence(self, lease: Lease, how: str, why: str, offset: int | None = None) -> None:
        lease.fenced_at = offset if lease.fenced_at is None else lease.fenced_at
        lease.fenced = lease.fenced or why
        self.due.set()
        if how == "kill" or not lease.uses:
            self._drop(lease)
        else:
            asyncio.get_running_loop().call_later(DRAIN_S, self._drop, lease)

    def _drop(self, lease: Lease) -> None:
        """The value is gone here, so it is gone: nothing else holds it."""
        if self.leases.pop(lease.id, None) is None:
            return
        lease.value = None
        at = datetime.now(UTC).isoformat()
        self.ended.append({"lease_id": lease.id, "why": lease.fenced or "session", "at": at})
        self.due.set()

    def _lose(self, offset: int | None = None) -> None:
        for out in self.out:
            out.lost = True
            out.first_offset = out.first_offset if out.first_offset is not None else offset or self.applied
        self.end_all("fenced", offset or self.applied)

    def end_all(self, why: str, offset: int | None = None) -> None:
        for lease in list(self.leases.values()):
            self._fence(lease, "kill", why, offset)

    def is_fenced(self) -> bool:
        """Section 9; drops everything where it is so."""
        since, signed = self.heard[1:] if self.heard else (float("-inf"), 0.0)
        if fenced := time.monotonic() - since > FENCE_S or time.time() - signed > FENCE_S:
            self.end_all("fenced")
        return fenced

    async def _watch(self) -> None:
        while True:
            self.is_fenced()
            for lease in list(self.leases.values()):
                if time.time() >= lease.expires_at or time.monotonic() >= lease.expires_monotonic:
                    self._fence(lease, "kill", "expired")
            await asyncio.sleep(0.25)

    # Sections 5 to 7.

    def ready(self) -> bool:
        return not self.is_fenced() and self.applied >= self.caught_up_at

    async def resolve(self, token: str, server: str, context: str | None = None) -> dict[str, Lease]:
        """Leases by field."""
        for _ in range(3):
            if not self.ready():
                raise Refused(503, "not-fresh")
            out = Out(self.floor)
            self.out.append(out)
            try:
                answer = await self._ask(token, server, context, out.floor)
                leases = self._leases(answer)
                if not self._crossed(out, leases):
                    self.leases |= {lease.id: lease for lease in leases}
                    self.released.append("{stream}/{n}/{hash}".format(**answer["record"]))
                    return {lease.name: lease for lease in leases}
            finally:
                self.out.remove(out)
                self.due.set()
        raise Refused(503, "changing")

    async def _ask(self, token: str, server: str, context: str | None, floor: tuple[int, int]) -> dict[str, Any]:
        wanted = {"server": server, "floor": {"policy": floor[0], "catalog": floor[1]}}
        body = json.dumps(wanted if context is None else wanted | {"context": context}).encode()
        until, pause, failure = time.monotonic() + QUESTION_S, 0.1, Refused(503, "no-answer")
        async with aiohttp.ClientSession() as http:
            while True:
                for url in self.enrolled["bootstrap"]["resolver"].split(","):
                    try:
                        return await self._call(http, url.rstrip("/"), token, body)
                    except Refused as refused:
                        if refused.status < 500 and refused.kind != "assertion-invalid":
                            raise
                        failure = refused
                    except (aiohttp.ClientError, TimeoutError, NotGenuine):
                        pass
                if time.monotonic() + pause > until:
                    raise failure
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _call(self, http: aiohttp.ClientSession, url: str, token: str, body: bytes) -> dict[str, Any]:
        assertion = self.keys.assertion(self.id, url, body, token, now=time.time())
        headers = {
            "Authorization": f"Bearer {token}",
            "Keyfob-Assertion": assertion,
            "Content-Type": "application/json",
        }
        limit = aiohttp.ClientTimeout(total=CALL_S)
        async with http.post(
            url + "/v1/resolve", data=body, headers=headers, timeout=limit, allow_redirects=False
        ) as got:
            said = await got.read()
        if got.status != 200:
            raise Refused(got.status, str(json.loads(said)["type"]).rpartition("/")[2])
        pinned = [unb64(key) for key in self.enrolled["resolver_keys"]]
        answer: dict[str, Any] = self.keys.open(said, self.id, pinned, request_hash(assertion, body))
        definition(answer, unb64(self.enrolled["policy_key"]))
        return answer

    def _leases(self, answer: dict[str, Any]) -> list[Lease]:
        floor = answer["floor"]["policy"], answer["floor"]["catalog"]
        leases = []
        for one in answer["fields"]:
            said = one["lease"]
            if "value" not in one:
                raise Refused(503, "variables-not-supported")
            lease = Lease(said["id"], said["reference_id"], said["version"], frozenset(said["rests_on"]), floor)
            lease.name, lease.value, lease.expires_at = one["name"], unb64(one["value"]), said["expires_at"]
            lease.expires_monotonic = time.monotonic() + said["expires_at"] - time.time()
            leases.append(lease)
        ids = {lease.id for lease in leases}
        if len(ids) < len(leases) or ids & self.leases.keys():
            raise NotGenuine("a lease id was used twice")
        return leases

    def _crossed(self, out: Out, leases: list[Lease]) -> bool:
        behind = any(one.floor[0] < out.floor[0] or one.floor[1] < out.floor[1] for one in leases)
        return behind or out.lost or any(one.ended_by(notice) for one in leases for notice in out.notices)

    @asynccontextmanager
    async def using(self, lease: Lease) -> AsyncIterator[bytes]:
        """Use a value; `Refused` where that is over."""
        if self.is_fenced() or lease.fenced or lease.value is None or time.time() >= lease.expires_at:
            raise Refused(503, "ended")
        lease.uses += 1
        try:
            yield lease.value
        finally:
            lease.uses -= 1
            if lease.fenced and not lease.uses:
                self._drop(lease)

    # Section 11.

    async def _tell(self) -> None:
        while True:
            # What was not acknowledged is said again by the next one.
            with suppress(KafkaError):
                await self.say()
            try:
                async with asyncio.timeout(1):
                    await self.due.wait()
            except TimeoutError:
                continue

    async def say(self) -> None:
        self.due.clear()
        waiting = [one.fenced_at for one in self.leases.values() if one.fenced_at is not None]
        waiting += [out.first_offset for out in self.out if out.first_offset is not None]
        ended, released, n = self.ended[:1000], self.released[:1000], self.n
        self.n += 1
        receipt = {
            "instance_id": self.id,
            "run": self.run_id,
            "n": n,
            "applied_offset": self.applied,
            "dropped_offset": min(waiting) - 1 if waiting else self.applied,
            "open_leases": len(self.leases),
            "ended": ended,
            "released": released,
            "at": datetime.now(UTC).isoformat(),
        }
        key, value, headers = self.keys.receipt(receipt)
        await self.producer.send_and_wait(RECEIPTS, value, key, headers=headers)
        del self.ended[: len(ended)], self.released[: len(released)]
