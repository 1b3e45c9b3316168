"""A shell whose services are in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.cli import session
from tests.unit.cli.shell import FakeServices, Shell


@pytest.fixture(autouse=True)
def _this_process_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What turns core dumps off can't be taken back, and this process runs other tests too."""
    monkeypatch.setattr("services.__main__.disable_core_dumps", lambda: None)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    fake = FakeServices()
    session.api.cache_clear()
    monkeypatch.setattr("services.cli.session.load_connection", lambda: None)
    monkeypatch.setattr("services.cli.session.Api", lambda _: fake)
    yield Shell(fake, capsys, monkeypatch)
    session.api.cache_clear()
