"""Values that showed where they should not: counted, logged, and told to the instance, which signs it in a receipt.

Numbers and names of fields only. Which reference it was and whose stands in the record that opened the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from services.gateway.client.instance import Holding, Instance
from services.gateway.upstream import Upstream
from shared import telemetry
from shared.events.receipts import FindingKind

REDACTED: Final = "keyfob.gateway.redacted"
GUESSED: Final = "keyfob.gateway.guessed"
"""Counters: places that were replaced, and calls whose arguments held a value."""

_log = structlog.get_logger(__name__)


class Findings:
    """What was found at the upstreams of one gateway."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def guessed(self, upstream: Upstream, holding: Holding, arguments: bytes) -> bool:
        """Whether a call's `arguments` hold a value that its server has: an alarm.

        Whoever then sees `[redacted]` come back has learnt that the value is the right one.
        """
        fields = upstream.guesses(arguments) if arguments else ()
        if fields:
            _log.warning("a caller supplied a value", fields=fields, server=holding.server.id)
            telemetry.count(GUESSED)
            self._instance.found(FindingKind.GUESSED, _by_lease(holding, dict.fromkeys(fields, 1)))
        return bool(fields)

    def redacted(self, upstream: Upstream, holding: Holding) -> None:
        """Tell what was replaced since the last time, under the leases of a `holding` that the upstream rests on."""
        places = upstream.take_redacted()
        if places:
            _log.info("values redacted", places=places, server=holding.server.id)
            telemetry.count(REDACTED, sum(places.values()))
            self._instance.found(FindingKind.REDACTED, _by_lease(holding, places))


def _by_lease(holding: Holding, places: Mapping[str, int]) -> dict[str, int]:
    """The same numbers by lease instead of by field."""
    pairs = zip(holding.values, holding.leases, strict=True)
    return {lease.id: places[name] for name, lease in pairs if name in places}
