"""Settings of sync, prefix `KEYFOB_SYNC_`. Times are in seconds."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.config import DatabaseSettings, HttpSettings, Misconfigured


class SyncSettings(HttpSettings, DatabaseSettings):
    """One replica of sync."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_SYNC_", frozen=True, extra="ignore")

    signing_key_file: Path = Field(Path("sync-signing.key"), description="Ed25519 key that signs the catalog's records")
    credentials_dir: Path = Field(
        Path("credentials"), description="holds <source-name>.json, mode 0600: origin and token of each source"
    )
    feed_secrets_dir: Path = Field(
        Path("feed-secrets"), description="holds <source-name>, mode 0600: what the source's change feed presents"
    )
    source_ca_file: Path | None = Field(None, description="PEM of a CA to trust for sources, beside the system's")
    source_timeout_s: float = Field(3.0, gt=0, description="an answer of a source that takes longer is none")
    source_connections: int = Field(64, ge=1, description="connections kept to sources")
    sweep_every_s: float = Field(30.0, gt=0, description="between sweeps of a source: the net under its change feed")
    sweep_jitter: float = Field(0.2, ge=0, lt=1, description="share of the interval by which a sweep may vary")
    sweep_retry_s: float = Field(2.0, gt=0, description="until the first sweep after one that did not reach the source")
    hint_capacity: int = Field(10_000, ge=1, description="paths of a source that may wait for a look; then a sweep")
    hint_workers: int = Field(4, ge=1, description="hints of one source that are followed at the same time")
    looks: int = Field(10, ge=1, description="looks at the same time in all, each with a database connection")
    surveys: int = Field(4, ge=1, description="sweeps and manual syncs at the same time, each with a connection")
    manual_syncs: int = Field(2, ge=1, description="manual syncs worked on at the same time, each with a connection")
    database_pool: int = Field(20, ge=4, le=200, description="connections; more than looks, surveys and manual syncs")

    def check(self) -> None:
        """`Misconfigured` if the parts of one replica could wait for each other's connections for ever."""
        held = self.looks + self.surveys + self.manual_syncs
        if self.database_pool <= held:
            raise Misconfigured(
                f"KEYFOB_SYNC_DATABASE_POOL must be more than {held}: looks, surveys and manual syncs hold one each."
            )
