"""What a KV version 2 mount answers over HTTP, in memory: an `Egress` that knows the API and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from yarl import URL

from shared.egress import Answer, NotReached

Answering = Callable[[], Answer]

NO_ROUTE: Final = {"errors": ["no handler for route"]}
NOTHING: Final = {"errors": []}
DENIED: Final = {"errors": ["permission denied"]}


def answer(status: int, body: object = None) -> Answer:
    return Answer(status, {}, b"" if body is None else json.dumps(body).encode())


def metadata(version: int = 1, **more: Any) -> dict[str, Any]:
    """Of a secret whose current version can be read."""
    moment = "2026-01-01T00:00:00Z"
    return {
        "current_version": version,
        "created_time": moment,
        "updated_time": moment,
        "versions": {str(version): {"created_time": moment, "deletion_time": "", "destroyed": False}},
    } | more


@dataclass(slots=True)
class FakeKvHttp:
    """`secrets` are metadata by path; `names` the names inside each. `said` answers first, by method-less address."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    details: bool = False
    closed: set[str] = field(default_factory=set)
    """Addresses below the mount that are answered 403."""
    said: dict[str, list[Answer | NotReached]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    kind: dict[str, Any] = field(default_factory=lambda: {"type": "kv", "options": {"version": "2"}})
    longest: int = 1024 * 1024

    async def request(self, method: str, url: URL, *, headers: dict[str, str]) -> Answer:
        assert method == "GET"
        self.tokens.add(headers["X-Vault-Token"])
        address = unquote(url.raw_path.removeprefix("/v1/"))
        self.asked.append(f"{address}?{url.query_string}" if url.query_string else address)
        if self.said.get(address):
            given = self.said[address].pop(0)
            if isinstance(given, NotReached):
                raise given
            return given
        given = self._answer(address, dict(url.query))
        if len(given.body) > self.longest:
            raise NotReached(f"the answer is longer than {self.longest} bytes")
        return given

    def _answer(self, address: str, query: dict[str, str]) -> Answer:
        if address.startswith("sys/internal/ui/mounts/"):
            return answer(200, {"data": self.kind})
        if any(address.startswith(one) for one in self.closed):
            return answer(403, DENIED)
        place, _, path = address.removeprefix("secret/").partition("/")
        if place == "detailed-metadata" and not self.details:
            return answer(404, NO_ROUTE)
        if "list" in query:
            return self._list(path, query, detailed=place == "detailed-metadata")
        if place == "subkeys":
            return self._subkeys(path)
        return answer(200, {"data": self.secrets[path]}) if path in self.secrets else answer(404, NOTHING)

    def _list(self, folder: str, query: dict[str, str], *, detailed: bool) -> Answer:
        below = (path.removeprefix(folder) for path in self.secrets if path.startswith(folder))
        names = sorted({name if not slash else f"{name}/" for name, slash, _ in (one.partition("/") for one in below)})
        page = [name for name in names if name > query.get("after", "")][: int(query["limit"])]
        if not page:
            return answer(404, NOTHING)
        told = {name: self.secrets[folder + name] for name in page if folder + name in self.secrets}
        return answer(200, {"data": {"keys": page} | ({"key_info": told} if detailed else {})})

    def _subkeys(self, path: str) -> Answer:
        if path not in self.secrets or path not in self.names:
            return answer(404, NOTHING)
        version = self.secrets[path]["current_version"]
        subkeys = dict.fromkeys(self.names[path])
        return answer(200, {"data": {"subkeys": subkeys, "metadata": {"version": version}}})
