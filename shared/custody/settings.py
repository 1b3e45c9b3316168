"""What a service that keeps sealed values is told: its database, and where its installation keys are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.config import DatabaseSettings, Mode
from shared.custody.providers import ProviderKind, ProviderSettings


class CustodySettings(DatabaseSettings):
    """Subclass with the service's own prefix. Without `keys_dir` the service keeps nothing, and needs no database."""

    keys_dir: Path | None = Field(
        None, description="holds the installation keys, <key id>.kek each, mode 0600; empty: no values are kept here"
    )
    key_provider: ProviderKind = Field(ProviderKind.FILE, description="file, transit or aws-kms: what opens the keys")
    key_origin: str = Field("", description="transit: scheme, host and port, such as https://vault.example:8200")
    key_mount: str = Field("transit", description="transit: where the engine is mounted")
    key_name: str = Field("", description="transit: the key's name; aws-kms: the key's ARN")
    key_token_file: Path | None = Field(None, description="transit: a file with our token, mode 0600")
    key_region: str = Field("", description="aws-kms: as in eu-central-1")

    def provider(self, *, service: str, mode: Mode) -> ProviderSettings:
        """The same for `shared.custody.providers.provider_for`."""
        return ProviderSettings(
            kind=self.key_provider,
            service=service,
            mode=mode,
            origin=self.key_origin,
            mount=self.key_mount,
            key=self.key_name,
            token_file=self.key_token_file,
            region=self.key_region,
        )
