"""What policy's commands need from outside: one open transaction, and what the catalog says about references."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from services.policy.domain.enrolments import Enrolment, EnrolmentRecord
from services.policy.domain.kinds import Kind
from shared.events.catalog import ReferenceRecord
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import PolicyRecord

R = TypeVar("R", bound=PolicyRecord)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was committed: callers wait for the convergence of `event_id`, readers for `seq`."""

    entity_id: str
    seq: int
    event_id: str
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some of a list; `next` is the cursor for more, None at the end."""

    items: tuple[T_co, ...]
    next: str | None


class Catalog(Protocol):
    """References by name and by id, as sync last published them. Verified; what doesn't verify isn't there."""

    async def find(self, text: str) -> ReferenceRecord | None:
        """The living reference by name or id, `text` having been committed before this call; else None.

        `Unavailable` while what is known may be older than the question.
        """
        ...

    def by_id(self, reference_id: str) -> ReferenceRecord | None:
        """The living reference, as far as is known now."""
        ...

    def name_of(self, reference_id: str) -> str:
        """What a reference is or was called; empty if that isn't known."""
        ...


class Reading(Protocol):
    """One transaction's view of policy.

    What is read here was signed by policy itself; `SignatureInvalid` for a row that wasn't, so that nothing which
    somebody put into the database is ever shown, decided on or signed again.
    """

    @property
    def now(self) -> datetime:
        """By the database's clock, the same through the whole transaction."""
        ...

    async def get(self, model: type[R], entity_id: str) -> R | None:
        """The living entity, or None."""
        ...

    async def find(self, model: type[R], text: str) -> R | None:
        """The living entity by its id (with or without its kind) or its name, or None."""
        ...

    async def linked(self, model: type[R], *targets: str) -> tuple[R, ...]:
        """The living entities of a kind that have all these links, oldest first."""
        ...

    async def page(self, model: type[R], *, links: Sequence[str], after: str | None, limit: int) -> Page[R]:
        """Up to `limit` living entities of a kind that have all `links`, oldest first, behind the cursor `after`.

        `BadRequest` for a cursor that no page gave.
        """
        ...

    async def names(self, ids: Collection[str]) -> dict[str, str]:
        """What people call those of `ids` that live."""
        ...

    async def enrolment_by_name(self, text: str) -> Enrolment | None:
        """The newest enrolment by that name or id."""
        ...

    async def enrolment_by_token(self, token_sha256: str) -> Enrolment | None:
        """The enrolment that a token belongs to."""
        ...

    async def enrolment_page(self, *, after: str | None, limit: int) -> Page[Enrolment]:
        """Up to `limit` enrolments, oldest first, behind the cursor `after`."""
        ...


class Work(Reading, Protocol):
    """A transaction that changes policy. Works are serial: each sees all that earlier ones did."""

    @property
    def seq(self) -> int:
        """The number of this commit."""
        ...

    async def standing(self, record: R) -> tuple[R, Receipt] | None:
        """The living entity of the same kind and natural key, with the receipt of its last change, or None."""
        ...

    async def falling(self, entity_id: str, kinds: Collection[Kind]) -> tuple[PolicyRecord, ...]:
        """The living entities of `kinds` that link to an entity: unverified, to be deleted and nothing else."""
        ...

    def put(self, record: PolicyRecord) -> None:
        """Let an entity be as in `record`, whose `seq` is this work's."""
        ...

    def delete(self, record: PolicyRecord) -> None:
        """Let a living entity be gone, leaving a signed record that it is."""
        ...

    def add_enrolment(self, record: EnrolmentRecord) -> None:
        """Keep a promise."""
        ...

    def use_enrolment(self, enrolment_id: str, *, instance_id: str) -> None:
        """Note whom a promise let in."""
        ...

    def drop_enrolment(self, enrolment_id: str) -> None:
        """Take a promise back."""
        ...

    def announce(
        self,
        action: PolicyAction,
        *,
        kind: str,
        entity_id: str,
        name: str = "",
        ended: Collection[str] = (),
    ) -> Receipt:
        """Say what this work did; exactly once in a work that changes anything."""
        ...


class Ledger(Protocol):
    """Opens views and works. `Unavailable` when the database doesn't answer in time."""

    def read(self) -> AbstractAsyncContextManager[Reading]:
        """A consistent view of now."""
        ...

    def open(self, actor: Actor) -> AbstractAsyncContextManager[Work]:
        """A work of `actor`: committed when its block ends and something was announced, else undone."""
        ...
