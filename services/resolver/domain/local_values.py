"""Local values: whose they are, what they are for, and what they are called where names must mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.crypto.framing import frame, sha256
from shared.custody.contexts import ValueContext
from shared.events.policy import LocalOwner

_ID_DOMAIN: Final = b"keyfob/value-id/1"
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Owner:
    """A subject of an identity provider, or a profile by its id (then without `idp_id`)."""

    kind: LocalOwner
    id: str
    idp_id: str = ""

    @property
    def text(self) -> str:
        """As the seal's context names it: one spelling for one owner, since no id has a line break."""
        return f"{self.kind}\n{self.idp_id}\n{self.id}"


@dataclass(frozen=True, slots=True)
class Slot:
    """The field of a server that a value is for, and whose value it is."""

    owner: Owner
    server_id: str
    field: str

    @property
    def id(self) -> str:
        """The value's id on topics and in records: the same for whoever asks, whatever was entered since.

        `value/` and the first 16 bytes, in hex, of SHA-256 over frame("keyfob/value-id/1", owner, server, field).
        """
        named = (self.owner.text, self.server_id, self.field)
        return f"value/{sha256(frame(_ID_DOMAIN, *(part.encode() for part in named)))[:_ID_BYTES].hex()}"

    def context(self, version: int) -> ValueContext:
        """What the seal of one version is bound to."""
        return ValueContext(self.owner.text, self.server_id, self.field, version)
