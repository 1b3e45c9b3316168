"""An instance proves itself in one way; what was written before there were two profiles is of the sealed one."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from services.policy.domain.enrolments import EnrolmentRecord
from shared.events.access import AccessRecord
from shared.events.policy import DeliveryProfile, InstanceRecord
from tests.unit.policy.stories import NOON

KEYS = ("signing_key", "sealing_key", "sealing_certificate")


def record(**said: Any) -> InstanceRecord:
    usual = {"id": "instance/1", "seq": 1, "revision": 1, "name": "gw", "allowed_servers": (), "enrolled_at": NOON}
    return InstanceRecord.model_validate(usual | said)


@pytest.mark.parametrize("delivery", list(DeliveryProfile))
def test_it_has_what_its_profile_needs_and_nothing_else(delivery: DeliveryProfile) -> None:
    """One that had both could be spoken for in the profile that it is not in."""
    names = (*KEYS, "certificate")
    good = (False, False, False, True) if delivery is DeliveryProfile.HTTPS else (True, True, True, False)
    for there in product((False, True), repeat=len(names)):
        said = {name: "x" for name, is_there in zip(names, there, strict=True) if is_there}
        if there == good:
            assert record(delivery=delivery, **said).delivery is delivery
        else:
            with pytest.raises(ValidationError):
                record(delivery=delivery, **said)


def test_an_unknown_profile_can_not_be_read() -> None:
    with pytest.raises(ValidationError):
        record(delivery="carrier-pigeon", **dict.fromkeys(KEYS, "x"))


def test_instances_enrolments_and_accesses_of_before_are_sealed() -> None:
    instance = json.loads(record(**dict.fromkeys(KEYS, "x")).to_json())
    for new in ("delivery", "certificate"):
        del instance[new]
    assert InstanceRecord.model_validate(instance).delivery is DeliveryProfile.SEALED
    promise = {"id": "enrolment/1", "name": "gw", "token_sha256": "0", "created_at": NOON, "expires_at": NOON}
    assert EnrolmentRecord.model_validate(promise).delivery is DeliveryProfile.SEALED
    access = {"id": "s/0", "stream": "s", "n": 0, "prev": "0", "phase": "refused", "at": NOON}
    known = {"resolution_id": "resolution/1", "policy_seq": 0, "catalog_seq": 0}
    assert AccessRecord.model_validate(access | known).delivery is DeliveryProfile.SEALED
