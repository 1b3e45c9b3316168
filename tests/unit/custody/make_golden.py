"""Writes the golden files: `python -m tests.unit.custody.make_golden`.

What was once written must open for ever, so a file that exists is left as it is. Keys are counting bytes: nobody will
mistake them for real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from shared.crypto.secret import SecretBytes
from shared.custody.contexts import CredentialContext, SealContext, ValueContext
from shared.custody.keks import Kek
from shared.custody.recovery import RecoveryKey, seal_for_recovery
from shared.custody.seals import SealedValue, seal_at_rest

GOLDEN: Final = Path(__file__).parent / "golden"
SEED: Final = bytes(range(32))
VALUE_CONTEXT: Final = ValueContext("profile/hospital-a", "server/patients-db", "DB_URL", 3)
CREDENTIAL_CONTEXT: Final = CredentialContext("sync", "source/main", "https://vault.example:8200", "ab" * 32)
VALUE: Final = "postgresql://golden:für-immer@db.example/patients"


def counting_kek(first: int = 0) -> Kek:
    """A key of counting bytes."""
    return Kek(SecretBytes(bytes(range(first, first + 32))))


def _sealed(context: SealContext) -> dict[str, str]:
    with SecretBytes(VALUE.encode()) as value:
        made: SealedValue = seal_at_rest(value, context=context, kek=counting_kek())
    return {"kek": SEED.hex(), "sealed": made.sealed.hex(), "wrap": made.wrap.hex(), "value": VALUE}


def _recovery() -> dict[str, str]:
    key = RecoveryKey(SecretBytes(bytes(range(64, 96))))
    texts = {"recovery_key": key.to_text(), "recovery_public": key.public.to_text()}
    return texts | {"blob": seal_for_recovery(counting_kek(), key.public).hex()}


def _write(name: str, content: dict[str, Any]) -> None:
    path = GOLDEN / name
    if not path.exists():
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Write what is missing."""
    _write("sealed-value-1.json", _sealed(VALUE_CONTEXT))
    _write("sealed-credential-1.json", _sealed(CREDENTIAL_CONTEXT))
    _write("recovery-1.json", _recovery())


if __name__ == "__main__":
    main()
