"""A process that consumes a topic and writes down what it heard, a line a message: run as a script and killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, connect
from shared.bus.effects import Ack, Outcome, consume, effects_broker


async def main(bootstrap: str, topic: str, heard: Path) -> None:
    async def hear(message: Message) -> Outcome:
        with heard.open("a") as file:
            file.write(message.value.decode() + "\n")
        return Ack()

    broker = effects_broker(KafkaSettings(bootstrap=bootstrap, client_id="tests", member="member-1"))
    consume(broker, topic=topic, group=f"{topic}-group", handler=hear)
    await connect(broker, what="test")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
