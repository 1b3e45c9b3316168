"""Where the installation's key is kept: a module for each kind of place behind one port, and the map to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.config import Misconfigured, Mode
from shared.custody.providers.file import FileProvider
from shared.custody.providers.kms import KmsProvider, kms_client
from shared.custody.providers.port import (
    KekProvider,
    KeyProviderRefused,
    KeyProviderUnavailable,
    ProviderKind,
    load_kept,
    save_new_kept,
)
from shared.custody.providers.transit import TransitProvider
from shared.egress import Egress, Origin

__all__ = [
    "PROVIDERS",
    "KekProvider",
    "KeyProviderRefused",
    "KeyProviderUnavailable",
    "ProviderKind",
    "ProviderSettings",
    "load_kept",
    "provider_for",
    "save_new_kept",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What the providers need to know; each takes its own part."""

    kind: ProviderKind = ProviderKind.FILE
    service: str
    """Whose key it is; bound into what wraps it."""
    mode: Mode = Mode.PRODUCTION
    origin: str = ""
    """Transit: `https://vault.example:8200`."""
    mount: str = "transit"
    key: str = ""
    """Transit: the key's name. AWS KMS: the key's ARN."""
    token_file: Path | None = None
    """Transit: a file with our token, mode 0600."""
    region: str = ""
    """AWS KMS: as in `eu-central-1`."""


def _file(_settings: ProviderSettings, _egress: Egress) -> KekProvider:
    return FileProvider()


def _transit(settings: ProviderSettings, egress: Egress) -> KekProvider:
    if not settings.key or not settings.mount or settings.token_file is None:
        raise Misconfigured("A key that transit keeps needs the transit key's name, its mount and a token file.")
    return TransitProvider(
        service=settings.service,
        origin=Origin.parse(settings.origin, mode=settings.mode),
        key=settings.key,
        token_file=settings.token_file,
        egress=egress,
        mount=settings.mount,
    )


def _aws_kms(settings: ProviderSettings, _egress: Egress) -> KekProvider:
    if not settings.key.startswith("arn:") or not settings.region:
        raise Misconfigured("A key that AWS KMS keeps needs the KMS key's whole ARN and its region.")
    return KmsProvider(service=settings.service, key_arn=settings.key, client=kms_client(settings.region))


PROVIDERS: Final[Mapping[ProviderKind, Callable[[ProviderSettings, Egress], KekProvider]]] = {
    ProviderKind.FILE: _file,
    ProviderKind.TRANSIT: _transit,
    ProviderKind.AWS_KMS: _aws_kms,
}


def provider_for(settings: ProviderSettings, egress: Egress) -> KekProvider:
    """The provider that the settings name; `Misconfigured` or `BadRequest` for settings that can't work."""
    return PROVIDERS[settings.kind](settings, egress)
