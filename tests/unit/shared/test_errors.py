"""Errors that cross a boundary: a stable kind, a safe detail, and others' words cut to one line."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.crypto.secret import SecretBytes
from shared.errors import REMOTE_TEXT_LIMIT, KeyfobError, NotAvailable, Rejected, Unavailable, Untrusted, cut

OURS = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, KeyfobError)]


@given(st.text(max_size=2000) | st.binary(max_size=300), st.integers(1, 300))
def test_what_others_wrote_becomes_one_printable_line_of_bounded_length(text: object, limit: int) -> None:
    line = cut(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


def test_short_words_stay_as_they_are() -> None:
    assert cut("connection refused") == "connection refused"
    assert cut("x" * REMOTE_TEXT_LIMIT) == "x" * REMOTE_TEXT_LIMIT
    assert cut("x" * (REMOTE_TEXT_LIMIT + 1)) == "x" * (REMOTE_TEXT_LIMIT - 1) + "…"


@pytest.mark.parametrize("forgery", ["a\nlevel=info event=granted", "a\r\nb", "a\u2028b", "a\x1b[31mb", "a\u202eb"])
def test_nobody_else_writes_a_line_of_the_log_or_moves_the_cursor(forgery: str) -> None:
    assert not set(cut(forgery)) & set("\n\r\u2028\x1b\u202e")


def test_space_at_the_front_does_not_use_up_the_line() -> None:
    assert cut(" \n" * 100 + "refused").endswith("refused")


def test_a_secret_is_never_cut_into_a_line() -> None:
    with pytest.raises(TypeError):
        cut(SecretBytes(b"hunter2"))


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_tree_that_the_module_draws(kind: type[KeyfobError]) -> None:
    assert kind.__name__ in str(errors.__doc__)


def test_no_two_errors_share_a_kind() -> None:
    kinds = [found.kind for found in OURS]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_its_status_follows_from_whose_fault_it_is(kind: type[KeyfobError]) -> None:
    if issubclass(kind, Rejected):
        assert 400 <= kind.status < 500
    else:
        assert kind.status == (503 if issubclass(kind, Unavailable) else 500)


def test_without_words_of_its_own_an_error_says_its_title() -> None:
    for error in (KeyfobError(), Unavailable(), Untrusted()):
        assert error.detail == str(error) == error.title


def test_what_is_absent_can_not_be_given_words_that_tell_it_apart() -> None:
    with pytest.raises(TypeError):
        NotAvailable("there is one, but not for you")  # type: ignore[call-arg]
