"""What people may write, so that it reads the same in every log, shell and page."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.domain.kinds import Kind, full_id, looks_like_id, new_id
from services.policy.domain.names import (
    check_group,
    check_host,
    check_labels,
    check_line,
    check_name,
    check_text,
    is_plain,
)
from services.policy.domain.origins import check_variable
from shared.errors import BadRequest


def accepted(name: str) -> bool:
    try:
        check_name(name, of="profile")
    except BadRequest:
        return False
    return True


@given(st.text(max_size=300))
def test_a_name_that_is_accepted_can_be_told_from_ids_and_from_what_looks_the_same(name: str) -> None:
    if accepted(name):
        assert 0 < len(name) <= 256
        assert name == name.strip()
        assert not looks_like_id(name)
        assert not any(unicodedata.category(one).startswith("C") for one in name)


@pytest.mark.parametrize("name", ["ward", "hospital-a/db", "Kinderklinik Süd", "病院", "a b", "x" * 256])
def test_what_people_call_things_is_accepted(name: str) -> None:
    assert accepted(name)


@pytest.mark.parametrize(
    "name", ["", " ward", "ward ", "a\tb", "a\u200bb", "a\u202eb", "\ufeffward", "x" * 257, "\x00"]
)
def test_what_can_not_be_told_apart_at_a_glance_is_refused(name: str) -> None:
    assert not accepted(name)


@pytest.mark.parametrize("kind", [*Kind, "enrolment"])
def test_no_name_can_be_taken_for_an_id(kind: str) -> None:
    entity_id = new_id(kind)
    assert not accepted(entity_id)
    assert not accepted(entity_id.partition("/")[2])
    assert full_id(kind, entity_id) == full_id(kind, entity_id.partition("/")[2]) == entity_id


def test_no_variable_can_be_taken_for_an_id() -> None:
    with pytest.raises(BadRequest, match="looks like an id"):
        check_variable("a" + "0" * 31)
    for name in ("a" + "0" * 30, "A" + "0" * 31, "_" + "0" * 31):
        check_variable(name)


@pytest.mark.parametrize("text", ["ward", "profile/", "profile/xyz", "a/b/" + "0" * 32, "0" * 31, "0" * 33, "A" * 32])
def test_what_is_no_id_spells_none(text: str) -> None:
    assert full_id(Kind.PROFILE, text) is None


def test_an_id_of_another_kind_is_none_of_this_one() -> None:
    assert full_id(Kind.GRANT, new_id(Kind.PROFILE)) is None


@given(st.text(max_size=30))
def test_free_text_keeps_its_lines_and_loses_what_acts_on_a_terminal(text: str) -> None:
    try:
        check_text(text, of="description")
    except BadRequest:
        assert any(unicodedata.category(one) in {"Cc", "Cs"} and one != "\n" for one in text)


def test_text_has_a_limit_and_a_line_is_one_line() -> None:
    check_text("a\nb" + "x" * 1997, of="description")
    check_line("", of="owner")
    for bad in (lambda: check_text("x" * 2001, of="description"), lambda: check_line("a\nb", of="owner")):
        with pytest.raises(BadRequest):
            bad()


@pytest.mark.parametrize("group", ["", "a\x00", "\ud800", "x" * 257])
def test_a_group_that_no_token_could_carry_is_refused(group: str) -> None:
    assert not is_plain(group)
    with pytest.raises(BadRequest):
        check_group(group)


@pytest.mark.parametrize("host", ["mcp.example.org", "localhost", "10.0.0.7", "a-b.c", "x" * 63 + ".y"])
def test_a_destination_is_a_host_as_urls_give_it(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "MCP.example.org", "https://a", "a:443", "a/b", "-a", "a-", "a..b", ".a", "a.", "a_b", "ü.example", "*"],
)
def test_what_would_never_match_a_url_s_host_is_refused(host: str) -> None:
    with pytest.raises(BadRequest):
        check_host(host)


def test_labels_are_few_and_their_keys_are_plain() -> None:
    check_labels({f"k{number}": "v" for number in range(32)})
    check_labels({"env": "Prod · Süd", "a.b/c_d-e": "x"})
    for labels in (
        {f"k{n}": "v" for n in range(33)},
        {"": "x"},
        {"a b": "x"},
        {"env": ""},
        {"env": "a\x00"},
        {"ä": "x"},
    ):
        with pytest.raises(BadRequest):
            check_labels(labels)
