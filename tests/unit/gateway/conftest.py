"""The fixtures of an installation with two hospitals, and of the hall in front of it."""

from tests.fakes.hospitals import TOKEN_A, TOKEN_B, TOKEN_BOTH, first, installation, second
from tests.unit.gateway.hall import hall

__all__ = ["TOKEN_A", "TOKEN_B", "TOKEN_BOTH", "first", "hall", "installation", "second"]
