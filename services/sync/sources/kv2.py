"""KV version 2 of OpenBao and Vault, over kept-alive connections, with a token that can't read values.

API: https://openbao.org/api-docs/secret/kv/kv-v2/. Used are LIST and read of `<mount>/metadata/…`; and, where the
token may, `<mount>/subkeys/…` (the names inside a secret) and LIST of `<mount>/detailed-metadata/…` (OpenBao: a
folder's metadata in one answer, so that a survey costs requests by folders and pages). Never `<mount>/data/…`.

A 404 says "nothing there" only with an empty list of errors; with a text it says that the route does not exist,
which is the mount's or the server's trouble. A 403 says "denied" only if the source's own root can be listed:
otherwise our credential is refused as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import orjson
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from yarl import URL

from services.sync.domain.naming import MOST_KEYS, cut_text, is_key, is_path
from services.sync.domain.observations import Denied, Found, Missing, Observation, Unreached, Unread
from services.sync.sources.credentials import CredentialFiles, NoCredential
from services.sync.sources.port import Entry, FolderDenied, Listed, Reached, Unsuitable
from shared.config import Mode
from shared.egress import Answer, Egress, NotReached, Origin
from shared.errors import cut
from shared.events.catalog import KvSource, ReferenceState

PAGE: Final = 500
"""Entries of one list. Vault does not know paging and answers with all of them."""

ASK_AGAIN_S: Final = 300.0
"""Seconds after which listings are tried again that tell more, if we had no right to them."""

ASK_NAMES_AGAIN_S: Final = 30.0
"""The same for the names inside secrets, as long as none was ever seen: they decide what becomes a reference."""

_TRIES: Final = 3

NOT_KV2: Final = "the answer is not what KV version 2 answers"

DEEPEST: Final = 64
"""Folders inside folders; far more than anybody has, and an end to a list that leads to itself."""


@dataclass(frozen=True, slots=True)
class _Ok:
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Absent:
    """404 that says "nothing there". `data` is what KV v2 says of a version that can't be read."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _NoRoute:
    why: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """403."""


_Answer = _Ok | _Absent | _NoRoute | _Refused | Unreached


@dataclass(frozen=True, slots=True)
class _Names:
    """The names inside a version of a secret; None where we may not see them."""

    version: int | None
    visible: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Changed:
    """There is no such version any more."""


class Kv2Reader:
    """A `SourceReader` for one KV v2 mount."""

    def __init__(self, name: str, place: KvSource, *, egress: Egress, credentials: CredentialFiles, mode: Mode) -> None:
        """Read the source `name` at `place`, through `egress`."""
        self._name = name
        self._place = place
        self._origin = Origin.parse(place.origin, mode=mode)
        self._egress = egress
        self._credentials = credentials
        self._ask_details_at = 0.0
        self._ask_names_at = 0.0
        self._names_were_seen = False

    async def check(self) -> Reached | Unsuitable | Unreached:
        """See the port. Asks what the mount is, then lists the root of the source."""
        answer = await self._get(f"sys/internal/ui/mounts/{_quoted(self._place.mount)}")
        match answer:
            case Unreached():
                return answer
            case _Ok(data) if not _is_kv2(data):
                return Unsuitable(f"{self._place.mount} is not a KV version 2 mount.")
        # A refusal of that says little (an unknown mount, a token of few rights): the list decides.
        match await self._get(f"{self._mount}/metadata/{_quoted(self._root)}", list="true", limit="1"):
            case Unreached() as unreached:
                return unreached
            case _Refused():
                return Unreached("our credential may not list this source")
            case _NoRoute(why):
                return Unreached(why)
        return Reached()

    async def entries(self) -> AsyncIterator[Entry]:
        """See the port. Folders are walked breadth first."""
        folders = deque([self._root])
        while folders:
            folder = folders.popleft()
            async for entry in self._folder(folder):
                match entry:
                    case str():
                        if entry.count("/") <= DEEPEST:
                            folders.append(entry)
                    case Unreached():
                        yield entry
                        return
                    case FolderDenied() if folder == self._root:
                        yield Unreached("our credential may not list this source")
                        return
                    case _:
                        yield entry

    async def _folder(self, folder: str) -> AsyncIterator[Entry | str]:
        """The paths in one folder; its folders as text that ends with a slash."""
        after = ""
        while True:
            answer = await self._list(folder, after)
            match answer:
                case _Refused():
                    yield FolderDenied(folder)
                    return
                case _Absent():
                    return
                case _NoRoute(why):
                    yield Unreached(why)
                    return
                case Unreached():
                    yield answer
                    return
            keys = answer.data.get("keys")
            # Only a further page may lack them: a folder without names is answered by 404, not by nothing.
            if not isinstance(keys, list) and not (keys is None and after):
                yield Unreached(NOT_KV2)
                return
            names = [name for name in keys or () if isinstance(name, str)]
            for entry in _entries(folder, names, answer.data.get("key_info")):
                yield entry
            # One entry fewer or more than was asked for: the end, or a server without pages.
            if len(names) != PAGE or names[-1] == after:
                return
            after = names[-1]

    async def _list(self, folder: str, after: str) -> _Answer:
        where, page = _quoted(folder), {"list": "true", "limit": str(PAGE), "after": after}
        if time.monotonic() >= self._ask_details_at:
            answer = await self._get(f"{self._mount}/detailed-metadata/{where}", **page)
            if isinstance(answer, _Ok | _Absent):
                return answer
            # No answer may be one that was too long, for what somebody wrote about his secrets: names are shorter.
            if not isinstance(answer, Unreached):
                self._ask_details_at = time.monotonic() + ASK_AGAIN_S
        return await self._get(f"{self._mount}/metadata/{where}", **page)

    async def read(self, path: str, *, keys: bool) -> Observation:
        """See the port."""
        match await self._read(path, keys=keys):
            case Denied() as denied:
                return await self._confirmed(denied)
            case Unreached(why):
                return await self._confirmed(Unread(path, why))
            case seen:
                return seen

    async def _read(self, path: str, *, keys: bool) -> Observation:
        """Both questions are asked at once; if somebody wrote between them, both again."""
        for _ in range(_TRIES):
            # Together they may be of two versions, which the version tells; in turn they would take twice as long.
            metadata, names = await asyncio.gather(self._metadata(path), self._names(path) if keys else _nothing())
            match metadata, names:
                case Found(state=ReferenceState.ACTIVE), _Names(version, visible) if version in {
                    None,
                    metadata.version,
                }:
                    return replace(metadata, keys=visible)
                case Found(state=ReferenceState.ACTIVE), Unreached():
                    return names
                case Found(state=ReferenceState.ACTIVE), _:
                    continue
                case _:
                    return metadata
        return Unreached("the secret changed faster than it could be read")

    async def _metadata(self, path: str) -> Observation:
        match await self._get(f"{self._mount}/metadata/{_quoted(path)}"):
            case _Ok(data):
                return _found(path, data) or Unreached(NOT_KV2)
            case _Absent():
                return Missing(path)
            case _Refused():
                return Denied(path)
            case _NoRoute(why) | Unreached(why):
                return Unreached(why)

    async def _confirmed(self, seen: Denied | Unread) -> Denied | Unread | Unreached:
        """Something is wrong with one path only while nothing is with the source as a whole.

        Otherwise whoever may write one secret could have the source taken for one that is away.
        """
        match await self.check():
            case Reached():
                return seen
            case Unsuitable(why) | Unreached(why):
                return Unreached(why)

    async def _names(self, path: str) -> _Names | _Changed | Unreached:
        """A right that nobody gave us is not asked for every time: each question is two more entries in the feed."""
        # Seen once, names are asked for always: one closed secret must not hide the names in all others.
        if not self._names_were_seen and time.monotonic() < self._ask_names_at:
            return _Names(None, None)
        match await self._get(f"{self._mount}/subkeys/{_quoted(path)}", depth="1"):
            case _Ok({"subkeys": dict() as subkeys, "metadata": {"version": int() as version}}):
                self._names_were_seen = True
                names = sorted(key for key in subkeys if is_key(key))
                return _Names(version, tuple(names) if len(names) <= MOST_KEYS else None)
            case _Ok():
                return Unreached(NOT_KV2)
            case _Refused() | _NoRoute():
                self._ask_names_at = time.monotonic() + ASK_NAMES_AGAIN_S
                return _Names(None, None)
            case _Absent():
                return _Changed()
            case Unreached() as unreached:
                return unreached

    @property
    def _mount(self) -> str:
        return _quoted(self._place.mount)

    @property
    def _root(self) -> str:
        return f"{self._place.prefix}/" if self._place.prefix else ""

    async def _get(self, where: str, **query: str) -> _Answer:
        """One answer; `where` is quoted already."""
        try:
            credential = self._credentials.get(self._name, self._origin)
            url = URL(f"{self._origin}/v1/{where}{'?' + urlencode(query) if query else ''}", encoded=True)
            # X-Vault-Request: a vault's agent may demand it, against requests that somebody forged from inside.
            headers = {"X-Vault-Token": credential.token, "X-Vault-Request": "true"}
            answer = await self._egress.request("GET", url, headers=headers)
        except (NoCredential, NotReached) as error:
            return Unreached(cut(error))
        return _read(answer)


def _entries(folder: str, names: list[str], details: object) -> Iterator[Listed | str]:
    told = details if isinstance(details, dict) else {}
    for name in names:
        path = folder + name
        if is_path(path):
            yield Listed(path, _found(path, told.get(name)))
        elif name.endswith("/") and is_path(path[:-1]):
            yield path


def _read(answer: Answer) -> _Answer:
    match answer.status:
        case HTTPStatus.FORBIDDEN:
            return _Refused()
        case HTTPStatus.OK | HTTPStatus.NOT_FOUND:
            pass
        case status:
            return Unreached(f"it answered with status {status}")
    try:
        document = orjson.loads(answer.body or b"{}")
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        return Unreached(NOT_KV2)
    data = document.get("data")
    data = data if isinstance(data, dict) else {}
    if answer.status == HTTPStatus.OK:
        return _Ok(data)
    # "Nothing there" has an empty list of errors. A text says that the route is missing, which tells of no secret.
    errors = document.get("errors")
    return _NoRoute(cut(errors[0])) if isinstance(errors, list) and errors else _Absent(data)


def _found(path: str, data: object) -> Found | None:
    """What metadata say, or None if they are not KV version 2's."""
    try:
        metadata = _Metadata.model_validate(data)
    except ValidationError:
        return None
    return metadata.found(path, now=datetime.now(UTC))


class _Version(BaseModel):
    """One version in the metadata of a secret. `deletion_time` may be in the future: a version that expires."""

    created_time: AwareDatetime
    deletion_time: AwareDatetime | Literal[""] = ""
    destroyed: bool = False


class _Metadata(BaseModel):
    """What we use of a secret's metadata."""

    current_version: int = Field(ge=0, lt=2**63)
    created_time: AwareDatetime
    updated_time: AwareDatetime
    custom_metadata: dict[str, str] | None = None
    versions: dict[str, _Version] | None = None

    def found(self, path: str, *, now: datetime) -> Found:
        """The state of the current version. No version, or a destroyed one, leaves nothing to read."""
        current = (self.versions or {}).get(str(self.current_version))
        words = self.custom_metadata or {}
        state, since = _state(current, self.updated_time, now)
        return Found(
            path=path,
            version=self.current_version,
            born_at=self.created_time,
            created_at=self.created_time if current is None else current.created_time,
            state=state,
            since=since,
            owner=cut_text(words.get("owner", "")),
            description=cut_text(words.get("description", "")),
        )


def _state(current: _Version | None, updated_at: datetime, now: datetime) -> tuple[ReferenceState, datetime]:
    # Destroyed before deleted: a version can be both, and only one of them can be undone.
    if current is None or current.destroyed:
        return ReferenceState.REMOVED, updated_at
    if current.deletion_time and current.deletion_time <= now:
        return ReferenceState.PENDING_DELETION, current.deletion_time
    return ReferenceState.ACTIVE, current.created_time


def _is_kv2(mount: dict[str, Any]) -> bool:
    options = mount.get("options")
    return mount.get("type") == "kv" and isinstance(options, dict) and options.get("version") == "2"


async def _nothing() -> _Names:
    return _Names(None, None)


def _quoted(path: str) -> str:
    return quote(path, safe="/")
