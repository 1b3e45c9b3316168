"""Settings of policy, prefix `KEYFOB_POLICY_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.config import DatabaseSettings, HttpSettings, Misconfigured
from shared.crypto.signing import VerifyKey


class PolicySettings(HttpSettings, DatabaseSettings):
    """One replica. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_POLICY_", frozen=True, extra="ignore")

    signing_key_file: Path = Field(Path("policy-signing.key"), description="Ed25519 key that signs all records")
    resolver_keys: str = Field("", description="public keys of the resolvers (base64url), comma separated")
    resolver_urls: str = Field("", description="origins of the resolvers, comma separated, told to gateways")
    notifier_url: str = Field("", description="origin of the notifier, for gateways that can't reach the broker")
    gateway_kafka_bootstrap: str = Field("", description="broker addresses as gateways see them; empty: as we do")
    tick_every_s: float = Field(1.0, gt=0, description="between signed ticks; their absence is what stops resolvers")
    windows_every_s: float = Field(0.25, gt=0, description="between looks for grants whose window opens or closes")

    allowed_variables: str = Field(
        "", description="reserved variables (LD_*, PATH, *_PROXY, …) that servers may have all the same, by name"
    )

    def allows(self) -> frozenset[str]:
        """Reserved variables that are allowed, comma separated in the setting."""
        return frozenset(filter(None, (part.strip() for part in self.allowed_variables.split(","))))

    def told_resolver_urls(self) -> tuple[str, ...]:
        """The origins."""
        return tuple(filter(None, (part.strip() for part in self.resolver_urls.split(","))))

    def pinned_resolver_keys(self) -> tuple[str, ...]:
        """The keys, each checked to be one; `Misconfigured` otherwise."""
        keys = tuple(filter(None, (part.strip() for part in self.resolver_keys.split(","))))
        try:
            return tuple(VerifyKey.from_base64(key).to_base64() for key in keys)
        except ValueError:
            raise Misconfigured(
                "KEYFOB_POLICY_RESOLVER_KEYS must be public keys (base64url), comma separated."
            ) from None
