"""Keeping values at rest: sealed under keys of their own, which are wrapped by the installation's key.

`key_text` keys as text that a person can copy, `keks` the installation's key (KEK).
"""

from shared.custody.keks import Kek, KekWornOut, load_kek, save_new_kek
from shared.custody.key_text import KeyTextInvalid

__all__ = ["Kek", "KekWornOut", "KeyTextInvalid", "load_kek", "save_new_kek"]
