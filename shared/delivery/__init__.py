"""The resolve contract between a gateway's instance and a resolver: who asks, what is asked, what only it can open.

`assertion` proves the instance and binds the request, `replay` remembers assertions, `envelope` seals and signs
the answer, `messages` are the bodies, `enrolment` certifies an instance's keys.
"""

from shared.delivery.assertion import (
    AssertionRefusal,
    AssertionRefused,
    Request,
    VerifiedAssertion,
    make_assertion,
    verify_assertion,
)
from shared.delivery.enrolment import certify_sealing_key, verify_certificate
from shared.delivery.envelope import open_answer, request_hash, seal_answer
from shared.delivery.replay import ReplayWindow

__all__ = [
    "AssertionRefusal",
    "AssertionRefused",
    "ReplayWindow",
    "Request",
    "VerifiedAssertion",
    "certify_sealing_key",
    "make_assertion",
    "open_answer",
    "request_hash",
    "seal_answer",
    "verify_assertion",
    "verify_certificate",
]
