"""The instance's own environment: the variables that its deployment lets servers have, taken once, at its start.

A binding may name any variable, and the resolver may tell this instance to use it; what counts is this list, which
only whoever starts the process can write. Values stay in this process: they are copied for each holding, never sent
anywhere, and taken out of the environment that this process would hand on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.config import Misconfigured
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from shared.variables import is_reserved_variable

MOST_VARIABLES: Final = 64
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """What may be read here, and what of it is there."""

    allowed: frozenset[str] = frozenset()
    _held: Mapping[str, SecretBytes] = field(default_factory=dict, repr=False)

    @classmethod
    def take(cls, names: str, environ: MutableMapping[bytes, bytes]) -> Environment:
        """Take the variables in `names`, comma separated, out of `environ`; `Misconfigured` for names that can't be.

        One that is set to nothing counts as absent: an empty credential is a mistake in a deployment.
        """
        allowed = frozenset(name.strip() for name in names.split(",") if name.strip())
        _check(allowed)
        found = {name: environ.pop(name.encode(), b"") for name in allowed}
        return cls(allowed, {name: SecretBytes(value) for name, value in found.items() if value})

    @property
    def present(self) -> tuple[str, ...]:
        """The allowed names that are there, sorted: names are all that is ever told of them."""
        return tuple(sorted(self._held))

    def value(self, name: str) -> SecretBytes:
        """A copy, which the caller wipes; `Unavailable` for what is not allowed here, or not there."""
        if name not in self.allowed:
            _log.error("variable not allowed here", variable=name)
            raise Unavailable("A value that this server needs may not be read on this gateway.")
        held = self._held.get(name)
        if held is None:
            _log.error("variable not set", variable=name)
            raise Unavailable("A value that this server needs is not set on this gateway.")
        with held.reveal() as view:
            return SecretBytes(view)


NO_ENVIRONMENT: Final = Environment()
"""Nothing may be read."""


def _check(names: frozenset[str]) -> None:
    if len(names) > MOST_VARIABLES:
        raise Misconfigured(f"KEYFOB_GATEWAY_ENVIRONMENT may name {MOST_VARIABLES} variables.")
    for name in sorted(names):
        if not _NAME.fullmatch(name):
            # Not quoted: whoever mixed up name and value wrote a credential here.
            raise Misconfigured("KEYFOB_GATEWAY_ENVIRONMENT holds something that is no variable's name.")
        if is_reserved_variable(name):
            raise Misconfigured(f"KEYFOB_GATEWAY_ENVIRONMENT may not name {name}: it is this process's own.")
