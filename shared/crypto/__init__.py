"""Signatures, seals, canonical bytes, secrets in memory: small functions over `cryptography`.

`signing` Ed25519 with domains, `sealing` HPKE, `canonical` RFC 8785, `secret` values in memory, `framing`
unambiguous bytes, `private_keys` and `key_files` how keys are kept.
"""

from shared.crypto.canonical import canonical, digest
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.sealing import SealingKey, SealingPublicKey, seal
from shared.crypto.secret import SecretBytes, disable_core_dumps
from shared.crypto.signing import SigningKey, VerifyKey

__all__ = [
    "KeyFileRefused",
    "SealingKey",
    "SealingPublicKey",
    "SecretBytes",
    "SigningKey",
    "VerifyKey",
    "canonical",
    "digest",
    "disable_core_dumps",
    "seal",
]
