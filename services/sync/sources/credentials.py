"""Credentials for sources: files that only this service's user can read, `<source-name>.json`, mode 0600.

    {"origin": "https://vault.example:8200", "token": "…"}

A credential is bound to the origin that it was entered for, exactly: whoever edits a source's address can't have
our token sent somewhere else. Files are read again when they change, so a token is renewed by replacing its file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import orjson

from shared.config import Misconfigured, Mode, read_secret_file
from shared.egress import Origin
from shared.errors import BadRequest


class NoCredential(Exception):
    """There is no credential to use; the text names the mend, never the credential."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A token and the only origin it may be sent to."""

    origin: Origin
    token: str = field(repr=False)


class CredentialFiles:
    """The credentials of all sources, in one directory."""

    def __init__(self, directory: Path, *, mode: Mode) -> None:
        """Read from `directory`; `mode` decides whether plain http is acceptable."""
        self._directory = directory
        self._mode = mode
        self._known: dict[str, tuple[tuple[int, int], Credential]] = {}

    def get(self, source: str, origin: Origin) -> Credential:
        """The credential of a source for its origin; `NoCredential` if there is none that fits.

        `source` must be plain enough for a file's name (`naming.is_source_name`).
        """
        credential = self._read(source)
        # Compared as parts, so that two spellings of one origin are one and a longer host is another.
        if credential.origin != origin:
            raise NoCredential(f"The credential of {source} was entered for another origin.")
        return credential

    def _read(self, source: str) -> Credential:
        path = self._directory / f"{source}.json"
        try:
            status = path.stat()
        except OSError as error:
            raise NoCredential(f"There is no usable file {path.name} with a credential ({error.strerror}).") from None
        stamp = (status.st_mtime_ns, status.st_ino)
        known = self._known.get(source)
        if known is None or known[0] != stamp:
            known = (stamp, self._parse(path))
            self._known[source] = known
        return known[1]

    def _parse(self, path: Path) -> Credential:
        try:
            document = orjson.loads(read_secret_file(path))
            origin, token = Origin.parse(document["origin"], mode=self._mode), document["token"]
        except Misconfigured as error:
            raise NoCredential(str(error)) from None
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, BadRequest):
            # Not chained: a parser's message may quote what stood in the file.
            raise NoCredential(f'{path.name} must hold {{"origin": "https://…", "token": "…"}}.') from None
        # What a header can't carry would fail inside the client, with the token in its message.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise NoCredential(f"{path.name} holds no usable token.")
        return Credential(origin, token)
