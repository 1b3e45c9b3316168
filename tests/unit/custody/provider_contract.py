"""What every keeper of installation keys must show, whatever is behind it: collected where a fixture gives one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.crypto.key_files import KeyFileRefused
from shared.custody.keks import Kek
from shared.custody.providers.port import (
    KekProvider,
    KeyProviderRefused,
    KeyProviderUnavailable,
    load_kept,
    save_new_kept,
)


def written(path: Path) -> bool:
    return path.exists()


class ProviderContract:
    """What all of them show. Give it a fixture `provider`."""

    async def test_exactly_the_key_that_was_kept_is_opened(self, provider: KekProvider) -> None:
        for _ in range(3):
            kek = Kek.generate()
            opened = await provider.open(await provider.keep(kek))
            assert opened.matches(kek)
            assert opened.key_id == kek.key_id

    async def test_what_is_kept_is_one_line_that_a_key_file_holds(self, provider: KekProvider, tmp_path: Path) -> None:
        kek, path = Kek.generate(), tmp_path / "sync.kek"
        await save_new_kept(path, kek, provider)
        assert path.stat().st_mode & 0o7777 == 0o600
        assert path.read_text().count("\n") == 1
        assert (await load_kept(path, provider)).matches(kek)

    async def test_the_id_stands_in_the_line(self, provider: KekProvider) -> None:
        kek = Kek.generate()
        assert kek.key_id in await provider.keep(kek)

    async def test_a_file_is_never_written_over(self, provider: KekProvider, tmp_path: Path) -> None:
        first, path = Kek.generate(), tmp_path / "sync.kek"
        await save_new_kept(path, first, provider)
        with pytest.raises(KeyFileRefused, match="never written over"):
            await save_new_kept(path, Kek.generate(), provider)
        assert (await load_kept(path, provider)).matches(first)

    async def test_a_line_that_was_changed_anywhere_is_refused(self, provider: KekProvider) -> None:
        line = await provider.keep(Kek.generate())
        other = await provider.keep(Kek.generate())
        at = line.index(":") + 6 if ":" in line else len(line) - 20
        exchanged = "A" if line[at] != "A" else "B"
        mixed = line.replace(line.split(" ")[-1], other.split(" ")[-1]) if " " in line else line[:20] + other[20:]
        for wrong in ("", "hunter2", line[:-8], line + "A", line + " A", line[:at] + exchanged + line[at + 1 :], mixed):
            with pytest.raises(KeyProviderRefused) as refused:
                await provider.open(wrong)
            assert refused.value.__cause__ is None
            assert "hunter2" not in str(refused.value)

    async def test_what_is_no_key_is_refused_by_the_files_name(self, provider: KekProvider, tmp_path: Path) -> None:
        path = tmp_path / "sync.kek"
        path.touch(mode=0o600)
        path.write_text("hunter2\n")
        with pytest.raises(KeyFileRefused, match=r"sync\.kek: ") as refused:
            await load_kept(path, provider)
        assert "hunter2" not in str(refused.value)


@dataclass(frozen=True, slots=True)
class Keepers:
    """A provider that wraps keys elsewhere, and the same one in other circumstances."""

    provider: KekProvider
    other_service: KekProvider
    """The same place and wrapping key, set up for another service."""
    other_key: KekProvider
    """The same place and service, with another wrapping key."""
    denied: KekProvider
    """With a credential that may not use the wrapping key."""
    away: KekProvider
    """Where nobody answers."""


class WrappingProviderContract(ProviderContract):
    """What those that wrap keys elsewhere show besides. Give it a fixture `keepers`."""

    @pytest.fixture
    def provider(self, keepers: Keepers) -> KekProvider:
        return keepers.provider

    async def test_the_key_of_one_service_is_not_anothers(self, keepers: Keepers) -> None:
        line = await keepers.provider.keep(Kek.generate())
        with pytest.raises(KeyProviderRefused):
            await keepers.other_service.open(line)

    async def test_another_wrapping_key_does_not_open(self, keepers: Keepers) -> None:
        line = await keepers.provider.keep(Kek.generate())
        with pytest.raises(KeyProviderRefused):
            await keepers.other_key.open(line)

    async def test_without_the_right_to_it_nothing_is_kept_or_opened(self, keepers: Keepers) -> None:
        line, denied = await keepers.provider.keep(Kek.generate()), keepers.denied
        with pytest.raises(KeyProviderRefused):
            await denied.open(line)
        with pytest.raises(KeyProviderRefused):
            await denied.keep(Kek.generate())

    async def test_where_nobody_answers_asking_again_may_help(self, keepers: Keepers, tmp_path: Path) -> None:
        line, away = await keepers.provider.keep(Kek.generate()), keepers.away
        with pytest.raises(KeyProviderUnavailable) as unavailable:
            await away.open(line)
        assert unavailable.value.retry_after_s > 0
        with pytest.raises(KeyProviderUnavailable):
            await save_new_kept(tmp_path / "kek", Kek.generate(), away)
        assert not written(tmp_path / "kek")
