"""Which entries of a vault's audit log concern a source. An entry is a hint to look, never a fact.

The entry's format is OpenBao's and Vault's (https://openbao.org/docs/audit/): one JSON object for each request and
one for each response. Values and tokens in it are HMACs, paths are in the clear. A mutation is done when its
*response* is logged, so requests are ignored, and so are responses with an error. Our own traffic is reads and
lists, which are ignored as everybody's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.sync.domain.naming import is_path
from shared.events.catalog import KvSource

_MUTATIONS: Final = frozenset({"create", "update", "patch", "delete"})
_PLACES: Final = frozenset({"data", "metadata", "delete", "undelete", "destroy"})
_RIGHTS_AND_MOUNTS: Final = ("sys/remount", "sys/policies/acl/", "sys/policy/")


@dataclass(frozen=True, slots=True)
class PathTouched:
    """Somebody changed something at this path."""

    path: str


@dataclass(frozen=True, slots=True)
class SourceTouched:
    """Somebody moved, tuned or disabled the mount, or changed what tokens may: everything may look different."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Not for this source, not a mutation, or not done."""


Hint = PathTouched | SourceTouched | Ignored

_IGNORED: Final = Ignored()


def hint_of(entry: Mapping[str, Any], place: KvSource) -> Hint:
    """What one parsed audit entry means for the source at `place`. Any JSON object is fine."""
    request = entry.get("request")
    if entry.get("type") != "response" or entry.get("error") or not isinstance(request, dict):
        return _IGNORED
    operation, path = request.get("operation"), request.get("path")
    if not isinstance(operation, str) or operation not in _MUTATIONS:
        return _IGNORED
    if not isinstance(path, str) or _in_namespace(request):
        return _IGNORED
    # A mount that was moved or tuned, or rights that changed, may change what every path shows.
    if path.startswith((f"sys/mounts/{place.mount}", *_RIGHTS_AND_MOUNTS)):
        return SourceTouched()
    return _below_mount(path, place)


def _in_namespace(request: Mapping[str, Any]) -> bool:
    """A path inside a namespace is relative to it: another mount of the same name."""
    namespace = request.get("namespace")
    return isinstance(namespace, dict) and bool(namespace.get("path"))


def _below_mount(path: str, place: KvSource) -> Hint:
    mount = f"{place.mount}/"
    if not path.startswith(mount):
        return _IGNORED
    kind, slash, secret = path[len(mount) :].partition("/")
    if kind not in _PLACES or not slash or not is_path(secret, prefix=place.prefix):
        return _IGNORED
    return PathTouched(secret)
