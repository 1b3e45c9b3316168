"""A key as text has one spelling, survives being copied by a person, and what is wrong with it is said without it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto.secret import SecretBytes
from shared.custody.key_text import (
    ID_BYTES,
    KEY_BYTES,
    KeyKind,
    KeyTextInvalid,
    id_from_text,
    id_to_text,
    read_key_text,
    write_key_text,
)
from tests.thoroughness import examples

KEY = bytes(range(KEY_BYTES))
ID = bytes(range(100, 100 + ID_BYTES))
ALPHABET = string.ascii_lowercase + "234567"


@given(st.sampled_from(KeyKind), st.binary(min_size=10, max_size=10), st.binary(min_size=32, max_size=32))
@settings(max_examples=examples(60))
def test_what_was_written_is_read(kind: KeyKind, key_id: bytes, key: bytes) -> None:
    found = read_key_text(write_key_text(kind, key_id, key), kind)
    assert (id_from_text(found.key_id), bytes(found.key)) == (key_id, key)


def test_a_secret_is_written_like_the_bytes_in_it() -> None:
    text = write_key_text(KeyKind.KEK, ID, KEY)
    assert write_key_text(KeyKind.KEK, ID, SecretBytes(KEY)) == text
    assert len(text.split("-")) == 3 + 1 + 7


@given(st.data())
@settings(max_examples=examples(100))
def test_one_exchanged_character_is_noticed_and_not_quoted(data: st.DataObject) -> None:
    text = write_key_text(KeyKind.KEK, ID, KEY)
    at = data.draw(st.integers(len("keyfob-kek-1-"), len(text) - 1).filter(lambda n: text[n] != "-"))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda character: character != text[at]))
    with pytest.raises(KeyTextInvalid, match="mistyped") as refused:
        read_key_text(text[:at] + other + text[at + 1 :], KeyKind.KEK)
    assert not any(group in str(refused.value) for group in text.split("-")[3:])


def test_two_exchanged_neighbours_and_two_exchanged_groups_are_noticed() -> None:
    text = write_key_text(KeyKind.KEK, ID, KEY)
    head, body = text[:30], text[30:]
    groups = body.split("-")
    neighbours = [body[:at] + body[at + 1] + body[at] + body[at + 2 :] for at in range(len(body) - 1)]
    swapped = ["-".join([*groups[:at], groups[at + 1], groups[at], *groups[at + 2 :]]) for at in range(6)]
    for wrong in [*neighbours, *swapped]:
        if wrong != body:
            with pytest.raises(KeyTextInvalid):
                read_key_text(head + wrong, KeyKind.KEK)


def _spellings(text: str) -> dict[str, str]:
    return {
        "upper case": text.upper(),
        "half upper case": text[:40] + text[40:].upper(),
        "a line break": text + "\n",
        "a space before": " " + text,
        "no hyphens": text.replace("-", ""),
        "other groups": text[:-4] + "-" + text[-4:],
        "padding": text + "=",
        "one group fewer": text.rpartition("-")[0],
        "one group more": text + "-aaaaaaaa",
        "digits of no base32": text[:-1] + "1",
        "letters that fold into ASCII": text[:-1] + "\N{KELVIN SIGN}",
        "digits of another script": text.replace("-1-", "-\N{ARABIC-INDIC DIGIT ONE}-"),
        "another kind's word": text.replace("kek", "dek"),
        "nothing": "",
    }


@pytest.mark.parametrize("name", _spellings(""))
def test_there_is_no_second_spelling(name: str) -> None:
    text = write_key_text(KeyKind.KEK, ID, KEY)
    with pytest.raises(KeyTextInvalid, match="not an installation key"):
        read_key_text(_spellings(text)[name], KeyKind.KEK)


@pytest.mark.parametrize("kind", KeyKind)
def test_a_key_of_another_kind_is_named_for_what_it_is(kind: KeyKind) -> None:
    for other in set(KeyKind) - {kind}:
        with pytest.raises(KeyTextInvalid, match=r"This is .*, but .* is needed here"):
            read_key_text(write_key_text(other, ID, KEY), kind)


def test_a_kind_that_was_changed_in_the_text_does_not_pass_the_checksum() -> None:
    public = write_key_text(KeyKind.RECOVERY_PUBLIC, ID, KEY)
    with pytest.raises(KeyTextInvalid, match="mistyped"):
        read_key_text(public.replace("recovery-public", "kek"), KeyKind.KEK)


@pytest.mark.parametrize("version", ["0", "2", "01", "10"])
def test_another_version_asks_for_an_upgrade(version: str) -> None:
    text = write_key_text(KeyKind.KEK, ID, KEY).replace("kek-1-", f"kek-{version}-")
    with pytest.raises(KeyTextInvalid, match="upgrade"):
        read_key_text(text, KeyKind.KEK)


@pytest.mark.parametrize(("key_id", "key"), [(ID, KEY[1:]), (ID, KEY + b"x"), (ID[1:], KEY), (b"", b"")])
def test_only_whole_keys_are_written(key_id: bytes, key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes and its id 10"):
        write_key_text(KeyKind.KEK, key_id, key)


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
@settings(max_examples=examples(40))
def test_an_id_has_sixteen_characters_and_one_spelling(raw: bytes) -> None:
    text = id_to_text(raw)
    assert len(text) == 16
    assert id_from_text(text) == raw


@pytest.mark.parametrize("text", ["", "A" * 16, "a" * 15, "a" * 17, "a" * 15 + "=", "a" * 15 + "1", "é" * 16])
def test_other_text_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a key id"):
        id_from_text(text)


def test_what_was_read_shows_no_key() -> None:
    assert "bytearray" not in repr(read_key_text(write_key_text(KeyKind.KEK, ID, KEY), KeyKind.KEK))
