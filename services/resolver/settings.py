"""Settings of the resolver, prefix `KEYFOB_RESOLVER_`.

What it knows is its two projections; a database it has only for values that Keyfob keeps itself, if it keeps any.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.config import HttpSettings, Misconfigured
from shared.custody.settings import CustodySettings
from shared.mutual_tls import MutualTls


class ResolverSettings(HttpSettings, CustodySettings):
    """One replica. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_RESOLVER_", frozen=True, extra="ignore")

    replica_id: str = Field(
        "resolver-1",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="name of this replica, unlike every other's: it names its records and its receipts",
    )
    audience: str = Field(
        "",
        description="origin that gateways call, which their assertions name; empty: the address it listens on",
    )
    signing_key_file: Path = Field(Path("resolver-signing.key"), description="Ed25519 key that signs answers")
    credentials_dir: Path = Field(
        Path("credentials"),
        description="holds <source-name>.json, mode 0600: origin and token of each source",
    )
    source_ca_file: Path | None = Field(None, description="PEM of a CA to trust for sources, beside the system's")
    tick_bound_s: float = Field(15.0, gt=0, description="refuse when policy's signed tick is older")
    floor_wait_s: float = Field(0.25, ge=0, description="how long a request waits for its floor to be reached")
    record_deadline_s: float = Field(1.5, gt=0, description="an access record must be durable within this")
    read_deadline_s: float = Field(2.0, gt=0, description="a source must have answered within this")
    lease_ttl_s: float = Field(900.0, gt=0, description="longest lease; token and grant may end it earlier")
    heartbeat_s: float = Field(1.0, gt=0, description="between receipts when nothing changes")
    receipt_pause_s: float = Field(0.005, ge=0, description="shortest pause between receipts of a busy projection")
    https_certificate: Path | None = Field(
        None, description="PEM; set, a second listener serves instances of the profile https"
    )
    https_key: Path | None = Field(None, description="PEM of its key")
    https_client_ca_file: Path | None = Field(None, description="PEM of the authority that signs their certificates")
    https_host: str = Field("127.0.0.1", description="where that listener listens")
    https_port: int = Field(0, ge=0, le=65535, description="where that listener listens")
    https_connections: int = Field(1000, ge=1, description="open at a time on that listener")
    source_connections: int = Field(128, ge=1, description="connections kept to each source")
    rewrap_batch: int = Field(100, ge=1, le=5000, description="values that a rotation brings to a new key at a time")
    memory_tokens: int = Field(10_000, ge=0, description="verified subject tokens remembered")

    def mutual_tls(self) -> MutualTls | None:
        """Where instances of the profile `https` are listened for; None where there are none."""
        files = (self.https_certificate, self.https_key, self.https_client_ca_file)
        match files:
            case (None, None, None):
                return None
            case (Path() as certificate, Path() as key, Path() as client_ca):
                return MutualTls(
                    host=self.https_host,
                    port=self.https_port,
                    certificate=certificate,
                    key=key,
                    client_ca=client_ca,
                    connections=self.https_connections,
                )
            case _:
                raise Misconfigured(
                    "KEYFOB_RESOLVER_HTTPS_CERTIFICATE, _HTTPS_KEY and _HTTPS_CLIENT_CA_FILE go together: set all."
                )
