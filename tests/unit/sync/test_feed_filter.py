"""Which entries of an audit log call for a look. The entries have the shape that OpenBao 2.7 really sends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sync.domain.feed import Ignored, PathTouched, SourceTouched, hint_of
from shared.events.catalog import KvSource

PLACE = KvSource(origin="http://vault:8200")


def entry(path: str, operation: str = "update", **more: Any) -> dict[str, Any]:
    request = {
        "id": "1",
        "operation": operation,
        "mount_point": "secret/",
        "mount_type": "kv",
        "namespace": {"id": "root"},
        "path": path,
        "data": {"data": {"dsn": "hmac-sha256:774c"}},
    }
    return {"type": "response", "request": request, "response": {"mount_type": "kv"}} | more


@pytest.mark.parametrize("operation", ["create", "update", "patch", "delete"])
@pytest.mark.parametrize("kind", ["data", "metadata", "delete", "undelete", "destroy"])
def test_every_mutation_of_a_secret_is_a_hint_for_its_path(kind: str, operation: str) -> None:
    assert hint_of(entry(f"secret/{kind}/hospital-a/db", operation), PLACE) == PathTouched("hospital-a/db")


@pytest.mark.parametrize("operation", ["read", "list", "scan", "help", "", None, 7])
def test_reads_and_lists_ours_included_are_ignored(operation: Any) -> None:
    assert hint_of(entry("secret/metadata/db", operation), PLACE) == Ignored()


@pytest.mark.parametrize(
    "ignored",
    [
        entry("secret/data/db", type="request"),
        entry("secret/data/db", error="permission denied"),
        entry("secret/config"),
        entry("secret/data"),
        entry("secret/data/"),
        entry("secret/subkeys/db"),
        entry("secrets/data/db"),
        entry("other/data/db"),
        entry("auth/token/create"),
        entry("secret/data/a/../b"),
        entry("secret/data/a\x00b"),
        {"type": "response"},
        {"type": "response", "request": []},
        {"type": "response", "request": {"operation": "update", "path": 1}},
        {},
    ],
)
def test_what_is_not_a_done_mutation_of_a_secret_is_ignored(ignored: dict[str, Any]) -> None:
    assert hint_of(ignored, PLACE) == Ignored()


def test_a_mount_of_the_same_name_in_a_namespace_is_another_one() -> None:
    inside = entry("secret/data/db")
    inside["request"]["namespace"] = {"id": "x1", "path": "team/"}
    assert hint_of(inside, PLACE) == Ignored()


def test_a_source_with_a_prefix_hears_only_what_is_below_it() -> None:
    place = KvSource(origin="http://vault:8200", mount="kv/deep", prefix="team")
    assert hint_of(entry("kv/deep/data/team/db"), place) == PathTouched("team/db")
    assert hint_of(entry("kv/deep/data/team-b/db"), place) == Ignored()
    assert hint_of(entry("kv/deep/data/other/db"), place) == Ignored()


@pytest.mark.parametrize("path", ["sys/mounts/secret", "sys/remount", "sys/policies/acl/sync", "sys/policy/sync"])
def test_what_touches_mount_or_rights_calls_for_a_survey(path: str) -> None:
    assert hint_of(entry(path), PLACE) == SourceTouched()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["type", "request", "error", "response"]), JSON), JSON, JSON)
def test_any_object_is_fine(document: dict[str, Any], operation: Any, path: Any) -> None:
    hint_of(document, PLACE)
    hint_of({"type": "response", "request": {"operation": operation, "path": path, "namespace": path}}, PLACE)
