"""A service's installation keys: several may be live, and one of them seals what is new.

While keys are being changed, rows of the old and of the new one stand side by side; both open, and `rewrap` brings one
row after the other to the current key. A ring never changes: another current key is another ring.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from shared.config import Misconfigured
from shared.crypto.secret import SecretBytes
from shared.custody.contexts import SealContext
from shared.custody.keks import Kek
from shared.custody.seals import SealedValue, open_at_rest, seal_at_rest
from shared.custody.wraps import kek_id_of, rewrap
from shared.errors import SealInvalid

NAMED: Final = 5
"""Key ids that one sentence names at most."""


class KeysMissing(Misconfigured):
    """Raised at a service's start when something is sealed under keys that it was not given; names them."""


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """The row's new wrap, under the current key; its seal stays."""

    wrap: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AlreadyCurrent:
    """The row needs the current key as it is: nothing to write."""


Rewrapping: TypeAlias = Rewrapped | AlreadyCurrent


class Keyring:
    """Live installation keys, found by the id that a wrap names."""

    __slots__ = ("_keks", "current")

    def __init__(self, current: Kek, *others: Kek) -> None:
        """Seal under `current`; open under any of them. `ValueError` if two different keys have one id."""
        self._keks: dict[bytes, Kek] = {}
        for kek in (current, *others):
            if not self._keks.setdefault(kek.id_bytes, kek).matches(kek):
                raise ValueError(f"two installation keys have the id {kek.key_id}")
        self.current = current

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of all live keys."""
        return frozenset(kek.key_id for kek in self._keks.values())

    def seal(self, value: SecretBytes, *, context: SealContext) -> SealedValue:
        """Seal under the current key; errors as `seal_at_rest` has them."""
        return seal_at_rest(value, context=context, kek=self.current)

    def open(self, value: SealedValue, *, context: SealContext) -> SecretBytes:
        """Open under whichever key the value names; `SealInvalid` also when that is none of these."""
        return open_at_rest(value, context=context, kek=self._needed(value.wrap))

    def rewrap(self, wrap: bytes, *, context: SealContext) -> Rewrapping:
        """Bring a wrap to the current key, without its value; `SealInvalid` if it does not open.

        Doing it again changes nothing, so an interrupted rotation just goes over the rows once more.
        """
        needed = self._needed(wrap)
        if needed is self.current:
            return AlreadyCurrent()
        return Rewrapped(rewrap(wrap, context=context, old=needed, new=self.current))

    def expect(self, in_use: Iterable[str]) -> None:
        """Raise `KeysMissing` unless every key id that rows name is live here; for a service's start."""
        missing = sorted(set(in_use) - self.key_ids)
        if not missing:
            return
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise KeysMissing(
            f"Values here are sealed under installation keys that were not given: {', '.join(missing[:NAMED])}{more} "
            f"(given: {', '.join(sorted(self.key_ids))}); put their files back, or restore them with "
            "`keyfob keys recover`."
        )

    def _needed(self, wrap: bytes) -> Kek:
        kek = self._keks.get(kek_id_of(wrap))
        if kek is None:
            # The same as for any row that was changed: its id may be what was.
            raise SealInvalid
        return kek

    def __repr__(self) -> str:
        return f"Keyring({', '.join(kek.key_id for kek in self._keks.values())})"
