"""Three brokers behind one interface: embedded (a wheel), Apache Kafka (jars), one that somebody else runs.

The embedded one, `noida-db`, keeps everything in memory and rewrites one file with all of it, once a second while
something changes and at a clean stop. SIGKILL therefore loses what was acknowledged since the last rewrite (one
second with little data, several with 20 MB): it is for development and tests on machines with nothing but Python,
never for production. It prints a warning about a weak GLIBC version, which is harmless.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
from pathlib import Path
from typing import Protocol

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from services.dev.platform.failures import PlatformFailure, Unavailable
from services.dev.platform.ports import LOOPBACK, kept_port
from services.dev.platform.processes import Process, plain_environment
from services.dev.platform.supervision import until_ready

_READY_WITHIN_S = 15.0
_EXTERNAL_WITHIN_S = 10.0

# A client that knocks before the broker listens logs an error; the probe's own answer says it better.
_quiet = logging.getLogger("aiokafka")


class Broker(Protocol):
    """A Kafka-protocol broker. `start` returns when a client's questions are answered.

    `start` raises ProcessFailed or Unavailable; after `stop` it brings the same data back at the same address,
    after `kill` too if it `survives_kill`.
    """

    @property
    def survives_kill(self) -> bool:
        """Whether everything that was acknowledged is there after SIGKILL."""

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""

    async def start(self) -> None:
        """Start, or start again."""

    async def stop(self) -> None:
        """Stop cleanly."""

    def kill(self) -> None:
        """SIGKILL, as a crash would."""


async def answers(bootstrap: str) -> bool:
    """Whether a client reaches the broker and gets the cluster's description."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="keyfob-platform", request_timeout_ms=2_000)
    level = _quiet.level
    _quiet.setLevel(logging.CRITICAL)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except KafkaError:
        return False
    finally:
        await admin.close()
        _quiet.setLevel(level)


class EmbeddedBroker:
    """The broker from the `noida-db` wheel, its data in `directory`."""

    survives_kill = False

    def __init__(self, directory: Path, *, log: Path | None = None) -> None:
        self._directory = directory.resolve()
        self._log = log or self._directory.parent / "logs" / "broker.log"
        self._port = 0
        self.process: Process | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients; known once it was started."""
        return f"{LOOPBACK}:{self._port}"

    async def start(self) -> None:
        """Start it on its data; raises ProcessFailed, or Unavailable when the wheel isn't installed."""
        program = _embedded_program()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._port = self._port or kept_port(self._directory / "port")
        self.process = Process(
            "broker",
            (
                str(program), "start", "--only", "kafka", "--host", LOOPBACK, "--kafka-port", str(self._port),
                "--data-dir", str(self._directory),
            ),
            env=plain_environment(),
            log=self._log,
            cwd=self._directory,
            death_signal=signal.SIGTERM,  # saves, then ends
        )  # fmt: skip
        self.process.start()
        await until_ready(self.process, lambda: answers(self.bootstrap), within_s=_READY_WITHIN_S)

    async def stop(self) -> None:
        """Stop cleanly; everything is saved."""
        if self.process is not None:
            await self.process.stop()

    def kill(self) -> None:
        """SIGKILL; what it acknowledged since its last save is lost."""
        if self.process is not None:
            self.process.kill()


class ExternalBroker:
    """A broker that somebody else runs: it is looked for, never started or stopped."""

    survives_kill = False  # nobody here may try

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    @property
    def bootstrap(self) -> str:
        """As given."""
        return self._bootstrap

    async def start(self) -> None:
        """Make sure that it answers; raises Unavailable naming the address when it doesn't."""
        try:
            async with asyncio.timeout(_EXTERNAL_WITHIN_S):
                reached = await answers(self._bootstrap)
        # No probe catches these here, as one does for brokers of ours: they become the sentence with the address.
        except (OSError, TimeoutError):
            reached = False
        if not reached:
            raise Unavailable(f"no broker answers at {self._bootstrap} (or it asks for a password)")

    async def stop(self) -> None:
        """Leave it alone."""

    def kill(self) -> None:
        """Refuse: it isn't ours."""
        raise PlatformFailure(f"the broker at {self._bootstrap} isn't ours to kill")


def broker_from_env(directory: Path, *, logs: Path | None = None) -> Broker:
    """The broker that the environment variable BROKER names: `embedded` (the default), `apache` or host:port.

    `directory` is the state directory of the platform; each kind has a folder of its own in it.
    Raises ValueError for anything else.
    """
    from services.dev.platform.apache import ApacheBroker  # noqa: PLC0415 - needed by few, imports the other way

    choice = os.environ.get("BROKER", "") or "embedded"
    log = (logs or directory / "logs") / "broker.log"
    if choice == "embedded":
        return EmbeddedBroker(directory / "broker", log=log)
    if choice == "apache":
        return ApacheBroker(directory / "kafka", log=log)
    if choice.rpartition(":")[2].isdigit():
        return ExternalBroker(choice)
    raise ValueError(f"BROKER={choice!r}: embedded, apache or host:port")


def _embedded_program() -> Path:
    package = importlib.util.find_spec("noida_db")
    if package is None or package.origin is None:
        raise Unavailable("the embedded broker needs the wheel noida-db (pip install 'keyfob[dev]')")
    return Path(package.origin).with_name("noida-db")
