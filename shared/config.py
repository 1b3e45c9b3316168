"""Settings that every service shares. Each service adds a group of its own with its own prefix.

Secrets are never taken from the environment, which other processes of the same user can read: settings name files,
and `read_secret_file` refuses one that others may read.
"""

from __future__ import annotations

import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy import URL

_BROKER: Final = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_BROKERS: Final = re.compile(rf"{_BROKER}(, *{_BROKER})*")


class Mode(StrEnum):
    """Development allows loopback without TLS and the development issuer; production refuses both."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Misconfigured(Exception):
    """A setting that cannot work; its text is the one sentence that the service ends with at start."""


def read_secret_file(path: Path) -> str:
    """The text of a file that only its owner may read, without surrounding white space.

    Raises `Misconfigured` naming the file and the mend, never its content.
    """
    try:
        # Non-blocking, because opening a pipe that nobody writes to would wait for ever.
        with open(path, encoding="utf-8", opener=_without_waiting) as file:
            # The mode of what was opened, not of the path: whoever exchanges the file in between gains nothing.
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(f"{path} cannot be read: not a file.")
            if stat.S_IMODE(mode) & 0o077:
                raise Misconfigured(f"{path} may be read by others: run `chmod 600 {path}`.")
            # Editors end a file with a line break, which is no part of a password.
            return file.read().strip()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        # Not chained: this error carries the whole content.
        raise Misconfigured(f"{path} cannot be read: it does not hold UTF-8 text.") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


class _Settings(BaseSettings):
    """What all groups have in common: a setting that can't be read is named as the admin wrote it."""

    def __init__(self, **given: Any) -> None:
        """Read the settings; `Misconfigured` for what can't be read, and for what a service's own rules refuse."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            prefix = str(self.model_config.get("env_prefix", ""))
            found = error.errors(include_url=False, include_input=False)
            # A rule over several settings has no place of its own; its sentence names them.
            wrong = [("".join(str(part) for part in one["loc"][:1]).upper() or "*", one["msg"]) for one in found]
            # Not chained: a stack trace would show what was given, and hide the sentence.
            raise Misconfigured(
                " ".join(f"{prefix}{name}: {why.removeprefix('Value error, ')}." for name, why in wrong)
            ) from None


def _brokers(text: str) -> str:
    # Looked at here, since a client would only fail at its first use, and with a stack trace.
    if not _BROKERS.fullmatch(text):
        raise ValueError("must be host:port, comma separated")
    return text


Brokers = Annotated[str, AfterValidator(_brokers)]
BrokersOrNone = Annotated[str, AfterValidator(lambda text: text and _brokers(text))]
"""Empty where somebody else says it."""


def _database_url(text: str) -> str:
    # Here and below, for commands and services without a database: it takes a quarter of a second to load.
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        known = make_url(text).drivername == "postgresql+asyncpg"
    except (ArgumentError, ValueError):
        known = False
    if not known:
        raise ValueError("must look like postgresql+asyncpg://role@host/database")
    return text


class CommonSettings(_Settings):
    """What every service needs: where it runs, the broker, telemetry."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_", frozen=True, extra="ignore")

    # The strict one: a setting that was forgotten loosens nothing.
    mode: Mode = Mode.PRODUCTION
    kafka_bootstrap: Brokers = Field("127.0.0.1:9092", description="host:port, comma separated")
    kafka_security_protocol: str = Field("PLAINTEXT", description="PLAINTEXT, SSL, SASL_SSL or SASL_PLAINTEXT")
    kafka_sasl_mechanism: str = "SCRAM-SHA-512"
    kafka_sasl_username: str = ""
    kafka_sasl_password_file: Path | None = None
    kafka_ca_file: Path | None = None
    kafka_member: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="name of this replica among its consumers' groups, the same after a restart and nobody else's: "
        "a replica that was killed then goes on at once, and the broker need not first find out that it is gone",
    )
    kafka_replication: int = Field(3, ge=1, description="replicas of each topic; 1 is for development")
    policy_key: str = Field("", description="base64 Ed25519 public key that signs the records of `policy`")
    catalog_key: str = Field("", description="base64 Ed25519 public key that signs the records of `catalog`")
    resolver_keys: str = Field(
        "",
        description="base64 Ed25519 public keys of the resolvers, comma separated: they vouch for the receipts of "
        "instances of the profile https; empty: nobody does",
    )


class HttpSettings(_Settings):
    """Where a service listens. Subclass with the service's own prefix."""

    # Reachable from elsewhere only on purpose.
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class DatabaseSettings(_Settings):
    """One PostgreSQL, one schema and one role per service. The URL carries no password."""

    database_url: Annotated[str, AfterValidator(_database_url)] = "postgresql+asyncpg://127.0.0.1/keyfob"
    database_password_file: Path | None = None
    database_pool: int = Field(10, ge=1, le=200, description="connections")

    def database(self) -> URL:
        """The URL with the password from its file."""
        from sqlalchemy import make_url  # noqa: PLC0415

        url = make_url(self.database_url)
        if self.database_password_file is None:
            return url
        return url.set(password=read_secret_file(self.database_password_file))


class AdminSettings(_Settings):
    """Whose tokens administrators present, and which groups make one (security: by group, from the IdP)."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_ADMIN_", frozen=True, extra="ignore")

    issuer: str = ""
    jwks_uri: str = ""
    audience: str = "keyfob"
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    admin_group: str = "keyfob-admins"
    operator_group: str = "keyfob-operators"
    auditor_group: str = "keyfob-auditors"
