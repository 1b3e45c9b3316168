"""Settings of the gateway, prefix `KEYFOB_GATEWAY_`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.gateway.sandboxes import Choice
from shared.config import BrokersOrNone, HttpSettings


class GatewaySettings(HttpSettings):
    """One instance. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_GATEWAY_", frozen=True, extra="ignore")

    name: str = Field("gateway", min_length=1, max_length=256, description="how admins see this instance; at enrolment")
    identity_dir: Path = Field(Path("identity"), description="keys and enrolment, mode 0700; made at the first start")
    enrolment_token_file: Path | None = Field(None, description="single-use token, mode 0600; for the first start only")
    policy_url: str = Field("", description="origin of policy; for the first start only")
    resolver_urls: str = Field("", description="origins of resolvers, comma separated; empty: as enrolment said")
    kafka_bootstrap: BrokersOrNone = Field("", description="host:port; empty: as enrolment said, else the common one")

    fence_s: float = Field(
        60.0,
        gt=0,
        le=60,
        description="without a signed tick for so long, everything is dropped; not longer, since after it a silent "
        "instance counts as one that holds nothing (KEYFOB_NOTIFIER_GATEWAY_BOUND_S)",
    )
    heartbeat_s: float = Field(1.0, gt=0, description="between receipts when nothing was held")
    receipt_deadline_s: float = Field(5.0, gt=0, description="a receipt that is not durable by then is told again")
    resolve_deadline_s: float = Field(6.0, gt=0, description="for one question, however many resolvers it takes")

    drain_s: float = Field(30.0, ge=0, description="running calls may finish this long with a value that was rotated")
    idle_s: float = Field(600.0, gt=0, description="an MCP server that nobody called for so long is stopped")
    start_s: float = Field(30.0, gt=0, description="an MCP server must have answered its handshake within this")
    stop_s: float = Field(1.0, ge=0, description="from SIGTERM to SIGKILL when nothing was revoked")
    upstream_limit: int = Field(256, ge=1, description="MCP servers running at a time")
    session_idle_s: float = Field(1800.0, gt=0, description="an agent's MCP session without a request ends")
    session_limit: int = Field(10_000, ge=1, description="agents' MCP sessions at a time")
    body_limit: int = Field(4 * 1024 * 1024, ge=1024, description="of one request of an agent")
    line_limit: int = Field(16 * 1024 * 1024, ge=1024, description="of one message of an MCP server")

    command_path: str = Field(
        os.defpath, description="where commands without a slash are looked for; the child does not inherit it"
    )
    scratch_dir: Path | None = Field(None, description="working directories of MCP servers; empty: the system's")
    environment: str = Field(
        "",
        description="variables of this process's own environment that servers may be given where a binding says so, "
        "comma separated; no configuration reads any other",
    )
    value_file_dir: Path | None = Field(
        None,
        description="a memory file system (tmpfs) for values that servers take as files; empty: XDG_RUNTIME_DIR or "
        "/dev/shm, whichever is one",
    )
    allowed_variables: str = Field(
        "", description="reserved variables (LD_*, PATH, *_PROXY, …) that servers get all the same, comma separated"
    )
    end_on_guess: bool = Field(
        default=False,
        description="a call whose arguments hold a value of its server's does not reach it and ends what it runs on; "
        "an alert is raised either way",
    )
    sandbox: Choice = Field(
        Choice.AUTO, description="of stdio servers; auto: bubblewrap, else unshare, else off, whichever works here"
    )
    sandbox_hides: str = Field(
        "",
        description="directories and files that no server in a sandbox may see, comma separated, beside /run, "
        "other servers' and the gateway's own",
    )
    sandbox_shows: str = Field(
        "", description="what servers in a sandbox may read although it is hidden, or in /tmp or /run, comma separated"
    )
    unsafe_shared_uid: bool = Field(
        default=False,
        description="production mode without a sandbox: run stdio servers of several subjects all the same, where each "
        "can read the other's environment",
    )

    def hides(self) -> tuple[Path, ...]:
        """What servers in a sandbox don't see of this gateway's own, and what is named."""
        own = (self.identity_dir, self.enrolment_token_file, self.tls_key)
        return (*(path for path in own if path is not None), *_paths(self.sandbox_hides))

    def shows(self) -> tuple[Path, ...]:
        """What they may see of hidden places."""
        return _paths(self.sandbox_shows)

    def allows(self) -> frozenset[str]:
        """Reserved variables that are allowed by name."""
        return frozenset(filter(None, (part.strip() for part in self.allowed_variables.split(","))))

    @model_validator(mode="after")
    def _drains_within_the_fence(self) -> Self:
        # An instance whose receipts don't arrive, though it hears ticks, counts as empty after the fence's time too.
        if self.drain_s + self.stop_s >= self.fence_s:
            message = "drain_s and stop_s together must be less than fence_s"
            raise ValueError(message)
        return self


def _paths(listed: str) -> tuple[Path, ...]:
    return tuple(Path(part.strip()) for part in listed.split(",") if part.strip())
