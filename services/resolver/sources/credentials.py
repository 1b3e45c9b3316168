"""Our own credentials for sources: files that operations put there, each bound to the origin it was entered for.

`<directory>/<source name>.json`, mode 0600: `{"origin": "https://vault.example:8200", "token": "…"}`. An admin who
edits a source's address therefore never sends its credential elsewhere: for another origin there is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from services.resolver.sources.port import ReadDenied
from shared.config import Misconfigured, Mode, read_secret_file
from shared.egress import Origin
from shared.errors import BadRequest

LOOK_AGAIN_S: Final = 2.0
"""How soon a replaced file is noticed."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class CredentialFile(BaseModel):
    """What a credential file holds."""

    # The text of a validation error could quote the token.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    origin: str
    token: SecretStr


@dataclass(frozen=True, slots=True)
class _Kept:
    found: CredentialFile | None
    origin: Origin | None
    at: float


@dataclass(slots=True)
class Credentials:
    """The files of one directory, looked at again every `LOOK_AGAIN_S`."""

    directory: Path
    mode: Mode
    clock: Callable[[], float] = time.monotonic
    _kept: dict[str, _Kept] = field(default_factory=dict)

    def token(self, source_name: str, origin: Origin) -> str:
        """The token for this source at this origin; `ReadDenied` when there is none."""
        kept = self._kept.get(source_name)
        now = self.clock()
        if kept is None or now - kept.at > LOOK_AGAIN_S:
            found = self._read(source_name)
            kept = self._kept[source_name] = _Kept(found, None if found is None else self._origin_of(found), now)
        # One answer for both: whoever edits addresses learns not even whether there is a credential.
        if kept.found is None or kept.origin != origin:
            raise ReadDenied
        return kept.found.token.get_secret_value()

    def _read(self, source_name: str) -> CredentialFile | None:
        # The name comes from an admin: it must not lead out of the directory.
        if _FILE_NAME.fullmatch(source_name) is None:
            return None
        try:
            return CredentialFile.model_validate_json(read_secret_file(self.directory / f"{source_name}.json"))
        # A file that is being written, or has the wrong mode, is no credential now; the next look is soon.
        except (Misconfigured, ValidationError):
            return None

    def _origin_of(self, credential: CredentialFile) -> Origin | None:
        try:
            # Parsed, for one origin has several spellings: upper case, or its usual port written out.
            return Origin.parse(credential.origin, mode=self.mode)
        except BadRequest:
            return None
