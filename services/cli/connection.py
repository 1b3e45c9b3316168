"""Where the services are and who is asking.

A JSON file: `{"urls": {"policy": "https://…", "sync": …, "notifier": …, "audit": …}, "token_file": "…"}`. The token
stands in a file of its own with mode 0600 and is never an argument, which other users of the machine could read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.config import Misconfigured, read_secret_file
from shared.errors import cut

VARIABLE = "KEYFOB_CONNECTION"
_DEFAULT = Path("~/.config/keyfob/connection.json")
_TIMEOUT_S = 35.0
"""Longer than the longest poll that a service allows (30 s)."""


class CommandFailed(Exception):
    """A command could not do what it was asked; its text is the sentence that the person sees."""


class Connection(BaseModel):
    """The content of a connection file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: dict[str, str]
    token_file: Path


def connection_path() -> Path:
    """The file that `KEYFOB_CONNECTION` names, or the one in the home directory."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT).expanduser()


def load_connection() -> Connection:
    """Read the connection file; a missing or malformed one is a sentence that says what to do."""
    path = connection_path()
    try:
        return Connection.model_validate_json(path.read_bytes())
    except OSError:
        raise CommandFailed(
            f"No connection file at {path}: `keyfob dev` prints the path of its own; set {VARIABLE} to it."
        ) from None
    except ValidationError as error:
        raise CommandFailed(f"{path} is not a connection file: {error.error_count()} parts are wrong.") from None


class Api:
    """Calls to the services with the person's token; failures are `CommandFailed` with the problem's own words."""

    def __init__(self, connection: Connection, *, transport: httpx2.BaseTransport | None = None) -> None:
        self._connection = connection
        self._http = httpx2.Client(timeout=_TIMEOUT_S, transport=transport)

    def close(self) -> None:
        """Let go of the connections; for whoever outlives this object."""
        self._http.close()

    def call(
        self,
        method: str,
        service: str,
        path: str,
        *,
        body: object = None,
        query: dict[str, Any] | None = None,
    ) -> Any:
        """The JSON answer of one call; `query` entries that are None are left out."""
        base = self._connection.urls.get(service)
        if base is None:
            raise CommandFailed(f"The connection file names no URL for {service}.")
        parameters = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            headers = {"Authorization": f"Bearer {read_secret_file(self._connection.token_file)}"}
            response = self._http.request(method, base + path, json=body, params=parameters, headers=headers)
        except Misconfigured as error:
            raise CommandFailed(str(error)) from None
        except httpx2.HTTPError as error:
            raise CommandFailed(
                f"{service} at {base} did not answer ({type(error).__name__}): is it running?"
            ) from None
        if response.is_error:
            raise CommandFailed(_words(response, service))
        return response.json() if response.content else None

    def every(self, service: str, path: str, **query: Any) -> list[dict[str, Any]]:
        """All items of a paged list, in order."""
        items: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self.call("GET", service, path, query={**query, "after": after, "limit": 200})
            items += page["items"]
            after = page.get("next")
            if not after:
                return items


def _words(response: httpx2.Response, service: str) -> str:
    try:
        problem = response.json()
        detail = problem.get("detail") or problem.get("title") or ""
        choices = problem.get("choices")
    except ValueError:
        return f"{service} answered {response.status_code}."
    listed = f"Choose from: {', '.join(map(str, choices))}." if choices else ""
    return f"{cut(detail, 500)} {cut(listed, 500)}".strip() or f"{service} answered {response.status_code}."
