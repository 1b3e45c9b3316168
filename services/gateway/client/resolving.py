"""Asking a resolver: the assertion, the call, several addresses, the sealed answer, the signed definition.

One question has one deadline, however many addresses and repetitions it takes. A refusal that would be the same
everywhere ends it; a resolver that can't answer now is passed over for the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from services.gateway.client.identity import Identity
from services.gateway.client.leases import Floor
from services.gateway.client.posting import Post, Posted, origin_of
from shared import topics
from shared.bus.cloudevents import Unreadable, parse
from shared.bus.signatures import record_verifies
from shared.delivery import assertion, envelope, messages
from shared.delivery.messages import ResolveAnswer, ResolveRequest
from shared.errors import BadRequest, SealInvalid, SignatureInvalid, Unavailable
from shared.events.definitions import definition_digest
from shared.events.policy import ServerRecord

TARGET: Final = "/v1/resolve"
DEADLINE_S: Final = 6.0
ATTEMPT_S: Final = 4.0
"""Longest wait for one address."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
"""Between two rounds over all addresses; doubled each time, since every refusal is a record somewhere."""
REFUSAL_LIMIT: Final = 64 * 1024
HTTP_OK: Final = 200
HTTP_UNAVAILABLE: Final = 503

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for: a server, in a context or in the only possible one, with some choices by name."""

    server: str
    context: str | None = None
    choices: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The resolver's own refusal, passed on to whoever asked exactly as it came."""

    def __init__(self, posted: Posted, document: Mapping[str, object]) -> None:
        super().__init__(str(document.get("kind", "refused")))
        self.status = posted.status
        self.body = posted.body
        self.retry_after = posted.headers.get("retry-after")
        self.document = document

    @property
    def detail(self) -> str:
        """What the resolver tells the person who asked."""
        return str(self.document.get("detail") or self.document.get("title") or "Refused.")

    @property
    def kind(self) -> str:
        """The stable kind: the end of the problem's type."""
        return str(self.document.get("type", "")).rpartition("/")[2]


@dataclass(slots=True)
class Resolvers:
    """The resolvers of one installation, by address; the one that answered last is asked first."""

    urls: Sequence[str]
    identity: Identity
    post: Post
    deadline_s: float = DEADLINE_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _first: int = 0

    async def ask(self, token: str, wanted: Wanted, floor: Floor, *, traceparent: str | None = None) -> ResolveAnswer:
        """The opened answer. Raises `Refused`, or `Unavailable` when no resolver answered within the deadline."""
        body = _body(wanted, floor)
        until = self.clock() + self.deadline_s
        failure: Exception = Unavailable("No resolver is configured.")
        pause = FIRST_PAUSE_S
        while True:
            for step in range(len(self.urls)):
                index = (self._first + step) % len(self.urls)
                left = until - self.clock()
                if left <= 0:
                    raise failure
                try:
                    answer = await self._ask_one(self.urls[index], token, body, min(left, ATTEMPT_S), traceparent)
                except Unavailable as error:
                    # A resolver's own words say more than that another one did not answer.
                    failure = failure if isinstance(failure, Refused) else error
                except Refused as error:
                    if error.status != HTTP_UNAVAILABLE:
                        raise
                    failure = error
                else:
                    self._first = index
                    return answer
            if until - self.clock() <= pause:
                raise failure
            await self.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _ask_one(
        self, url: str, token: str, body: bytes, timeout_s: float, traceparent: str | None
    ) -> ResolveAnswer:
        """One call, with an assertion of its own: an assertion is good for one request."""
        # Resolvers remember ids: the same assertion shown twice, even to another replica, looks like a replay.
        asserted = assertion.make_assertion(
            assertion.Request("POST", TARGET, origin_of(url), body, token),
            key=self.identity.keys.signing,
            instance_id=self.identity.instance_id,
        )
        headers = {"Authorization": f"Bearer {token}", assertion.HEADER: asserted}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        posted = await self.post(url + TARGET, headers=headers, body=body, timeout_s=timeout_s)
        if posted.status != HTTP_OK:
            raise _refusal(posted)
        return self._open(posted.body, envelope.request_hash(asserted.encode(), body))

    def _open(self, sealed: bytes, request_hash: bytes) -> ResolveAnswer:
        try:
            payload = envelope.open_answer(
                sealed,
                instance_id=self.identity.instance_id,
                instance_hpke_key=self.identity.keys.sealing,
                resolver_keys=self.identity.resolver_keys,
                request_hash=request_hash,
            )
            return messages.decode_answer(payload)
        except (SignatureInvalid, SealInvalid, BadRequest) as error:
            _log.error("answer refused", reason=error.kind)
            raise Unavailable("A resolver's answer did not verify.") from None


def verified_server(answer: ResolveAnswer, identity: Identity) -> ServerRecord:
    """The definition that the answer is for, if policy signed it: an instance runs nothing else.

    1. The signature is policy's, over this record of this topic.
    2. The record is the server that was resolved, and is in force.
    3. Its digest is that of the definition, and the one that the resolver decided on.
    4. Every field of the definition has a value, and nothing else has.

    Raises `Unavailable`; the caller still owes wiping the answer.
    """
    signed = answer.server
    # 1.
    genuine = signed.type == ServerRecord.TYPE and record_verifies(
        identity.policy_key,
        signed.signature,
        topic=topics.POLICY,
        type_=signed.type,
        key=answer.server_id,
        payload=signed.payload,
    )
    try:
        record = parse(signed.payload, ServerRecord) if genuine else None
    except Unreadable:
        record = None
    # 2. and 3.
    if record is None or record.id != answer.server_id or record.deleted:
        raise _unverified()
    if not record.digest == definition_digest(record.definition) == answer.definition_digest:
        raise _unverified()
    # 4.
    if sorted(one.name for one in answer.fields) != sorted(one.name for one in record.definition.fields):
        raise _unverified()
    return record


def _unverified() -> Unavailable:
    _log.error("definition refused")
    return Unavailable("The server's definition did not verify.")


def _body(wanted: Wanted, floor: Floor) -> bytes:
    request = ResolveRequest(
        server=wanted.server,
        context=wanted.context,
        floor=messages.Floor(policy=floor.policy, catalog=floor.catalog),
        choices=dict(wanted.choices),
    )
    return request.model_dump_json(exclude_none=True).encode()


def _refusal(posted: Posted) -> Refused | Unavailable:
    """A problem document as it came; `Unavailable` for what isn't one, and for what only this instance can mend."""
    try:
        document = orjson.loads(posted.body[:REFUSAL_LIMIT])
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or posted.status < 400:  # noqa: PLR2004 - RFC 9110: below are no errors
        return Unavailable(f"A resolver answered {posted.status} in a way that this instance does not understand.")
    refused = Refused(posted, document)
    # By its kind and not by its status: a token that is invalid is 401 as well, and that is the agent's own matter.
    if refused.kind == "assertion-invalid":
        # Whoever asked can do nothing about it: it is this instance that is not, or no longer, accepted.
        _log.error("assertion refused")
        return Unavailable("The resolvers do not accept this gateway instance.")
    return refused
