"""Persistent indices: key → the facts that have it, in the order of their ids."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, TypeVar

from rpds import HashTrieMap


class Identified(Protocol):
    """A fact that has an id."""

    @property
    def id(self) -> str:
        """Its id."""


K = TypeVar("K", bound=Hashable)
F = TypeVar("F", bound=Identified)


def with_fact(index: HashTrieMap[K, tuple[F, ...]], key: K, fact: F) -> HashTrieMap[K, tuple[F, ...]]:
    """The index with one more fact under `key`."""
    held = index.get(key)
    # In a fixed order: two replicas that see the same records must choose alike.
    facts = (fact,) if held is None else tuple(sorted((*held, fact), key=lambda one: one.id))
    return index.insert(key, facts)


def less_fact(index: HashTrieMap[K, tuple[F, ...]], key: K, fact: F) -> HashTrieMap[K, tuple[F, ...]]:
    """The index without exactly this fact under `key`; a key without facts is forgotten."""
    # By identity, and not by id: a replaced fact leaves before its successor comes in.
    left = tuple(other for other in index.get(key) or () if other is not fact)
    return index.insert(key, left) if left else index.discard(key)
