"""Where a stack keeps what it makes, and the secrets and keys that it makes once."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from shared.crypto.signing import SigningKey
from shared.custody import Kek, save_new_kek
from shared.custody.directory import key_files, key_path


@dataclass(frozen=True, slots=True)
class Layout:
    """The state directory of one stack. Everything secret below it has mode 0600."""

    root: Path

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.root / "logs"

    @property
    def own_data(self) -> tuple[Path, ...]:
        """Where PostgreSQL and OpenBao keep what was given to them: values are theirs to hold."""
        return (self.root / "postgres", self.root / "openbao")

    @property
    def issuer(self) -> Path:
        """The development issuer's key."""
        return self.root / "issuer"

    @property
    def connection(self) -> Path:
        """The connection file for the `keyfob` command."""
        return self.root / "connection.json"

    @property
    def admin_token(self) -> Path:
        """An access token of somebody in the admin group."""
        return self.root / "admin.token"

    @property
    def installation_keys(self) -> Path:
        """The keys of local values, which both resolvers share."""
        return self.root / "installation-keys"

    def credentials(self, service: str) -> Path:
        """Where a service finds its credential for each source."""
        return self.root / "credentials" / service

    def instance(self, name: str) -> Path:
        """A gateway's identity and enrolment token."""
        return self.root / "instances" / name

    def signing_key(self, name: str) -> SigningKey:
        """The signing key of that name, made the first time."""
        path = self.signing_key_file(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            SigningKey.generate().save(path)
        return SigningKey.load(path)

    def signing_key_file(self, name: str) -> Path:
        """Where that key lies."""
        return self.root / "keys" / f"{name}.key"

    def make_installation_key(self) -> None:
        """The first installation key, made the first time."""
        self.installation_keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not key_files(self.installation_keys):
            kek = Kek.generate()
            save_new_kek(key_path(self.installation_keys, kek.key_id), kek)

    def secret(self, name: str) -> str:
        """A random text of that name, made the first time."""
        path = self.secret_file(name)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text()

    def secret_file(self, name: str) -> Path:
        """Where that text lies."""
        return self.root / "secrets" / name


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.new")
    # What a killed run left there would make O_EXCL refuse for ever.
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.rename(path)
