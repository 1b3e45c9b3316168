"""A relay in a process of its own, to be killed: `python -m tests.fakes.relay_process`, its configuration on stdin."""

from __future__ import annotations

import asyncio
import json
import sys

from sqlalchemy import make_url

from shared.bus.connection import KafkaSettings
from shared.outbox.relay import Relay


def main() -> None:
    """Relay until killed."""
    given = json.load(sys.stdin)
    kafka = KafkaSettings(bootstrap=given["bootstrap"])
    relay = Relay(
        database=make_url(given["database"]), schema=given["schema"], kafka=kafka, state_topic=given["state_topic"]
    )
    asyncio.run(relay.run())


if __name__ == "__main__":
    main()
