"""The gateway's own bound: whoever has not heard policy's signed tick for this long holds nothing any more.

A suppressed revocation can't look like silence. Both clocks count: the monotonic one since the tick arrived, so that
setting the wall clock back gains nothing, and the wall clock since policy signed it, so that neither a delayed tick
nor a suspended machine does. A tick with no higher commit than the last one is a repetition and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.client.leases import Moment

DEFAULT_BOUND_S = 60.0


@dataclass(slots=True)
class TickFence:
    """Closed until the first tick, and again `bound_s` seconds after the newest one."""

    bound_s: float = DEFAULT_BOUND_S
    _heard: Moment | None = None
    _seq: int = -1

    def hear(self, *, seq: int, signed_at: float, moment: Moment) -> bool:
        """Take note of a tick whose signature was verified; `signed_at` is in seconds since 1970.

        False for one that is no newer than what was heard before.
        """
        if seq <= self._seq:
            return False
        self._seq = seq
        self._heard = Moment(monotonic=moment.monotonic, wall=signed_at)
        return True

    def closed(self, moment: Moment) -> bool:
        """Whether nothing may be used now."""
        return self.remaining_s(moment) < 0

    def remaining_s(self, moment: Moment) -> float:
        """Seconds until it closes if no newer tick comes; negative when it is closed."""
        heard = self._heard
        if heard is None:
            return -self.bound_s
        return self.bound_s - max(moment.monotonic - heard.monotonic, moment.wall - heard.wall)
