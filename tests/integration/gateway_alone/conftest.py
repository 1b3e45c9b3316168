"""A gateway with real children and everything else played: the fixtures of an installation with two hospitals."""

from tests.fakes.hospitals import TOKEN_A, TOKEN_B, TOKEN_BOTH, first, installation, second

__all__ = ["TOKEN_A", "TOKEN_B", "TOKEN_BOTH", "first", "installation", "second"]
