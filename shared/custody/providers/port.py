"""The port to where an installation's key is kept, and the line of text that its file holds.

A provider that wraps keys elsewhere leaves this line, whose ciphertext is worth nothing without that other place:

    keyfob-wrapped-kek-1 <kind of provider> <KEK id> <ciphertext, as the provider writes it>

It is bound to the service and to the key's id where the provider can bind: the file of one service does not open as
another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, Self

from shared.crypto.key_files import KeyFileRefused
from shared.crypto.secret import SecretBytes
from shared.custody.keks import Kek
from shared.custody.key_lines import read_key_line, write_new_key_line
from shared.custody.key_text import KEY_BYTES, is_key_id
from shared.errors import KeyfobError, Unavailable

WRAPPED: Final = "keyfob-wrapped-kek-1"
_PARTS: Final = 4


class ProviderKind(StrEnum):
    """Where the installation's key is kept."""

    FILE = "file"
    TRANSIT = "transit"
    AWS_KMS = "aws-kms"


class KeyProviderUnavailable(Unavailable):
    """Raised when the place that wraps keys gave no usable answer now; asking again may help."""

    kind = "key-provider-unavailable"
    title = "The place that keeps the installation key did not answer"


class KeyProviderRefused(KeyfobError):
    """Raised when that place, or what is asked of it, has to be mended by somebody first; asking again is useless."""

    kind = "key-provider-refused"
    title = "The installation key can't be had from where it is kept"


class KekProvider(Protocol):
    """Turns a key into the line that its file holds, and back."""

    async def keep(self, kek: Kek) -> str:
        """The line for `kek`'s file.

        `KeyProviderUnavailable`: nothing was kept, ask again. `KeyProviderRefused`: a person has to mend something.
        """
        ...

    async def open(self, line: str) -> Kek:
        """Exactly the key that `keep` was given.

        `KeyProviderRefused`: the line is none of this provider's, was changed, belongs to another service or another
        wrapping key, or we may not. `KeyProviderUnavailable`: ask again.
        """
        ...


@dataclass(frozen=True, slots=True)
class WrappedKek:
    """A wrapped key's line, read; `key_id` is a claim until the key was opened."""

    kind: ProviderKind
    key_id: str
    ciphertext: str

    def to_line(self) -> str:
        """The line for the key's file."""
        return f"{WRAPPED} {self.kind} {self.key_id} {self.ciphertext}"

    @classmethod
    def from_line(cls, line: str, kind: ProviderKind) -> Self:
        """Read `to_line`'s form; `KeyProviderRefused`, which does not quote the line, for anything else."""
        parts = line.split(" ")
        if len(parts) != _PARTS or parts[0] != WRAPPED or not is_key_id(parts[2]):
            raise KeyProviderRefused(f"This is not the line of a key that is kept by {kind}.")
        if parts[1] != kind:
            raise KeyProviderRefused(f"This key is kept by another provider than {kind}: set the one it was made with.")
        return cls(kind, parts[2], parts[3])

    def restored(self, raw: bytearray) -> Kek:
        """Take over what was unwrapped; `KeyProviderRefused` unless it is the key that the line names."""
        kek = Kek(SecretBytes.taking(raw)) if len(raw) == KEY_BYTES else None
        if kek is None or kek.key_id != self.key_id:
            raise KeyProviderRefused(f"What {self.kind} unwrapped is another key than the file names.")
        return kek


async def load_kept(path: Path, provider: KekProvider) -> Kek:
    """Open the key whose line is in `path`; `KeyFileRefused` if others may read it, else as `KekProvider.open`."""
    line = read_key_line(path)
    try:
        return await provider.open(line)
    except KeyProviderRefused as problem:
        raise KeyFileRefused(f"{path}: {problem.detail}") from None


async def save_new_kept(path: Path, kek: Kek, provider: KekProvider) -> None:
    """Keep `kek`, write its line to a new file with mode 0600, and prove that it opens again.

    `KeyFileRefused` if there is a file, which stays as it is; else as `KekProvider.keep`.
    """
    line = await provider.keep(kek)
    # Before anything is sealed under a key that nobody could ever open again.
    if not (await provider.open(line)).matches(kek):
        raise KeyProviderRefused("What was kept opens to another key: nothing was written.")
    write_new_key_line(path, line)
