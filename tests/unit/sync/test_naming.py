"""How references are called."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sync.domain.naming import (
    LONGEST_NAME,
    candidates,
    check_name,
    check_source_name,
    check_text,
    cut_text,
    is_path,
)
from shared.errors import BadRequest


def first(count: int, *, source: str = "vault", path: str, key: str | None) -> list[str]:
    return list(islice(candidates(source=source, path=path, key=key), count))


def test_a_reference_is_called_by_its_path_and_key() -> None:
    assert first(1, path="hospital-a/db", key="dsn") == ["hospital-a/db/dsn"]
    assert first(1, path="hospital-a/db", key=None) == ["hospital-a/db"]


def test_a_taken_name_is_told_apart_by_its_source_and_then_by_a_number() -> None:
    assert first(4, path="db", key="dsn") == ["db/dsn", "vault/db/dsn", "vault/db/dsn (2)", "vault/db/dsn (3)"]


@given(path=st.text(min_size=1, max_size=400), key=st.none() | st.text(min_size=1, max_size=400))
def test_whatever_a_source_calls_things_the_name_is_one_that_people_could_give(path: str, key: str | None) -> None:
    for name in first(3, path=path, key=key):
        check_name(name)


@given(st.lists(st.text(min_size=LONGEST_NAME, max_size=LONGEST_NAME + 40), unique=True, min_size=2, max_size=4))
def test_long_names_stay_apart(paths: list[str]) -> None:
    assert len({first(1, path=path, key=None)[0] for path in paths}) == len(paths)


def test_a_path_that_looks_like_an_id_is_called_by_its_source_too() -> None:
    assert first(1, path="reference/0f8c", key=None) == ["vault/reference/0f8c"]


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\u202eb", "x" * 257, "reference/1", "a\x00"])
def test_names_that_can_not_be_told_from_others_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "ü", "x" * 65, "a\x00b", "reference"])
def test_a_sources_name_is_safe_as_the_name_of_a_file(name: str) -> None:
    with pytest.raises(BadRequest):
        check_source_name(name)


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", "a/../b", ".", "a\x00b", "a\nb", "\ud800"])
def test_paths_that_a_url_does_not_carry_are_no_paths(path: str) -> None:
    assert not is_path(path)


def test_a_prefix_is_a_folder() -> None:
    assert is_path("team/db", prefix="team")
    assert not is_path("team-b/db", prefix="team")
    assert not is_path("team", prefix="team")


def test_free_text_is_bounded_and_printable() -> None:
    check_text("line one\nline two", of="description")
    for text in ("x" * 2001, "a\x1b[31m"):
        with pytest.raises(BadRequest):
            check_text(text, of="description")
        check_text(cut_text(text), of="description")
