"""Keeping values at rest: sealed under keys of their own, which are wrapped by the installation's key.

`keks` the installation's key (KEK) and `key_text` its text, `contexts` what a value belongs to, `seals` values and
`wraps` their keys, `keyring` the keys of one service, `recovery` what is left when they are lost, `providers` where
they are kept. Byte layouts stand in the docstrings; the reasons are in docs/decisions/0012.
"""

from shared.custody.contexts import CredentialContext, SealContext, ValueContext
from shared.custody.keks import Kek, KekWornOut, load_kek, save_new_kek
from shared.custody.key_text import KeyTextInvalid
from shared.custody.keyring import AlreadyCurrent, Keyring, KeysMissing, Rewrapped
from shared.custody.recovery import RecoveryKey, RecoveryPublicKey, read_recovery_ids, recover, seal_for_recovery
from shared.custody.seals import LARGEST_VALUE, SealedValue, open_at_rest, seal_at_rest
from shared.custody.wraps import kek_id_of, rewrap

__all__ = [
    "LARGEST_VALUE",
    "AlreadyCurrent",
    "CredentialContext",
    "Kek",
    "KekWornOut",
    "KeyTextInvalid",
    "Keyring",
    "KeysMissing",
    "RecoveryKey",
    "RecoveryPublicKey",
    "Rewrapped",
    "SealContext",
    "SealedValue",
    "ValueContext",
    "kek_id_of",
    "load_kek",
    "open_at_rest",
    "read_recovery_ids",
    "recover",
    "rewrap",
    "save_new_kek",
    "seal_at_rest",
    "seal_for_recovery",
]
