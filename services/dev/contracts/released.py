"""A released schema never changes: `schemas/released.json` holds the digest of each one that left the house."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(text: str) -> str:
    """SHA-256 in hex of a schema file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def incompatibilities(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a reader of `before` would stumble over in `after`, one sentence each; empty when it would not."""
    found = []
    old, new = before.get("properties", {}), after.get("properties", {})
    found += [f"property {name} is gone" for name in sorted(old.keys() - new.keys())]
    wanted = set(before.get("required", ())) - set(after.get("required", ()))
    found += [f"property {name} is no longer always there" for name in sorted(wanted & new.keys())]
    found += [
        f"property {name} has another type" for name in sorted(old.keys() & new.keys()) if _narrow(old[name], new[name])
    ]
    return found


def _narrow(old: dict[str, Any], new: dict[str, Any]) -> bool:
    shape = ("type", "enum", "$ref", "const", "anyOf", "format")
    return any(old.get(word) != new.get(word) for word in shape)


def broken_promises(schemas: Path, generated: dict[str, str]) -> list[str]:
    """Released files that would change, each with what a reader would notice and the mend."""
    register = schemas / "released.json"
    released: dict[str, str] = json.loads(register.read_text()) if register.exists() else {}
    complaints = []
    for path, promised in released.items():
        # A released schema that no model makes any more is a broken promise too.
        text = generated.get(path, "")
        if digest(text) == promised:
            continue
        committed = schemas / path
        # The committed file says what readers know; the register has only its digest.
        before = json.loads(committed.read_text()) if committed.exists() else {}
        reasons = incompatibilities(before, json.loads(text) if text else {}) or ["it reads differently"]
        complaints.append(
            f"{path} is released and may not change ({'; '.join(reasons)}): make a new version beside it."
        )
    return complaints
