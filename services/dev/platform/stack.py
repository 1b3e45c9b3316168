"""PostgreSQL, a broker and OpenBao together, in one state directory, for as long as a command or a test run needs."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from services.dev.platform.broker import Broker, broker_from_env
from services.dev.platform.locks import sole_use
from services.dev.platform.openbao import OpenBao
from services.dev.platform.postgres import Postgres
from services.dev.platform.together import together

if TYPE_CHECKING:
    from types import TracebackType


class Platform:
    """`async with Platform(directory=…) as platform:` everything answers inside and has stopped after it.

    The same directory brings the same data back. Only one run at a time may use it: the second one is refused.
    `broker` defaults to what the environment variable BROKER says.
    """

    def __init__(
        self,
        *,
        directory: Path,
        broker: Broker | None = None,
        audit_webhook: str | None = None,
        audit_authorization: str | None = None,
        durable: bool = True,
    ) -> None:
        self.directory = directory.resolve()
        self.logs = self.directory / "logs"
        self.broker = broker or broker_from_env(self.directory, logs=self.logs)
        self.postgres = Postgres(self.directory / "postgres", log=self.logs / "postgres.log", durable=durable)
        self.openbao = OpenBao(
            self.directory / "openbao",
            log=self.logs / "openbao.log",
            audit_webhook=audit_webhook,
            audit_authorization=audit_authorization,
        )
        self._lock = ExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all three at once; raises the first failure, with everything stopped again."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(sole_use(self.directory / ".lock", of=self.directory))
        try:
            await together(self.postgres.start(), self.broker.start(), self.openbao.start())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all three at once."""
        try:
            await asyncio.gather(self.broker.stop(), self.openbao.stop(), self.postgres.stop())
        finally:
            self._lock.close()
