"""The indices always say what a plain list of all records would, whatever came in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.resolver.domain.catalog_state import EMPTY_CATALOG, CatalogState
from services.resolver.domain.facts import Evidence, Grant, Mapping, PolicyFact, Reference, Server, Unreadable
from services.resolver.domain.policy_state import EMPTY_POLICY, PolicyState
from shared.events.catalog import ReferenceState
from shared.events.definitions import StdioServer
from shared.projection import digest
from tests.thoroughness import examples

SMALL = st.sampled_from(["x", "y", "z"])


def evidence(id_: str, said: Any) -> Evidence:
    return Evidence("keyfob.policy.v1", "", id_, repr(said).encode(), None, None)


def grant(id_: str, profile: str, reference: str) -> PolicyFact:
    limits: dict[str, Any] = dict.fromkeys(("server_id", "field", "destination", "starts_at", "ends_at"))
    proof = evidence(id_, ("grant", profile, reference))
    return Grant(proof, id_, profile_id=profile, reference_id=reference, labels=(), **limits)


def mapping(id_: str, group: str, profile: str) -> PolicyFact:
    return Mapping(evidence(id_, ("mapping", group, profile)), id_, "idp", group, profile)


def server(id_: str, name: str, digest: str) -> PolicyFact:
    return Server(evidence(id_, ("server", name, digest)), id_, name, digest, StdioServer(command="x"))


def unreadable(id_: str, one: str, two: str) -> PolicyFact:
    return Unreadable(evidence(id_, ("unreadable", one, two)), id_)


Make = Callable[[str, str, str], PolicyFact]
PUTS = st.tuples(
    st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([grant, mapping, server, unreadable]), SMALL, SMALL
)
STEPS = st.lists(PUTS | st.sampled_from(["a", "b", "c", "d"]), max_size=25)


def naive(facts: dict[str, PolicyFact], kind: type, key: Callable[[Any], object]) -> dict[object, list[str]]:
    found: dict[object, list[str]] = {}
    for id_ in sorted(facts):
        if isinstance(facts[id_], kind):
            found.setdefault(key(facts[id_]), []).append(id_)
    return found


def indexed(index: Any) -> dict[object, list[str]]:
    return {key: [fact.id for fact in held] for key, held in index.items()}


@settings(max_examples=examples(200), deadline=None)
@given(STEPS)
def test_indices_and_digest_agree_with_a_plain_dictionary(steps: list[Any]) -> None:
    state: PolicyState = EMPTY_POLICY
    plain: dict[str, PolicyFact] = {}
    for step in steps:
        before, kept = state, dict(plain)
        if isinstance(step, str):
            state = state.drop(step)
            plain.pop(step, None)
        else:
            id_, make, one, two = step
            fact = make(id_, one, two)
            state = state.put(fact)
            plain[id_] = fact
        assert dict(before.facts.items()) == kept, "an older state never changes"
    assert dict(state.facts.items()) == plain
    assert indexed(state.grants) == naive(plain, Grant, lambda one: (one.profile_id, one.reference_id))
    assert indexed(state.mappings) == naive(plain, Mapping, lambda one: (one.idp_id, one.group))
    assert indexed(state.servers) == naive(plain, Server, lambda one: one.name)
    total = 0
    for id_, fact in plain.items():
        total = digest.add(total, digest.entry(id_, fact.evidence.payload))
    assert state.digest == total


def test_a_state_that_is_empty_again_is_the_empty_one() -> None:
    state = EMPTY_POLICY
    for id_ in "abc":
        state = state.put(grant(id_, "p", "r")).put(mapping(id_ + id_, "g", "p"))
    for id_ in "abc":
        state = state.drop(id_).drop(id_ + id_)
    assert (len(state.facts), len(state.grants), len(state.mappings), state.digest) == (0, 0, 0, 0)


def reference(id_: str, name: str) -> Reference:
    proof = Evidence("keyfob.catalog.v1", "", id_, b"", None, None)
    return Reference(proof, id_, name, "source", "path", None, "1", ReferenceState.ACTIVE)


@given(st.lists(st.tuples(SMALL, SMALL) | SMALL, max_size=20))
def test_names_of_references_agree_with_a_plain_dictionary(steps: list[Any]) -> None:
    state: CatalogState = EMPTY_CATALOG
    plain: dict[str, str] = {}
    for step in steps:
        if isinstance(step, str):
            state, _ = state.drop(step), plain.pop(step, None)
        else:
            state = state.put(reference(*step))
            plain[step[0]] = step[1]
    expected: dict[object, list[str]] = {}
    for id_ in sorted(plain):
        expected.setdefault(plain[id_], []).append(id_)
    assert indexed(state.references) == expected
