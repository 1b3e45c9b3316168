"""Whose records count: policy's for `policy`, sync's for `catalog`, by keys that are pinned in the settings.

A signature is verified when its record is first used and the verdict kept on the record. What does not verify counts
as absent, and is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from services.resolver.domain.facts import Evidence
from shared import topics
from shared.bus.signatures import record_verifies
from shared.config import Misconfigured
from shared.crypto.signing import VerifyKey

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """`trust(evidence)` tells whether the owner of the record's topic signed it."""

    keys: Mapping[str, VerifyKey]
    """Topic to the key that signs its records. A topic without one is trusted in nothing."""

    def __call__(self, evidence: Evidence) -> bool:
        """The verdict, remembered: some 120 µs the first time, nothing afterwards."""
        if evidence.verdict is None:
            evidence.verdict = self._verify(evidence)
            # Once a record, not once a use: a planted record that is asked for often would fill the log.
            if not evidence.verdict:
                _log.error("record untrusted", topic=evidence.topic, record=evidence.key, type=evidence.type)
        return evidence.verdict

    def _verify(self, evidence: Evidence) -> bool:
        key = self.keys.get(evidence.topic)
        # The id first: after a change of keys the old one's records fail without any arithmetic.
        if key is None or evidence.signature is None or evidence.key_id != key.key_id:
            return False
        return record_verifies(
            key,
            evidence.signature,
            topic=evidence.topic,
            type_=evidence.type,
            key=evidence.key,
            payload=evidence.payload,
        )


def pinned(*, policy_key: str, catalog_key: str) -> Trust:
    """Trust in the two keys of the settings, base64url; `Misconfigured` for one that is missing or no key."""
    named = {topics.POLICY: ("KEYFOB_POLICY_KEY", policy_key), topics.CATALOG: ("KEYFOB_CATALOG_KEY", catalog_key)}
    try:
        return Trust({topic: VerifyKey.from_base64(text) for topic, (_, text) in named.items()})
    except ValueError:
        names = " and ".join(name for name, _ in named.values())
        raise Misconfigured(f"{names} must be set to the public keys (base64url) of policy and sync.") from None
