"""Fixtures for all tests."""

pytest_plugins = ["tests.platform_fixtures"]
