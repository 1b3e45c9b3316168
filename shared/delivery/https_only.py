"""Bodies of the profile `https`: what a gateway sends that has nothing but an HTTP library and a client certificate.

A resolve's request and answer are those of `messages`, the answer as it is there before it is sealed.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from shared.delivery.messages import KeyText, Name
from shared.events.contract import Count, Id, Instant
from shared.events.policy import VariableName
from shared.events.receipts import MOST_TOLD, EndedLease, Finding, GatewayReceipt, Offset

LARGEST_REQUEST: Final = 8192
"""Characters of a certificate request; one for an RSA key of 4096 bits has 1,700."""

Record = Annotated[str, Field(min_length=1, max_length=300)]


class _Request(BaseModel):
    """Refuses members that it does not know, as all requests do; above all an instance or a profile."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class CertificateEnrolRequest(_Request):
    """A new instance of the profile `https`, with the single-use token that an admin gave."""

    token: SecretStr = Field(min_length=1, max_length=256)
    name: Name
    certificate_request: Annotated[str, Field(min_length=1, max_length=LARGEST_REQUEST)]
    """PKCS #10 in PEM, as `openssl req -new` makes it. Only its public key counts."""


class CertificateEnrolAnswer(BaseModel):
    """What the instance keeps: its certificate, and where to go."""

    model_config = ConfigDict(frozen=True)

    instance_id: Id
    labels: dict[str, str]
    allowed_servers: tuple[str, ...]
    certificate: str
    """PEM; it and the key that the request was made with are the instance's identity."""
    resolvers: tuple[str, ...]
    """Origins that take this certificate."""
    policy_key: KeyText
    """Signs ticks and definitions, for whoever wants to verify them too."""


class PostedReceipt(_Request):
    """`keyfob.receipt.gateway.v1` without the instance, which the certificate names."""

    run: Id
    n: Count
    applied_offset: Offset
    dropped_offset: Offset
    open_leases: Count
    ended: Annotated[tuple[EndedLease, ...], Field(max_length=MOST_TOLD)] = ()
    released: Annotated[tuple[Record, ...], Field(max_length=MOST_TOLD)] = ()
    findings: Annotated[tuple[Finding, ...], Field(max_length=MOST_TOLD)] = ()
    variables: Annotated[tuple[VariableName, ...], Field(max_length=MOST_TOLD)] = ()
    at: Instant

    @model_validator(mode="after")
    def _fences_before_it_drops(self) -> PostedReceipt:
        if self.dropped_offset > self.applied_offset:
            message = "nothing is dropped that was not applied"
            raise ValueError(message)
        return self

    def of(self, instance_id: str) -> GatewayReceipt:
        """The receipt as it stands in the topic."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return GatewayReceipt(instance_id=instance_id, **said)
