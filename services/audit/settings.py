"""Settings of the audit service, prefix `KEYFOB_AUDIT_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.config import DatabaseSettings, HttpSettings


class AuditSettings(HttpSettings, DatabaseSettings):
    """One replica; replicas share the group of consumers and the database, and one of them publishes."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_AUDIT_", frozen=True, extra="ignore")

    batch: int = Field(500, ge=1, le=5000, description="messages recorded in one transaction at most")
    echoes_every_s: float = Field(
        5.0, gt=0, description="between looks for records that instances were told of and that never came"
    )
