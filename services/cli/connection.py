"""Where the services are and who is asking.

A JSON file: `{"urls": {"policy": "https://…", "sync": …, "notifier": …, "audit": …, "resolver": …}, "token_file": …}`.
The token stands in a file of its own with mode 0600 and is never an argument, which other users of the machine could
read.
"""

from __future__ import annotations

import ipaddress
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
        # One client for all calls of a command: a list of ten pages is one connection.
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
        octets: bytes | None = None,
        query: dict[str, Any] | None = None,
    ) -> Any:
        """The JSON answer of one call; `query` entries that are None are left out, `octets` go as they are."""
        base = self._base(service)
        # None means not asked for; sent, it would be the text `None`.
        parameters = {key: value for key, value in (query or {}).items() if value is not None}
        # Read for every call: a token that was renewed is used at once, by whoever lives long.
        headers = {"Authorization": f"Bearer {_token(self._connection.token_file)}"}
        try:
            if octets is not None:
                headers["Content-Type"] = "application/octet-stream"
                response = self._http.request(method, base + path, content=octets, params=parameters, headers=headers)
            else:
                response = self._http.request(method, base + path, json=body, params=parameters, headers=headers)
        except httpx2.HTTPError as error:
            # Not chained, and by its type only: a client's message may quote the header that it could not send.
            raise CommandFailed(
                f"{service} at {base} did not answer ({type(error).__name__}): is it running?"
            ) from None
        # Nothing of ours redirects. Whoever does is a proxy with a login page, and gets no token.
        if not response.is_success:
            raise CommandFailed(_words(response, service))
        try:
            return response.json() if response.content else None
        except ValueError:
            # Not chained: a parser's message quotes what it could not read.
            raise CommandFailed(_words(response, service)) from None

    def _base(self, service: str) -> str:
        base = self._connection.urls.get(service)
        if base is None:
            raise CommandFailed(f"The connection file names no URL for {service}.")
        if not _keeps_a_token(base):
            raise CommandFailed(
                f"The URL of {service} must be https, or http to this machine: the token travels on it."
            )
        return base.rstrip("/")

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


def _token(file: Path) -> str:
    try:
        token = read_secret_file(file)
    except Misconfigured as error:
        raise CommandFailed(str(error)) from None
    # Not with its own text, which quotes the file's bytes: it is refused below, like any other that is of no use.
    except UnicodeDecodeError:
        token = ""
    # What a header can not carry would fail inside the client, whose message may quote it.
    if not token or not token.isascii() or not token.isprintable():
        raise CommandFailed(f"{file} holds no usable token.")
    return token


def _keeps_a_token(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Any other name may lead to another machine, wherever it leads today.
        return host == "localhost"


def _words(response: httpx2.Response, service: str) -> str:
    """A problem document's own words; the status of whatever else it is."""
    nothing_said = f"{service} answered {response.status_code}."
    try:
        problem = response.json()
    except ValueError:
        return nothing_said
    # What a proxy in between answers is not ours, and may be anything.
    if not isinstance(problem, dict) or response.status_code < HTTPStatus.BAD_REQUEST:
        return nothing_said
    detail, choices = problem.get("detail") or problem.get("title") or "", problem.get("choices")
    listed = f"Choose from: {', '.join(map(str, choices))}." if isinstance(choices, list) and choices else ""
    return f"{cut(detail, 500)} {cut(listed, 500)}".strip() or nothing_said
