"""What a stack tells its processes, and how its start fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.dev.platform import PlatformFailure
from services.dev.stack import Stack
from services.dev.stack.environments import Environments
from services.dev.stack.layout import Layout


def test_a_later_setting_takes_the_place_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Environments, "port", lambda *_: 1)
    environments = Environments(
        Layout(tmp_path),
        "http://issuer",
        overrides={"KEYFOB_MODE": "production", "KEYFOB_AUDIT_HOST": "::1"},
        deployments={"audit": {"KEYFOB_MODE": "theirs"}},
    )
    assert environments.of("notifier")["KEYFOB_MODE"] == "production"
    theirs = environments.of("audit")
    assert (theirs["KEYFOB_MODE"], theirs["KEYFOB_AUDIT_HOST"]) == ("theirs", "::1")


class Platform:
    """One that fails as soon as it is started."""

    async def start(self) -> None:
        await asyncio.sleep(0)
        raise PlatformFailure("no luck")

    async def stop(self) -> None:
        pass


async def test_a_start_that_fails_has_ended_the_others_before_it_stops_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    stack = Stack(tmp_path)

    async def start_issuer(_: Stack) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            order.append("issuer's start ended")

    async def stop_all() -> None:
        order.append("stopped")

    monkeypatch.setattr(Stack, "_prepare", lambda made: setattr(made, "platform", Platform()))
    monkeypatch.setattr(Stack, "_start_issuer", start_issuer)
    monkeypatch.setattr(stack.supervisor, "stop_all", stop_all)
    with pytest.raises(PlatformFailure, match="no luck"):
        async with stack:
            pass
    assert order == ["issuer's start ended", "stopped"]
