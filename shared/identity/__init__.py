"""Who a value is for: subjects' OIDC access tokens, verified against the issuers that an admin trusts.

`tokens` verifies, `signers` keeps an issuer's keys, `jwks` fetches them.
"""

from shared.identity.jwks import JwksFetcher
from shared.identity.tokens import Subject, TokenRefusal, TokenVerifier, TrustedIssuer

__all__ = ["JwksFetcher", "Subject", "TokenRefusal", "TokenVerifier", "TrustedIssuer"]
