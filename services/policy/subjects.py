"""Subjects' tokens, verified against the identity providers that policy itself keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.policy.commands.choices import Person
from services.policy.domain.ports import Ledger
from shared.events.policy import IdpRecord
from shared.identity.tokens import TokenVerifier, TrustedIssuer

_MOST_IDPS: Final = 1000


@dataclass(frozen=True, slots=True)
class Subjects:
    """Verifies a token with what stands now: an identity provider that was deleted vouches for nobody any more."""

    ledger: Ledger
    verifier: TokenVerifier

    async def person(self, token: str) -> Person:
        """Whom a token speaks for; `TokenInvalid` or `Unavailable`."""
        # Read for every token: a replica that remembered them would go on trusting one that another replica deleted.
        async with self.ledger.read() as reading:
            page = await reading.page(IdpRecord, links=(), after=None, limit=_MOST_IDPS)
        # Nothing is awaited between these two: another request's older list can't slip in before the issuer is chosen.
        self.verifier.replace_issuers(map(trusted, page.items))
        subject = await self.verifier.verify(token)
        return Person(idp_id=subject.idp_id, subject=subject.subject, groups=subject.groups)


def trusted(idp: IdpRecord) -> TrustedIssuer:
    """An entry of policy as the verifier takes it."""
    return TrustedIssuer(
        idp_id=idp.id,
        issuer=idp.issuer,
        jwks_uri=idp.jwks_uri,
        audience=idp.audience,
        subject_claim=idp.subject_claim,
        groups_claim=idp.groups_claim,
    )
