"""`keyfob keys`: keys are made in files, changed by asking, and what losing one means is said in plain words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.cli.commands import keys as module
from shared.custody import Kek, RecoveryKey, load_kek, recover
from shared.custody.directory import key_path, read_recovery_blob
from tests.unit.cli.shell import Shell

OLD, NEW = "a" * 16, "b" * 16


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    for name in ("KEYS_DIR", "KEY_PROVIDER"):
        monkeypatch.delenv(f"KEYFOB_RESOLVER_{name}", raising=False)


def keys_now(done: int = 0, *, finished: bool = False, damaged: int = 0, **more: Any) -> dict[str, Any]:
    at = "2026-11-20T08:00:00+00:00"
    key = {"n": 1, "key_id": OLD, "state": "former", "since": at, "values": 5 - done, "recovery_key_id": None}
    rotation = {"key_id": NEW, "total": 5, "done": done, "damaged": damaged, "finished_at": at if finished else None}
    return {
        "keys": [
            key | {"retired_at": at},
            key | {"n": 2, "key_id": NEW, "state": "current", "values": done, "recovery_key_id": "c" * 16},
        ],
        "replicas": [{"replica_id": "resolver-1", "key_ids": [OLD, NEW], "heard_s": 0.1}],
        "rotation": rotation,
        "waiting": [],
        "missing": [],
    } | more


class TestGenerating:
    def test_the_key_is_in_a_file_of_its_own_and_losing_it_is_said_to_be_for_good(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        said = shell.run("keys", "generate", "--directory", str(tmp_path / "keys"))
        (path,) = (tmp_path / "keys").iterdir()
        kek = load_kek(path)
        assert path == key_path(tmp_path / "keys", kek.key_id)
        assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
        assert "IF THIS FILE IS LOST" in said
        assert "lost for good" in said
        assert kek.key_id in said
        assert kek.to_text() not in said

    def test_with_a_recovery_key_it_can_be_restored(self, shell: Shell, tmp_path: Path) -> None:
        safe = RecoveryKey.generate()
        said = shell.run(
            "keys", "generate", "--directory", str(tmp_path), "--recovery", safe.public.to_text(), "--json"
        )
        made = json.loads(said)
        blob = read_recovery_blob(tmp_path, made["key_id"])
        assert blob is not None
        assert recover(blob, safe).matches(load_kek(Path(made["file"])))
        assert made["recovery_key_id"] == safe.public.key_id

    def test_the_directory_is_where_the_resolver_looks(
        self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYFOB_RESOLVER_KEYS_DIR", str(tmp_path))
        shell.run("keys", "generate")
        assert len(list(tmp_path.iterdir())) == 1

    def test_without_any_directory_nothing_is_made(self, shell: Shell) -> None:
        assert "--directory" in shell.fails("keys", "generate")

    def test_a_private_recovery_key_in_the_wrong_place_is_refused_and_not_repeated(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        private = RecoveryKey.generate().to_text()
        said = shell.fails("keys", "generate", "--directory", str(tmp_path), "--recovery", private)
        assert "public half" in said
        assert private not in said
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_can_not_be_made_is_a_sentence(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "Can't make" in shell.fails("keys", "generate", "--directory", str(tmp_path / "file" / "keys"))

    def test_a_provider_that_is_set_halfway_is_a_sentence(
        self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYFOB_RESOLVER_KEY_PROVIDER", "transit")
        code, _, said = shell.process("keys", "generate", "--directory", str(tmp_path))
        assert code == 78
        assert "transit key's name" in said

    def test_a_recovery_key_goes_to_a_file_and_only_its_public_half_onto_the_screen(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        said = shell.run("keys", "generate-recovery", str(tmp_path / "safe"))
        key = RecoveryKey.load(tmp_path / "safe")
        assert (tmp_path / "safe").stat().st_mode & 0o777 == 0o600
        assert key.public.to_text() in "".join(said.split())
        assert key.to_text() not in "".join(said.split())
        assert "exists already" in shell.fails("keys", "generate-recovery", str(tmp_path / "safe"))


class TestRotating:
    def test_it_asks_once_and_watches_until_it_is_done(self, shell: Shell) -> None:
        shell.services.answers["POST", "/v1/keys/rotations"] = keys_now(0)
        shell.services.answers["GET", "/v1/keys"] = [keys_now(2), keys_now(5, finished=True)]
        said = shell.run("keys", "rotate", NEW)
        assert shell.services.bodies("POST") == [{"key_id": NEW}]
        assert f"All values are under {NEW}: 5 were brought to it" in said

    def test_without_an_id_none_is_sent(self, shell: Shell) -> None:
        shell.services.answers["POST", "/v1/keys/rotations"] = keys_now(5, finished=True)
        shell.run("keys", "rotate", "--json")
        assert shell.services.bodies("POST") == [{}]

    def test_whoever_stops_watching_is_told_that_it_goes_on(self, shell: Shell) -> None:
        shell.services.answers["POST", "/v1/keys/rotations"] = keys_now(1)
        assert "under way" in shell.run("keys", "rotate", "--wait-s", "0")

    def test_values_that_did_not_open_are_told_of(self, shell: Shell) -> None:
        shell.services.answers["POST", "/v1/keys/rotations"] = keys_now(4, finished=True, damaged=1)
        assert "1 did not open" in " ".join(shell.run("keys", "rotate").split())


def test_retiring_says_that_older_backups_still_need_the_key(shell: Shell) -> None:
    shell.services.answers["POST", "/v1/keys/retirements"] = keys_now(5, finished=True)
    said = shell.run("keys", "retire", OLD)
    assert shell.services.bodies("POST") == [{"key_id": OLD}]
    assert "BACKUPS OLDER THAN 2026-11-20T08:00:00+00:00 STILL NEED IT" in said


class TestStatus:
    def test_it_shows_ids_ages_and_counts(self, shell: Shell) -> None:
        shell.services.answers["GET", "/v1/keys"] = keys_now(2)
        said = shell.run("keys", "status")
        for one in (OLD, NEW, "former", "current", "days", "resolver-1"):
            assert one in said

    def test_scripts_get_all_of_it(self, shell: Shell) -> None:
        shell.services.answers["GET", "/v1/keys"] = keys_now(2)
        assert json.loads(shell.run("keys", "status", "--json")) == keys_now(2)

    def test_what_needs_somebody_is_said(self, shell: Shell) -> None:
        shell.services.answers["GET", "/v1/keys"] = keys_now(2, waiting=["d" * 16], missing=["e" * 16])
        code, _, said = shell.process("keys", "status")
        said = " ".join(said.split())
        assert code == 0
        assert f"A rotation to {NEW} is under way: 2 of 5." in said
        assert f"keyfob keys rotate {'d' * 16}" in said
        assert f"Values need the key {'e' * 16}" in said
        assert f"{OLD} has no recovery: losing its file loses 3 values." in said


def test_recovering_is_the_resolvers_own_and_ends_with_its_code(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = ModuleType("services.resolver.custody.recover_command")
    asked: list[object] = []

    def recover_keys(file: Path | None, *, retired: bool) -> int:
        asked.append((file, retired))
        return 1

    fake.recover_keys = recover_keys  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    code, _, _ = shell.process("keys", "recover", str(tmp_path / "safe"), "--retired")
    assert (code, asked) == (1, [(tmp_path / "safe", True)])


def test_no_key_is_ever_sent() -> None:
    # The command has no way to read one back: what it knows of a key is its id.
    assert not hasattr(module, "load_kek")
    assert repr(Kek.generate()).startswith("Kek(")
