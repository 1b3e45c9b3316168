"""What an instance's signing key says about its sealing key, so that nobody can slip in another one.

    certificate = sign("keyfob/sealing-key/1", sealing key's 32 public bytes)

framed and signed as in `shared.crypto.signing`. It also proves, at enrolment, that the sender holds the signing
key. Policy verifies it before it enrols, the resolver before it first seals to the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.crypto.framing import from_base64url, to_base64url
from shared.crypto.sealing import seal
from shared.errors import SignatureInvalid

if TYPE_CHECKING:
    from shared.crypto.sealing import SealingPublicKey
    from shared.crypto.signing import SigningKey, VerifyKey

DOMAIN: Final = b"keyfob/sealing-key/1"


def certify_sealing_key(signing_key: SigningKey, sealing_key: SealingPublicKey) -> str:
    """Certify an instance's sealing key with its signing key; base64url."""
    return to_base64url(signing_key.sign(DOMAIN, sealing_key.raw))


def verify_certificate(certificate: str, *, signing_key: VerifyKey, sealing_key: SealingPublicKey) -> None:
    """Raise `SignatureInvalid` unless the holder of `signing_key` certified exactly this sealing key.

    Nor is a key accepted that nothing can be sealed to: a point of low order (RFC 7748 §6.1).
    """
    try:
        signature = from_base64url(certificate)
    except ValueError:
        raise SignatureInvalid from None
    signing_key.verify(signature, DOMAIN, sealing_key.raw)
    try:
        # Found out by trying: there is no list of such points that a reader could check.
        seal(b"", sealing_key, context=DOMAIN)
    except ValueError:
        raise SignatureInvalid from None
