"""Fixtures for all tests."""

import gc

from hypothesis import settings

from tests.thoroughness import examples

pytest_plugins = ["tests.platform_fixtures"]

settings.register_profile("keyfob", max_examples=examples(100), deadline=None)
settings.load_profile("keyfob")

# Modules and collected tests stay to the end: looking for garbage among them again and again took a sixth of a run.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage only in what the tests make, and not after each 700 objects."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()
