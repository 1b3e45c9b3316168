"""The development issuer's key and clients, and tokens signed with them: the part that needs no HTTP.

Its directory holds `key.json` (0600, the private JWK) and `clients.json` (0600). Client secrets are 32 random
bytes, so a plain SHA-256 of them can't be searched (RFC 6749 §10.10 asks for entropy, not for slowness).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, TypeAdapter

from services.dev.platform.locks import in_turn
from services.dev.platform.ports import LOOPBACK, kept_port
from services.dev.platform.private import write_private, write_private_once
from services.dev.platform.processes import Process, plain_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

AUDIENCE = "keyfob"
ALGORITHM = "ES256"


class Client(BaseModel):
    """Who may ask for a token of its own by its secret, and what such a token says."""

    model_config = ConfigDict(frozen=True)

    secret_sha256: str
    subject: str
    groups: tuple[str, ...]


_CLIENTS = TypeAdapter(dict[str, Client])


class DevIssuer:
    """The development issuer on this machine: signs directly for tests, and starts the HTTP one on the same key."""

    def __init__(self, directory: Path, *, url: str | None = None) -> None:
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.url = url or f"http://{LOOPBACK}:{kept_port(self._directory / 'port')}"
        file = self._directory / "key.json"
        if not file.exists():
            fresh = ECKey.generate_key("P-256", private=True)
            document = {**fresh.as_dict(private=True), "kid": fresh.thumbprint(), "alg": ALGORITHM, "use": "sig"}
            write_private_once(file, json.dumps(document))
        # From the file also when we have just made one: of two that began at once, both sign with the key that stayed.
        self._key = ECKey.import_key(json.loads(file.read_text()))

    def __repr__(self) -> str:
        return f"DevIssuer({self.url!r})"

    @property
    def jwks_uri(self) -> str:
        """Where the HTTP issuer answers with its public keys."""
        return f"{self.url}/jwks"

    @property
    def token_endpoint(self) -> str:
        """Where the HTTP issuer answers client credentials with a token."""
        return f"{self.url}/token"

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517)."""
        return {"keys": [self._key.as_dict(private=False)]}

    def token(
        self, subject: str, groups: Sequence[str], ttl_s: float = 3600, audience: str = AUDIENCE, **claims: Any
    ) -> str:
        """A signed access token (RFC 9068), valid from now for `ttl_s` seconds; negative makes an expired one.

        `claims` are added, or take the place of those that it would have.
        """
        now = int(time.time())
        said = {"iss": self.url, "aud": audience, "sub": subject, "groups": list(groups)}
        times = {"iat": now, "exp": now + int(ttl_s), "jti": secrets.token_urlsafe(16)}
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": self._key.kid}
        return jwt.encode(header, {**said, **times, **claims}, self._key)

    def add_client(self, client_id: str, *, groups: Sequence[str], subject: str | None = None) -> str:
        """Register a client for the client_credentials grant, or give it a new secret; returns the secret.

        A running issuer knows it at once. The subject is the client's id unless another one is given.
        """
        secret = secrets.token_urlsafe(32)
        client = Client(secret_sha256=_hash(secret), subject=subject or client_id, groups=tuple(groups))
        with in_turn(self._directory / ".clients.lock"):
            known = {**self._clients(), client_id: client}
            write_private(self._directory / "clients.json", _CLIENTS.dump_json(known, indent=2).decode())
        return secret

    def authenticate(self, client_id: str, secret: str) -> Client | None:
        """The client that this secret belongs to, or None; as slow for unknown ids as for wrong secrets."""
        client = self._clients().get(client_id)
        expected = client.secret_sha256 if client else _hash("")
        return client if hmac.compare_digest(expected, _hash(secret)) else None

    def process(self, *, log: Path) -> Process:
        """The HTTP issuer as a child process, to be started by whoever needs it; ready when `jwks_uri` answers."""
        settings = {"KEYFOB_MODE": "development", "KEYFOB_ISSUER_DIRECTORY": str(self._directory)}
        settings["KEYFOB_ISSUER_URL"] = self.url
        return Process(
            "issuer",
            (sys.executable, "-m", "services.dev.platform.issuer"),
            env=plain_environment(**settings),
            log=log,
            cwd=Path(__file__).resolve().parents[3],
        )

    def _clients(self) -> dict[str, Client]:
        try:
            return _CLIENTS.validate_json((self._directory / "clients.json").read_bytes())
        except FileNotFoundError:
            return {}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
