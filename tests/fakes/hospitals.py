"""An installation with two hospitals, an agent for each, and one for both."""

from __future__ import annotations

import pytest

from tests.fakes.agent_side import teller
from tests.fakes.installation import Allowed, Installation, Reference

TOKEN_A, TOKEN_B, TOKEN_BOTH = "token-of-a", "token-of-b", "token-of-both"


@pytest.fixture
def first() -> Reference:
    return Reference("reference/a", b"value-of-a")


@pytest.fixture
def second() -> Reference:
    return Reference("reference/b", b"value-of-b")


@pytest.fixture
def installation(first: Reference, second: Reference) -> Installation:
    made = Installation()
    made.define("teller", teller())
    made.tokens[TOKEN_A] = Allowed("agent-a", {"hospital-a": {"DB_URL": first}})
    made.tokens[TOKEN_B] = Allowed("agent-b", {"hospital-b": {"DB_URL": second}})
    made.tokens[TOKEN_BOTH] = Allowed("agent-c", {"hospital-a": {"DB_URL": first}, "hospital-b": {"DB_URL": second}})
    return made
