"""Only the holder of an instance's signing key can name its sealing key."""

import pytest

from shared.crypto import SealingKey, SealingPublicKey, SigningKey
from shared.crypto.framing import to_base64url
from shared.delivery import certify_sealing_key, verify_certificate
from shared.errors import SignatureInvalid

SIGNING, SEALING = SigningKey.generate(), SealingKey.generate()
CERTIFICATE = certify_sealing_key(SIGNING, SEALING.public)


def test_a_certified_key_verifies() -> None:
    verify_certificate(CERTIFICATE, signing_key=SIGNING.verify_key, sealing_key=SEALING.public)


@pytest.mark.parametrize(
    ("certificate", "signing", "sealing"),
    [
        (CERTIFICATE, SIGNING, SealingKey.generate()),
        (CERTIFICATE, SigningKey.generate(), SEALING),
        (certify_sealing_key(SigningKey.generate(), SEALING.public), SIGNING, SEALING),
        (to_base64url(SIGNING.sign(b"another use", SEALING.public.raw)), SIGNING, SEALING),
        ("", SIGNING, SEALING),
        ("not base64url!", SIGNING, SEALING),
        (CERTIFICATE + "==", SIGNING, SEALING),
    ],
    ids=[
        "another sealing key",
        "another signer",
        "a third party's",
        "another use",
        "nothing",
        "no base64url",
        "padded",
    ],
)
def test_anything_else_is_refused(certificate: str, signing: SigningKey, sealing: SealingKey) -> None:
    with pytest.raises(SignatureInvalid):
        verify_certificate(certificate, signing_key=signing.verify_key, sealing_key=sealing.public)


@pytest.mark.parametrize("low", [bytes(32), b"\x01" + bytes(31)], ids=["zero", "one"])
def test_a_sealing_key_that_nothing_can_be_sealed_to_is_refused_although_it_is_certified(low: bytes) -> None:
    """Points of low order (RFC 7748 §6.1): sealing to one fails, and an answer would end in a failure of ours."""
    public = SealingPublicKey(low)
    with pytest.raises(SignatureInvalid):
        verify_certificate(certify_sealing_key(SIGNING, public), signing_key=SIGNING.verify_key, sealing_key=public)
