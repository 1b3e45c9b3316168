"""A private key's file is refused when others could read it, and is never half written."""

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from shared.crypto import KeyFileRefused, SealingKey, SigningKey
from shared.crypto.key_files import write_key_file

SEED = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key"


def test_a_key_is_written_for_its_owner_only_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        SigningKey.generate().save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_saving_again_replaces_the_key_and_leaves_nothing_beside_it(path: Path) -> None:
    SigningKey.generate().save(path)
    second = SigningKey.generate()
    second.save(path)
    assert SigningKey.load(path).key_id == second.key_id
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_key_and_nothing_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SigningKey.generate()
    first.save(path)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_key_file(path, b"half a key")
    assert SigningKey.load(path).key_id == first.key_id
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o700, 0o610])
def test_a_file_that_others_may_touch_is_refused_with_the_mend(path: Path, mode: int) -> None:
    SigningKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileRefused, match=rf"mode {mode:04o}.*chmod 600"):
        SigningKey.load(path)


def test_a_narrower_mode_is_fine(path: Path) -> None:
    SigningKey.generate().save(path)
    path.chmod(0o400)
    SigningKey.load(path)


def test_a_base64_file_is_read_too(path: Path) -> None:
    write_key_file(path, base64.b64encode(SEED) + b"\n")
    assert SigningKey.load(path).verify_key.to_base64() == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
    SealingKey.load(path)


def test_a_missing_file_is_refused_by_name(path: Path) -> None:
    with pytest.raises(KeyFileRefused, match="No such file"):
        SigningKey.load(path)


def test_a_directory_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for odd in (tmp_path, pipe):
        with pytest.raises(KeyFileRefused, match="not a regular file"):
            SigningKey.load(odd)


def _pem(key: object, protection: object = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption())  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"c2hvcnQ=",
        b"not a key, but S3CRET",
        b"-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----\n",
        _pem(generate_private_key(SECP256R1())),
        _pem(generate_private_key(SECP256R1()), BestAvailableEncryption(b"word")),
        b"A" * 5000,
    ],
)
def test_what_is_not_a_key_of_the_kind_is_refused_without_being_quoted(path: Path, content: bytes) -> None:
    write_key_file(path, content)
    with pytest.raises(KeyFileRefused) as refused:
        SigningKey.load(path)
    assert "S3CRET" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_key_for_signing_is_not_taken_for_sealing(path: Path) -> None:
    SigningKey.generate().save(path)
    with pytest.raises(KeyFileRefused, match="X25519"):
        SealingKey.load(path)
