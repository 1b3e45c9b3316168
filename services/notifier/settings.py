"""Settings of the notifier, prefix `KEYFOB_NOTIFIER_`. Times are in seconds."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.notifier.domain.convergence import Bounds
from shared.config import DatabaseSettings, HttpSettings


class NotifierSettings(HttpSettings, DatabaseSettings):
    """One replica; replicas share the group of consumers and the database."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_NOTIFIER_", frozen=True, extra="ignore")

    publish_deadline_s: float = Field(
        5.0, gt=0, description="a notice must be acknowledged within this, or is repeated"
    )
    gateway_bound_s: float = Field(60.0, gt=0, description="a gateway without a tick for so long drops everything")
    resolver_bound_s: float = Field(15.0, gt=0, description="a resolver without a tick for so long refuses everything")
    clock_allowance_s: float = Field(
        1.0, ge=0, description="by how much clocks may differ, and how long stopping at a bound may take"
    )
    receipts_reach_back_s: float = Field(600.0, gt=0, description="age of the oldest receipt that is read at start")
    settle_every_s: float = Field(0.25, gt=0, description="between writings of what members proved")
    keep_days: int = Field(90, ge=1, description="how long notices and who acted on them are kept")

    def bounds(self) -> Bounds:
        """After how long a silent member can't use anything any more."""
        allowance = timedelta(seconds=self.clock_allowance_s)
        return Bounds(
            gateway=timedelta(seconds=self.gateway_bound_s) + allowance,
            resolver=timedelta(seconds=self.resolver_bound_s) + allowance,
        )
