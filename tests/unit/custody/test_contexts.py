"""What is bound into a seal reads in one way only."""

from __future__ import annotations

import unicodedata
from dataclasses import FrozenInstanceError

import pytest

from shared.custody.contexts import CredentialContext, ValueContext


def test_a_values_context_is_the_documented_bytes() -> None:
    assert ValueContext("o", "srv", "F", 258).framed() == (
        b"\0\0\0\x0ekeyfob/value/1" + b"\0\0\0\1o" + b"\0\0\0\3srv" + b"\0\0\0\1F" + b"\0\0\0\x08\0\0\0\0\0\0\1\2"
    )


def test_a_credentials_context_is_the_documented_bytes() -> None:
    assert CredentialContext("sync", "main", "https://v:1").framed() == (
        b"\0\0\0\x13keyfob/credential/1" + b"\0\0\0\4sync" + b"\0\0\0\4main" + b"\0\0\0\x0bhttps://v:1" + b"\0\0\0\0"
    )


def test_a_value_and_a_credential_of_the_same_words_are_different() -> None:
    version = int.from_bytes(b"versions", "big", signed=True)
    assert (
        ValueContext("a", "b", "c", version).framed()[18:] == CredentialContext("a", "b", "c", "versions").framed()[23:]
    )
    assert ValueContext("a", "b", "c", version).framed() != CredentialContext("a", "b", "c", "versions").framed()


def test_letters_are_bound_as_they_are_spelled() -> None:
    composed = "schlüssel"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert ValueContext(composed, "", "", 0).framed() != ValueContext(decomposed, "", "", 0).framed()


@pytest.mark.parametrize("version", [-(2**63), -1, 0, 1, 2**63 - 1])
def test_whatever_a_bigint_column_holds_is_a_version(version: int) -> None:
    assert ValueContext("", "", "", version).framed().endswith(version.to_bytes(8, "big", signed=True))


@pytest.mark.parametrize("version", [-(2**63) - 1, 2**63])
def test_no_other_version_is(version: int) -> None:
    with pytest.raises(OverflowError):
        ValueContext("", "", "", version).framed()


def test_a_context_does_not_change_under_way() -> None:
    with pytest.raises(FrozenInstanceError):
        ValueContext("a", "b", "c", 1).version = 2  # type: ignore[misc]
