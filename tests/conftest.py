"""Fixtures for all tests."""

from hypothesis import settings

from tests.thoroughness import examples

pytest_plugins = ["tests.platform_fixtures"]

settings.register_profile("keyfob", max_examples=examples(100), deadline=None)
settings.load_profile("keyfob")
