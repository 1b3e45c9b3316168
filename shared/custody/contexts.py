"""What a sealed value belongs to: bound into its seal, so that it opens nowhere else.

    value       frame("keyfob/value/1", owner, server, field, version)
    credential  frame("keyfob/credential/1", service, source, origin, ca)

`frame` is in `shared.crypto.framing`; text is UTF-8 as it is, without any normalisation; a version is an i64,
big-endian, as a bigint column holds it. The first part keeps the kinds apart: a value never opens as a credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from shared.crypto.framing import frame

VALUE_DOMAIN: Final = b"keyfob/value/1"
CREDENTIAL_DOMAIN: Final = b"keyfob/credential/1"


@dataclass(frozen=True, slots=True)
class ValueContext:
    """A version of what somebody entered for a server's field; `owner` names a subject or a profile, and which."""

    owner: str
    server: str
    field: str
    version: int

    def framed(self) -> bytes:
        """The bytes that are bound; `OverflowError` for a version that no bigint holds."""
        # Signed, so that a row whose version somebody made negative fails like every other changed row.
        version = self.version.to_bytes(8, "big", signed=True)
        return frame(VALUE_DOMAIN, self.owner.encode(), self.server.encode(), self.field.encode(), version)


@dataclass(frozen=True, slots=True)
class CredentialContext:
    """A service's own credential: for another origin, or under another CA, it has to be entered again.

    `origin` as `str(shared.egress.Origin)` spells it; `ca` is the SHA-256 in hex of the certificates that are trusted
    besides the system's, empty where there are none.
    """

    service: str
    source: str
    origin: str
    ca: str = ""

    def framed(self) -> bytes:
        """The bytes that are bound."""
        parts = (self.service, self.source, self.origin, self.ca)
        return frame(CREDENTIAL_DOMAIN, *(part.encode() for part in parts))


SealContext: TypeAlias = ValueContext | CredentialContext
