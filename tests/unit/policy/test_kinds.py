"""Ids, names and natural keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.domain.kinds import MODELS, Kind, full_id, looks_like_id, natural_key, new_id
from services.policy.domain.names import check_labels, check_name, check_text, is_plain
from shared.errors import BadRequest
from shared.events.policy import ChoiceRecord, MappingRecord, TickRecord
from shared.events.registry import POLICY_RECORDS


def test_every_record_of_the_topic_but_the_tick_is_an_entity() -> None:
    assert set(MODELS.values()) == set(POLICY_RECORDS) - {TickRecord}


def test_ids_are_recognised_with_and_without_their_kind() -> None:
    one = new_id(Kind.GRANT)
    assert looks_like_id(one)
    assert full_id(Kind.GRANT, one) == one
    assert full_id(Kind.GRANT, one.removeprefix("grant/")) == one
    assert full_id(Kind.PROFILE, one) is None
    assert full_id(Kind.GRANT, "hospital-a") is None


@pytest.mark.parametrize("name", ["hospital-a", "Hôpital d'à côté", "日本", "a" * 256, "a/b", "grant/x", "0" * 31])
def test_names_that_people_give(name: str) -> None:
    check_name(name, of="profile")


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a" * 257, "a\nb", "a\0", "a\u202eb", "a\u200bb", "\ud800", "0" * 32, "grant/" + "0" * 32,
     "enrolment/" + "f" * 32],
)  # fmt: skip
def test_names_that_could_be_taken_for_another_or_for_an_id(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name, of="profile")


@given(st.text(max_size=300))
def test_what_is_plain_can_be_kept_and_shown(text: str) -> None:
    if is_plain(text):
        assert text.encode().decode() == text
        assert text.isprintable() or " " in text or not text.isascii()


def test_free_text_may_have_lines_and_labels_may_not() -> None:
    check_text("one\ntwo", of="description")
    for text in ("a\0", "\ud800", "x" * 2001):
        with pytest.raises(BadRequest):
            check_text(text, of="description")
    check_labels({"env": "prod", "topology.kubernetes.io/zone": "a"})
    with pytest.raises(BadRequest):
        check_labels({"env": "a\nb"})


def mapping(idp: str, group: str, profile: str) -> str:
    return natural_key(MappingRecord(id="mapping/1", seq=1, revision=1, idp_id=idp, group=group, profile_id=profile))


def test_parts_of_a_natural_key_never_run_into_each_other() -> None:
    assert mapping("idp/a", "b/c", "p") != mapping("idp/a/b", "c", "p")
    assert mapping("idp/a", 'b","c', "p") != mapping('idp/a","b'.replace('"', "").replace(",", "."), "c", "p")


def test_the_reference_is_not_part_of_what_makes_two_choices_one() -> None:
    said = {"id": "choice/1", "seq": 1, "revision": 1, "idp_id": "i", "subject": "s", "server_id": "v", "field": "F"}
    one = ChoiceRecord.model_validate(said | {"profile_id": "p", "reference_id": "r1"})
    two = ChoiceRecord.model_validate(said | {"profile_id": "p", "reference_id": "r2"})
    assert natural_key(one) == natural_key(two)
