"""What people live through with their keys: changing them, losing them, and getting them back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from shared.crypto.key_files import KeyFileRefused
from shared.crypto.secret import SecretBytes
from shared.custody import (
    AlreadyCurrent,
    Kek,
    Keyring,
    KeysMissing,
    RecoveryKey,
    RecoveryPublicKey,
    Rewrapped,
    SealedValue,
    ValueContext,
    kek_id_of,
    load_kek,
    read_recovery_ids,
    recover,
    save_new_kek,
    seal_for_recovery,
)
from shared.custody.key_text import id_to_text
from shared.errors import SealInvalid


@dataclass
class Installation:
    """What a service has: rows and blobs in a database, key files beside it."""

    directory: Path
    recovery_public: str
    rows: dict[ValueContext, SealedValue] = field(default_factory=dict)
    blobs: list[bytes] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def generate(self) -> None:
        """A new key, in a new file, current from now on; sealed for recovery in the same breath."""
        kek = Kek.generate()
        save_new_kek(self.directory / f"{kek.key_id}.kek", kek)
        self.blobs = [*self.blobs, seal_for_recovery(kek, RecoveryPublicKey.from_text(self.recovery_public))]
        self.files.insert(0, self.directory / f"{kek.key_id}.kek")

    def start(self) -> Keyring:
        """What a service does first."""
        ring = Keyring(*(load_kek(path) for path in self.files))
        ring.expect(id_to_text(kek_id_of(row.wrap)) for row in self.rows.values())
        return ring

    def enter(self, name: str) -> None:
        context = ValueContext("profile/a", "server/b", name, 1)
        with SecretBytes(name.encode()) as value:
            self.rows[context] = self.start().seal(value, context=context)

    def rotate(self) -> int:
        """Bring all rows to a new key; how many were written."""
        self.generate()
        return self.go_on_rotating()

    def go_on_rotating(self, most: int = 1_000) -> int:
        ring, written = self.start(), 0
        for context, row in self.rows.items():
            if written == most:
                break
            match ring.rewrap(row.wrap, context=context):
                case Rewrapped(wrap):
                    self.rows[context] = replace(row, wrap=wrap)
                    written += 1
                case AlreadyCurrent():
                    pass
        return written

    def everything_opens(self) -> bool:
        ring = self.start()
        return all(ring.open(row, context=at).matches(at.field.encode()) for at, row in self.rows.items())


SAFE = RecoveryKey.generate().to_text()


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path, RecoveryKey.from_text(SAFE).public.to_text())
    made.generate()
    for name in ("DB_URL", "API_KEY", "PASSWORD"):
        made.enter(name)
    return made


def recovered(installation: Installation) -> list[Kek]:
    return [recover(blob, RecoveryKey.from_text(SAFE)) for blob in installation.blobs]


def test_after_a_rotation_the_old_key_is_not_needed_any_more(installation: Installation) -> None:
    seals = [row.sealed for row in installation.rows.values()]
    assert installation.rotate() == 3
    installation.files.pop().unlink()
    assert installation.everything_opens()
    assert [row.sealed for row in installation.rows.values()] == seals


def test_an_older_backup_still_needs_the_older_key(installation: Installation) -> None:
    backup = dict(installation.rows)
    installation.rotate()
    retired = installation.files.pop()
    installation.rows = backup
    with pytest.raises(KeysMissing, match=retired.stem):
        installation.start()
    installation.files.append(retired)
    assert installation.everything_opens()


def test_a_rotation_that_is_killed_in_the_middle_goes_on_and_writes_each_row_once(installation: Installation) -> None:
    installation.generate()
    assert installation.go_on_rotating(most=1) == 1
    assert installation.everything_opens()
    installation.enter("NEW_ONE")
    assert installation.go_on_rotating() == 2
    assert installation.go_on_rotating() == 0
    assert installation.everything_opens()


@pytest.mark.parametrize("rotations", [0, 2])
def test_a_lost_key_is_restored_from_the_database_and_the_recovery_key(
    installation: Installation, rotations: int
) -> None:
    for _ in range(rotations):
        installation.rotate()
    lost = {path.stem: path.read_text() for path in installation.files}
    for path in installation.files:
        path.unlink()
    with pytest.raises(KeyFileRefused, match="No such file"):
        installation.start()
    for kek in recovered(installation):
        save_new_kek(installation.directory / f"{kek.key_id}.kek", kek)
    assert {path.stem: path.read_text() for path in installation.files} == lost
    assert installation.everything_opens()


def test_a_wrong_key_ends_the_start_with_the_name_of_the_right_one_and_changes_nothing(
    installation: Installation,
) -> None:
    (right,) = installation.files
    wrong = Kek.generate()
    save_new_kek(installation.directory / "wrong.kek", wrong)
    installation.files = [installation.directory / "wrong.kek"]
    with pytest.raises(KeysMissing, match=rf"not given: {right.stem} \(given: {wrong.key_id}\)"):
        installation.start()
    installation.files = [right]
    assert installation.everything_opens()


def test_a_blob_that_somebody_put_into_the_database_is_not_taken_for_the_lost_key(installation: Installation) -> None:
    theirs = Kek.generate()
    installation.blobs = [seal_for_recovery(theirs, RecoveryPublicKey.from_text(installation.recovery_public))]
    (restored,) = recovered(installation)
    save_new_kek(installation.directory / "restored.kek", restored)
    installation.files = [installation.directory / "restored.kek"]
    with pytest.raises(KeysMissing):
        installation.start()


def test_without_the_recovery_key_nothing_comes_back(installation: Installation) -> None:
    somebody_elses = RecoveryKey.generate()
    for blob in installation.blobs:
        assert read_recovery_ids(blob).recovery == RecoveryKey.from_text(SAFE).public.key_id
        with pytest.raises(SealInvalid):
            recover(blob, somebody_elses)
