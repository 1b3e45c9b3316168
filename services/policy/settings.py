"""Settings of policy, prefix `KEYFOB_POLICY_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.config import BrokersOrNone, DatabaseSettings, HttpSettings, Misconfigured, Mode
from shared.crypto.signing import VerifyKey
from shared.origins import checked_origins


class PolicySettings(HttpSettings, DatabaseSettings):
    """One replica. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_POLICY_", frozen=True, extra="ignore")

    signing_key_file: Path = Field(Path("policy-signing.key"), description="Ed25519 key that signs all records")
    resolver_keys: str = Field("", description="public keys of the resolvers (base64url), comma separated")
    resolver_urls: str = Field("", description="origins of the resolvers, comma separated, told to gateways")
    https_urls: str = Field("", description="origins of the resolvers for instances of the profile https")
    instance_ca_key_file: Path | None = Field(None, description="EC key that signs such instances' certificates")
    instance_ca_file: Path | None = Field(None, description="PEM of that key's certificate; not set: there are none")
    instance_certificate_days: int = Field(365, ge=1, le=3650, description="after which an instance enrols anew")
    notifier_url: str = Field("", description="origin of the notifier, for gateways that can't reach the broker")
    gateway_kafka_bootstrap: BrokersOrNone = Field(
        "", description="broker addresses as gateways see them; empty: as we do"
    )
    tick_every_s: float = Field(1.0, gt=0, description="between signed ticks; their absence is what stops resolvers")
    windows_every_s: float = Field(0.25, gt=0, description="between looks for grants whose window opens or closes")

    allowed_variables: str = Field(
        "", description="reserved variables (LD_*, PATH, *_PROXY, …) that servers may have all the same, by name"
    )

    def allows(self) -> frozenset[str]:
        """Reserved variables that are allowed, comma separated in the setting."""
        return frozenset(filter(None, (part.strip() for part in self.allowed_variables.split(","))))

    def check_origins(self, mode: Mode) -> None:
        """Raise `Misconfigured` where gateways would be sent to an address that must not carry what they send."""
        checked_origins(self.resolver_urls, mode=mode, setting="KEYFOB_POLICY_RESOLVER_URLS")
        checked_origins(self.notifier_url, mode=mode, setting="KEYFOB_POLICY_NOTIFIER_URL")
        self.told_https_urls()

    def told_https_urls(self) -> tuple[str, ...]:
        """The origins."""
        setting = "KEYFOB_POLICY_HTTPS_URLS"
        return checked_origins(self.https_urls, mode=Mode.PRODUCTION, setting=setting, always_tls=True)

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
