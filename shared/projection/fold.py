"""The pure heart of a projection: messages in, whole commits of changes out.

Per key only the newest commit counts, whatever order messages come in, and a deleted key keeps its number, so that
nothing older comes back. A commit is held until it is whole: its last part came, or a later commit began, or the end
of the topic was reached (compaction may have removed its last part).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shared.bus.cloudevents import Message, Unreadable
from shared.projection.changes import Alert, Change, Removed, Upserted, Why
from shared.projection.records import CommitPart, Registry, TypedRecord, commit_part, read_record


@dataclass(slots=True)
class _Held:
    """The newest commit that a key has seen, and the type of what it holds; None when it holds nothing."""

    seq: int
    kind: str | None


@dataclass(slots=True)
class _Open:
    """A commit whose end has not been seen; `first` is the offset of its first message."""

    seq: int
    first: int
    changes: list[Change] = field(default_factory=list)


@dataclass(slots=True)
class Fold:
    """Turns messages into changes, keeping what is needed per key. One instance per run of a topic."""

    known: Registry
    on_alert: Callable[[Alert], None]
    seq: int = 0
    """The newest whole commit that was handed out."""

    keyless: str | None = None
    """Set when a record without a usable key was met: this run can't be trusted to be complete."""

    _keys: dict[str, _Held] = field(default_factory=dict)
    _open: _Open | None = None

    def feed(self, messages: Iterable[Message], *, at_end: bool) -> list[Change]:
        """The changes of all commits that are whole now, in order."""
        ready: list[Change] = []
        for message in messages:
            self._take(message, ready)
        if at_end:
            self._close(ready)
        return ready

    def applied_position(self, position: int) -> int:
        """The offset up to which everything has been handed out, when messages were read up to `position`."""
        return position if self._open is None else self._open.first

    def remove_unreadable(self, key: str, payload: bytes) -> Removed:
        """Take away what a key holds, because what it should hold can't be used. Its number stays."""
        held = self._keys.get(key)
        kind = None if held is None else held.kind
        if held is not None:
            held.kind = None
        return Removed(key, kind, Why.UNREADABLE, payload)

    def _take(self, message: Message, ready: list[Change]) -> None:
        headers = dict(message.headers)
        part = commit_part(headers)
        if part is not None:
            self._turn_to(part, message.offset, ready)
        change = self._change(message, headers, part)
        if change is not None:
            (ready if self._open is None else self._open.changes).append(change)
        if part is not None and part.last:
            self._close(ready)

    def _turn_to(self, part: CommitPart, offset: int, ready: list[Change]) -> None:
        if self._open is not None and self._open.seq != part.seq:
            self._close(ready)
        if self._open is None:
            self._open = _Open(part.seq, offset)

    def _close(self, ready: list[Change]) -> None:
        if self._open is not None:
            ready += self._open.changes
            self.seq = max(self.seq, self._open.seq)
            self._open = None

    def _change(self, message: Message, headers: dict[str, bytes], part: CommitPart | None) -> Change | None:
        key = message.key
        if not key:
            self.keyless = f"{message.topic}: the record at offset {message.offset} has no usable key"
            self.on_alert(Alert(message.topic, None, message.offset, "no usable key"))
            return None
        try:
            typed = read_record(message, headers, part, self.known)
        except Unreadable as error:
            self.on_alert(Alert(message.topic, key, message.offset, error.detail))
            return self.remove_unreadable(key, message.value)
        return self._newer(key, typed)

    def _newer(self, key: str, typed: TypedRecord) -> Change | None:
        held = self._keys.get(key)
        if held is not None and typed.seq <= held.seq:
            return None
        deleted = typed.record.deleted
        self._keys[key] = _Held(typed.seq, None if deleted else typed.type)
        if not deleted:
            return Upserted(typed)
        return Removed(key, held.kind if held is not None and held.kind is not None else typed.type, Why.DELETED)
