"""Whether a process is alive, and whether it is ready: each check gives None, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], str | None]


@dataclass(slots=True)
class Readiness:
    """The named checks of one process."""

    checks: dict[str, Check] = field(default_factory=dict)

    def add(self, name: str, check: Check) -> None:
        """Let `check` have a say; it runs at each request and must not block."""
        self.checks[name] = check

    def reasons(self) -> dict[str, str]:
        """What is not ready, and why; empty when all is."""
        # Asked anew each time: yesterday's answer would keep sending requests to who can't serve them.
        answers = ((name, check()) for name, check in self.checks.items())
        return {name: reason for name, reason in answers if reason is not None}

    def routes(self) -> list[Route]:
        """`/healthz` answers while the event loop runs; `/readyz` is 503 with reasons until all checks pass."""

        async def alive(_: Request) -> Response:
            return JSONResponse({"status": "alive"})

        async def ready(_: Request) -> Response:
            reasons = self.reasons()
            return JSONResponse(
                {"status": "not ready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200
            )

        return [Route("/healthz", alive), Route("/readyz", ready)]
