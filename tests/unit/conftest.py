"""Unit tests need no network: a socket other than the event loop's own pair is an error."""

import pytest
import pytest_socket


@pytest.fixture(autouse=True)
def _no_network() -> None:
    pytest_socket.disable_socket(allow_unix_socket=True)
