"""The development issuer over HTTP: `python -m services.dev.platform.issuer`, on loopback, in development mode only.

GET  /.well-known/openid-configuration   OpenID Connect Discovery 1.0; the same at RFC 8414's address
GET  /jwks                               RFC 7517
POST /token                              client_credentials (RFC 6749 §4.4), secret in the form or as Basic
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohttp import BasicAuth, web
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.dev.platform.issuing import ALGORITHM, Client, DevIssuer
from services.dev.platform.ports import LOOPBACK
from shared.config import Mode

_TOKEN_TTL_S = 3600
_BODY_LIMIT = 16 * 1024


class IssuerSettings(BaseSettings):
    """What the issuer needs to know; `directory` holds its key and its clients."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_ISSUER_", frozen=True, extra="ignore")

    mode: Mode = Field(Mode.PRODUCTION, validation_alias="KEYFOB_MODE")
    directory: Path
    url: str = Field(description="its own address, http://127.0.0.1:PORT; the `iss` of its tokens")


class _Routes:
    def __init__(self, issuer: DevIssuer) -> None:
        self._issuer = issuer

    async def discovery(self, _: web.Request) -> web.Response:
        document: dict[str, Any] = {
            "issuer": self._issuer.url,
            "jwks_uri": self._issuer.jwks_uri,
            "token_endpoint": self._issuer.token_endpoint,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }
        return web.json_response(document)

    async def jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self._issuer.jwks())

    async def token(self, request: web.Request) -> web.Response:
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        if form.get("grant_type") != "client_credentials":
            return _refusal(400, "unsupported_grant_type")
        client_id, secret = _credentials(request, form)
        client = self._issuer.authenticate(client_id, secret)
        if client is None:
            return _refusal(401, "invalid_client")
        return web.json_response(self._grant(client_id, client), headers={"Cache-Control": "no-store"})

    def _grant(self, client_id: str, client: Client) -> dict[str, Any]:
        token = self._issuer.token(client.subject, client.groups, ttl_s=_TOKEN_TTL_S, client_id=client_id)
        return {"access_token": token, "token_type": "Bearer", "expires_in": _TOKEN_TTL_S}


def _credentials(request: web.Request, form: dict[str, str]) -> tuple[str, str]:
    """Client id and secret from Basic (RFC 6749 §2.3.1: form-encoded in it) or from the form; empty when absent."""
    try:
        basic = BasicAuth.decode(request.headers.get("Authorization", ""))
    except ValueError:
        return form.get("client_id", ""), form.get("client_secret", "")
    return unquote(basic.login), unquote(basic.password)


def _refusal(status: int, error: str) -> web.Response:
    """RFC 6749 §5.2."""
    headers = {"Cache-Control": "no-store"}
    if status == web.HTTPUnauthorized.status_code:
        headers["WWW-Authenticate"] = 'Basic realm="keyfob development issuer"'
    return web.json_response({"error": error}, status=status, headers=headers)


def application(issuer: DevIssuer) -> web.Application:
    """The issuer's routes."""
    routes = _Routes(issuer)
    app = web.Application(client_max_size=_BODY_LIMIT)
    app.router.add_get("/.well-known/openid-configuration", routes.discovery)
    app.router.add_get("/.well-known/oauth-authorization-server", routes.discovery)
    app.router.add_get("/jwks", routes.jwks)
    app.router.add_post("/token", routes.token)
    return app


def main() -> None:
    """Serve until SIGTERM; ends at once outside development mode."""
    settings = IssuerSettings()
    if settings.mode is not Mode.DEVELOPMENT:
        sys.exit("The development issuer runs with KEYFOB_MODE=development only: it signs for whoever may ask.")
    issuer = DevIssuer(settings.directory, url=settings.url)
    port = urlsplit(settings.url).port
    web.run_app(application(issuer), host=LOOPBACK, port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
