"""The keys that a replica was given: found while it runs, and honest about files that are gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from services.resolver.custody.shelf import KeyNotHere, KeyShelf
from shared.crypto.key_files import KeyFileRefused
from shared.custody import Kek
from shared.custody.directory import key_path, save_new_key
from shared.custody.providers.file import FileProvider
from shared.custody.providers.port import KeyProviderUnavailable


@dataclass
class CountingProvider:
    """Counts what it opened; `away` when it should not answer."""

    opened: int = 0
    away: bool = False

    async def keep(self, kek: Kek) -> str:
        return await FileProvider().keep(kek)

    async def open(self, line: str) -> Kek:
        if self.away:
            raise KeyProviderUnavailable("away")
        self.opened += 1
        return await FileProvider().open(line)


async def a_key(directory: Path) -> str:
    kek = Kek.generate()
    await save_new_key(directory, kek, FileProvider(), recovery=None)
    return kek.key_id


async def test_each_file_is_opened_once(tmp_path: Path) -> None:
    provider = CountingProvider()
    shelf = KeyShelf(tmp_path, provider)
    one, two = await a_key(tmp_path), await a_key(tmp_path)
    for _ in range(3):
        await shelf.look()
    assert shelf.given == {one, two}
    assert provider.opened == 2


async def test_the_ring_seals_under_the_key_that_is_asked_for_and_opens_under_all(tmp_path: Path) -> None:
    shelf = KeyShelf(tmp_path, FileProvider())
    one, two = await a_key(tmp_path), await a_key(tmp_path)
    await shelf.look()
    assert shelf.ring(one).current.key_id == one
    assert shelf.ring(two).key_ids == {one, two}


async def test_a_key_that_comes_later_is_found_and_is_in_every_ring(tmp_path: Path) -> None:
    shelf = KeyShelf(tmp_path, FileProvider())
    one = await a_key(tmp_path)
    await shelf.look()
    assert shelf.ring(one).key_ids == {one}
    two = await a_key(tmp_path)
    with pytest.raises(KeyNotHere, match=two):
        shelf.ring(two)
    await shelf.look_again()
    assert shelf.ring(one).key_ids == {one, two}


async def test_a_file_that_is_gone_is_not_given_any_more_but_still_opens(tmp_path: Path) -> None:
    shelf = KeyShelf(tmp_path, FileProvider())
    one = await a_key(tmp_path)
    await shelf.look()
    key_path(tmp_path, one).unlink()
    await shelf.look_again()
    assert shelf.given == frozenset()
    assert shelf.ring(one).current.key_id == one


async def test_a_start_refuses_a_file_that_is_no_key_and_a_later_look_does_not_mind(tmp_path: Path) -> None:
    shelf = KeyShelf(tmp_path, FileProvider())
    one = await a_key(tmp_path)
    await shelf.look()
    bad = tmp_path / "bad.kek"
    bad.write_text("keyfob-kek-1-nonsense\n")
    bad.chmod(0o600)
    with pytest.raises(KeyFileRefused, match=r"bad\.kek"):
        await KeyShelf(tmp_path, FileProvider()).look()
    await shelf.look_again()
    assert shelf.given == {one}


async def test_a_provider_that_is_away_is_asked_again(tmp_path: Path) -> None:
    provider = CountingProvider(away=True)
    shelf = KeyShelf(tmp_path, provider)
    one = await a_key(tmp_path)
    with pytest.raises(KeyProviderUnavailable):
        await shelf.look()
    provider.away = False
    await shelf.look()
    assert shelf.given == {one}


def test_an_empty_one_has_no_ring(tmp_path: Path) -> None:
    assert KeyShelf(tmp_path, FileProvider()).any_ring() is None
