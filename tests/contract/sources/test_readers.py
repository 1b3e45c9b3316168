"""What every `SourceReader` must show, whatever is behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.sync.domain.observations import Denied, Found, Missing, Unreached
from services.sync.sources.kv2 import PAGE
from services.sync.sources.port import FolderDenied, Listed, Reached, SourceReader
from shared.events.catalog import ReferenceState
from tests.contract.sources.conftest import RealVault, Subject

VALUE = {"dsn": "postgresql://alice:hunter2@db/hospital"}
ODD_NAMES = [
    "Jürgen & Söhne/пароль",
    "日本/病院/密码",
    "a b/c+d/e%20f",
    "what?/who#/100%/a=b&c",
    "deep/er/and/deep/er/still",
    "emoji-🔑",
    "quote\"'`\\back",
    "semi;colon,comma",
]


async def found(subject: Subject, path: str, *, keys: bool = False) -> Found:
    seen = await subject.reader.read(subject.path(path), keys=keys)
    assert isinstance(seen, Found), seen
    return seen


async def listed(reader: SourceReader) -> list[str]:
    return [entry.path async for entry in reader.entries() if isinstance(entry, Listed)]


async def test_a_created_secret_is_listed_and_active(subject: Subject) -> None:
    await subject.vault.put("hospital-a/db", VALUE)
    seen = await found(subject, "hospital-a/db")
    assert (seen.version, seen.state) == (1, ReferenceState.ACTIVE)
    assert seen.born_at <= seen.created_at == seen.since
    assert await listed(subject.reader) == [subject.path("hospital-a/db")]


async def test_a_rotation_is_a_newer_version_of_the_same_entry(subject: Subject) -> None:
    await subject.vault.put("db", VALUE)
    before = await found(subject, "db")
    await subject.vault.put("db", VALUE)
    after = await found(subject, "db")
    assert (after.version, after.born_at) == (2, before.born_at)
    assert after.created_at > before.created_at
    assert after.order > before.order


async def test_delete_undelete_and_destroy_are_told_apart(subject: Subject) -> None:
    await subject.vault.put("db", VALUE)
    await subject.vault.delete("db")
    deleted = await found(subject, "db", keys=True)
    assert (deleted.state, deleted.version) == (ReferenceState.PENDING_DELETION, 1)
    assert deleted.since >= deleted.created_at
    await subject.vault.undelete("db", 1)
    assert (await found(subject, "db")).state is ReferenceState.ACTIVE
    await subject.vault.destroy("db", 1)
    assert (await found(subject, "db", keys=True)).state is ReferenceState.REMOVED


async def test_a_rename_is_a_new_path_and_a_missing_one(subject: Subject) -> None:
    await subject.vault.put("old", VALUE)
    await subject.vault.put("new", VALUE)
    await subject.vault.forget("old")
    assert await subject.reader.read(subject.path("old"), keys=True) == Missing(subject.path("old"))
    assert await listed(subject.reader) == [subject.path("new")]


async def test_an_entry_that_was_made_again_is_younger(subject: Subject) -> None:
    await subject.vault.put("db", VALUE)
    await subject.vault.put("db", VALUE)
    before = await found(subject, "db")
    await subject.vault.forget("db")
    await subject.vault.put("db", VALUE)
    after = await found(subject, "db")
    assert after.version == 1
    assert after.order > before.order


async def test_a_secret_without_any_version_is_removed(subject: Subject) -> None:
    await subject.vault.describe("empty", owner="ada")
    assert (await found(subject, "empty", keys=True)).state is ReferenceState.REMOVED


async def test_owner_and_description_come_from_custom_metadata(subject: Subject) -> None:
    await subject.vault.put("db", VALUE)
    await subject.vault.describe("db", owner="Dr. Ada", description="the ward's database", other="x")
    seen = await found(subject, "db")
    assert (seen.owner, seen.description) == ("Dr. Ada", "the ward's database")


async def test_names_inside_are_seen_where_they_may_be_and_never_values(subject: Subject) -> None:
    await subject.vault.put("db", {"user": "alice", "password": "hunter2", "ключ/ü": "x"})
    seen = await found(subject, "db", keys=True)
    assert seen.keys == (("password", "user", "ключ/ü") if subject.vault.keys_visible else None)
    assert "hunter2" not in repr(seen)


async def test_a_closed_path_is_denied_and_not_missing(subject: Subject) -> None:
    await subject.vault.put("open", VALUE)
    await subject.vault.put("closed", VALUE)
    await subject.vault.deny("closed")
    assert await subject.reader.read(subject.path("closed"), keys=True) == Denied(subject.path("closed"))
    assert isinstance(await subject.reader.read(subject.path("open"), keys=True), Found)


async def test_a_closed_folder_hides_what_is_in_it_and_nothing_else(subject: Subject) -> None:
    await subject.vault.put("open", VALUE)
    await subject.vault.put("ward/db", VALUE)
    await subject.vault.deny("ward/")
    entries = [entry async for entry in subject.reader.entries()]
    assert FolderDenied(subject.path("ward/")) in entries
    assert [entry.path for entry in entries if isinstance(entry, Listed)] == [subject.path("open")]
    assert isinstance(await subject.reader.read(subject.path("ward/db"), keys=True), Denied)


@pytest.mark.parametrize("trouble", ["away", "revoked"])
async def test_no_answer_is_neither_missing_nor_denied(subject: Subject, trouble: str) -> None:
    await subject.vault.put("db", VALUE)
    reader: SourceReader = getattr(subject, trouble)
    assert isinstance(await reader.read(subject.path("db"), keys=True), Unreached)
    assert isinstance(await reader.check(), Unreached)
    entries = [entry async for entry in reader.entries()]
    assert len(entries) == 1
    assert isinstance(entries[0], Unreached)


async def test_a_source_that_answers_is_reached(subject: Subject) -> None:
    await subject.vault.put("db", VALUE)
    assert await subject.reader.check() == Reached()


async def test_names_of_all_kinds_survive_the_way(subject: Subject) -> None:
    for name in ODD_NAMES:
        await subject.vault.put(name, VALUE)
    assert sorted(await listed(subject.reader)) == sorted(subject.path(name) for name in ODD_NAMES)
    for name in ODD_NAMES:
        assert (await found(subject, name)).version == 1


async def test_a_thousand_entries_come_once_each(subject: Subject) -> None:
    names = [f"{folder}/{number:04}" for folder in ("many", "few") for number in range(1000 if folder == "many" else 3)]
    for start in range(0, len(names), PAGE // 10):
        await asyncio.gather(*(subject.vault.put(name, VALUE) for name in names[start : start + PAGE // 10]))
    assert sorted(await listed(subject.reader)) == sorted(subject.path(name) for name in names)


async def test_a_version_that_expires_is_active_until_then(subject: Subject) -> None:
    if not isinstance(subject.vault, RealVault):
        pytest.skip("the fake's versions do not expire")
    await subject.vault.put("db", VALUE)
    await subject.vault.expire("db", "1h")
    await subject.vault.put("db", VALUE)
    seen = await found(subject, "db")
    assert seen.state is ReferenceState.ACTIVE
    assert seen.since < datetime.now(UTC) + timedelta(minutes=1)
