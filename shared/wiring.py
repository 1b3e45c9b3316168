"""What the wiring of every service has in common: from settings to clients. Read by `services/*/app.py` only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog
from pydantic import SecretStr, ValidationError

from shared.administration import AdminGuard
from shared.bus.connection import KafkaSettings, TopicsUnsuitable, ensure_topics, topics_present
from shared.bus.outages import is_outage
from shared.config import AdminSettings, CommonSettings, Misconfigured, Mode, read_secret_file
from shared.crypto.signing import VerifyKey
from shared.delivery.receipts import Resolvers
from shared.errors import Unavailable, cut
from shared.identity import JwksFetcher, TokenVerifier, TrustedIssuer
from shared.origins import is_loopback
from shared.projection.records import Authority
from shared.topics import Topic

_log = structlog.get_logger(__name__)

RETRY_AFTER_S: Final = 0.5
ADMIN_IDP: Final = "idp/administrators"
"""How records name the identity provider of administrators where it is not an entity of policy."""

Tell = Callable[[str], None]
"""Takes the reason for which a start is waiting."""


def kafka_settings(common: CommonSettings, *, client_id: str) -> KafkaSettings:
    """Where the broker is and who we are to it. Raises `Misconfigured` for what no client could connect with.

    Here and not at the first connection, where it would look like a broker that is down and be tried for ever.
    """
    file = common.kafka_sasl_password_file
    said = {
        "bootstrap": common.kafka_bootstrap,
        "client_id": client_id,
        "member": common.kafka_member or None,
        "security_protocol": common.kafka_security_protocol,
        "sasl_mechanism": common.kafka_sasl_mechanism,
        "sasl_username": common.kafka_sasl_username or None,
        "sasl_password": None if file is None else SecretStr(read_secret_file(file)),
        "ca_file": common.kafka_ca_file,
    }
    try:
        kafka = KafkaSettings.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = f"KEYFOB_KAFKA_{str(first['loc'][0]).upper()}"
        raise Misconfigured(f"{setting} is none of the choices: {first['msg']}.") from None
    _check_credentials(kafka)
    _check_encryption(kafka, common.mode)
    return kafka


def _check_encryption(kafka: KafkaSettings, mode: Mode) -> None:
    # No value is ever in a topic; who may use what, who used it and when is nobody else's business either.
    hosts = (urlsplit(f"//{broker.strip()}").hostname or "" for broker in kafka.bootstrap.split(","))
    if mode is Mode.PRODUCTION and kafka.security_protocol.endswith("PLAINTEXT") and not all(map(is_loopback, hosts)):
        raise Misconfigured(
            "KEYFOB_KAFKA_SECURITY_PROTOCOL must be SSL or SASL_SSL in production, but for brokers on this machine."
        )


def _check_credentials(kafka: KafkaSettings) -> None:
    if kafka.security_protocol.startswith("SASL") and not (kafka.sasl_username and kafka.sasl_password):
        raise Misconfigured("SASL needs KEYFOB_KAFKA_SASL_USERNAME and KEYFOB_KAFKA_SASL_PASSWORD_FILE.")
    if kafka.security_protocol.endswith("SSL"):
        try:
            kafka.ssl_context()
        except OSError as error:
            raise Misconfigured(f"{kafka.ca_file} holds no certificates: {cut(error.strerror)}.") from None


def pinned_authority(text: str, *, setting: str) -> Authority:
    """The authority of one pinned public key (base64url). Raises `Misconfigured` naming `setting`."""
    try:
        key = VerifyKey.from_base64(text)
    except ValueError:
        raise Misconfigured(f"{setting} must be an Ed25519 public key (base64url).") from None
    return Authority({key.key_id: key})


def pinned_resolvers(text: str) -> Resolvers:
    """Those who vouch for receipts of the profile `https`, by their public keys (base64url, comma separated)."""
    try:
        keys = [VerifyKey.from_base64(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise Misconfigured("KEYFOB_RESOLVER_KEYS must be public keys (base64url), comma separated.") from None
    return Resolvers({key.key_id: key for key in keys})


def admin_guard(admin: AdminSettings, session: aiohttp.ClientSession, *, mode: Mode) -> AdminGuard:
    """Who may administer: tokens of one issuer. Without an issuer nobody may.

    Raises `Misconfigured` for an address that keys will never be fetched from.
    """
    schemes = ("https://", "http://") if mode is Mode.DEVELOPMENT else ("https://",)
    if admin.issuer and not admin.jwks_uri.startswith(schemes):
        raise Misconfigured("KEYFOB_ADMIN_JWKS_URI must be the https address of the issuer's keys.")
    issuers = (
        [
            TrustedIssuer(
                idp_id=ADMIN_IDP,
                issuer=admin.issuer,
                jwks_uri=admin.jwks_uri,
                audience=admin.audience,
                subject_claim=admin.subject_claim,
                groups_claim=admin.groups_claim,
            )
        ]
        if admin.issuer
        else []
    )
    fetch = JwksFetcher(session, allow_http=mode is Mode.DEVELOPMENT)
    return AdminGuard(TokenVerifier(fetch_jwks=fetch, issuers=issuers), admin)


def nobody_guard() -> AdminGuard:
    """A guard that lets nobody in: for an application that only describes itself."""

    async def fetch(_: str) -> Mapping[str, Any]:
        raise Unavailable("Nobody may.")

    return AdminGuard(TokenVerifier(fetch_jwks=fetch), AdminSettings())


async def until_done(work: Callable[[], Coroutine[Any, Any, None]], *, what: str, tell: Tell) -> None:
    """Do one step of a start, again and again while something of ours is away; `tell` hears why."""
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_outage(error) and not isinstance(error, TopicsUnsuitable):
                raise
            # Into readiness as well as into the log: a start that waits is looked for there first.
            tell(f"{what}: {cut(error)}")
            _log.warning("start waits", what=what, error=cut(error))
            await asyncio.sleep(RETRY_AFTER_S)


async def topics_ready(
    kafka: KafkaSettings, *, made: Collection[Topic], read: Collection[Topic], replication: int, tell: Tell
) -> None:
    """Make the topics that we write, and wait for their writers to make those that we read."""

    async def make() -> None:
        await ensure_topics(kafka, made, replication=replication)

    async def present() -> None:
        await topics_present(kafka, read)

    # Ours first: if two services waited for each other's topics before making their own, neither would start.
    await until_done(make, what="topics", tell=tell)
    await until_done(present, what="topics of others", tell=tell)
