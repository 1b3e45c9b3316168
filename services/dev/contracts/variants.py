"""More examples of contracts that come in several shapes, by the name of the file that shows each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from shared.events import policy
from shared.events.contract import Contract

_DIGEST: Final = "3f2a9d1c" * 8


def _binding(origin: policy.Origin) -> policy.BindingRecord:
    return policy.BindingRecord(
        id="binding/7e21",
        seq=11,
        revision=1,
        profile_id="profile/5b1e",
        server_id="server/77aa",
        field="DB_URL",
        origin=origin,
        definition_digest=_DIGEST,
    )


VARIANTS: Final[dict[str, Contract]] = {
    "keyfob.policy.binding.v1.local": _binding(policy.LocalValueOrigin(owner=policy.LocalOwner.SUBJECT)),
    "keyfob.policy.binding.v1.environment": _binding(
        policy.EnvironmentOrigin(variable="HOSPITAL_DB_URL", labels={"env": "prod"})
    ),
    "keyfob.policy.instance.v1.https": policy.InstanceRecord(
        id="instance/9d01",
        seq=12,
        revision=1,
        name="gateway-8",
        delivery=policy.DeliveryProfile.HTTPS,
        certificate="MIIBtzCCAV2gAwIBAgIU",
        labels={"env": "prod"},
        allowed_servers=("server/77aa",),
        enrolled_at=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
    ),
}
