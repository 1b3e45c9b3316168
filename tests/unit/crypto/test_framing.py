"""Framed bytes are read in one way only, and base64url has one spelling for each value."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.crypto.framing import frame, from_base64url, to_base64url

parts = st.lists(st.binary(max_size=40), max_size=6)


@given(parts, parts)
@example([b"ab", b"c"], [b"a", b"bc"])
@example([b"", b""], [b""])
@example([b"\x00\x00\x00\x01x"], [b"x"])
def test_two_lists_of_parts_give_the_same_bytes_only_if_they_are_the_same_list(
    one: list[bytes], other: list[bytes]
) -> None:
    assert (frame(*one) == frame(*other)) == (one == other)


def test_the_layout_is_the_documented_one() -> None:
    assert frame(b"a", b"", b"bc") == b"\x00\x00\x00\x01a" + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x02bc"


@given(st.binary(max_size=200))
def test_base64url_comes_back_as_it_was(data: bytes) -> None:
    assert from_base64url(to_base64url(data)) == data


@given(st.text(alphabet="ABCDwxyz0189-_", max_size=12))
def test_text_that_decodes_is_the_only_spelling_of_what_it_decodes_to(text: str) -> None:
    try:
        decoded = from_base64url(text)
    except ValueError:
        return
    assert to_base64url(decoded) == text


@pytest.mark.parametrize(
    "text",
    ["YQ==", "YQ=", "YR", "YWJ+", "YWJ/", "Y Q", "YQ\n", "Y", "\u0661\u0661", "YQ\x00", "Y?Q!", "YWI=YWI"],
)
def test_another_spelling_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not base64url") as refused:
        from_base64url(text)
    assert text not in str(refused.value)
