"""The installation's key as text in its file: the file's mode is the protection."""

from __future__ import annotations

from dataclasses import dataclass

from shared.custody.keks import Kek
from shared.custody.key_text import KeyTextInvalid
from shared.custody.providers.port import KeyProviderRefused


@dataclass(frozen=True, slots=True)
class FileProvider:
    """`KekProvider` that needs nobody else."""

    async def keep(self, kek: Kek) -> str:
        """See the port."""
        return kek.to_text()

    async def open(self, line: str) -> Kek:
        """See the port."""
        try:
            return Kek.from_text(line)
        except KeyTextInvalid as problem:
            raise KeyProviderRefused(problem.detail) from None
