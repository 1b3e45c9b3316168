"""The search that proves absence finds what is there, in every form that it promises."""

import base64
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dev.demo.search import Place, encodings, files, find

VALUE = "pa55/word+with?signs&more"


@pytest.mark.parametrize(
    "hidden",
    [
        VALUE.encode(),
        VALUE.encode().hex().encode(),
        quote(VALUE, safe="").encode(),
        base64.b64encode(VALUE.encode()),
    ],
    ids=["plain", "hex", "url", "base64"],
)
def test_a_value_is_found_in_each_form(hidden: bytes) -> None:
    assert find({"it": VALUE}, Place("here", b"before " + hidden + b" after"))


@given(before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_a_value_is_found_inside_base64_whatever_surrounds_it(before: bytes, after: bytes) -> None:
    hidden = base64.b64encode(before + VALUE.encode() + after)
    assert find({"it": VALUE}, Place("here", hidden))


def test_a_finding_never_quotes_the_value() -> None:
    findings = find({"password 1": VALUE}, Place("log", VALUE.encode()))
    assert findings == ["password 1 (plain) in log"]


def test_nothing_is_found_where_nothing_is() -> None:
    assert find({"it": VALUE}, Place("here", b"nothing of the kind")) == []


def test_no_form_is_empty_which_would_be_found_everywhere() -> None:
    assert all(len(form) > len(VALUE) // 2 for form in encodings(VALUE).values())


def test_files_are_searched_except_where_values_may_be(tmp_path: Path) -> None:
    for name in ("logs/a.log", "postgres/data"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(VALUE)
    looked = [place.name for place in files([tmp_path], without=[tmp_path / "postgres"])]
    assert looked == [str(tmp_path / "logs/a.log")]
