"""A bulk load keeps the collector out only while it lasts."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from shared.projection.bulk import collector_aside


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


def test_it_is_out_during_the_load_and_back_afterwards() -> None:
    gc.enable()
    with collector_aside():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_back_after_a_load_that_failed() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="x"), collector_aside():
        raise ValueError("x")
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    with collector_aside():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_not_walked_over_again() -> None:
    gc.unfreeze()
    with collector_aside():
        loaded = [{"key": str(number)} for number in range(1000)]
    assert gc.get_freeze_count() >= len(loaded)
