"""Redaction of one upstream: what the gateway calls, guesses, counts, and what is left when it ends."""

from __future__ import annotations

import json
import random
from base64 import b64encode

import pytest

from services.gateway.redaction import REPLACEMENT, SHORTEST, Guess, NoGuess, Redaction, Secret
from services.gateway.redaction.anchors import LONGEST, MOST_WAYS, anchors_of
from services.gateway.redaction.sieve import MOST_IN_ONE, Sieve
from services.gateway.redaction.writings import Medium, writings
from shared.crypto.secret import SecretBytes

TOKEN = b"tok-0123456789"
URL = b"postgresql://app:long/enough@db.example/records"


@pytest.fixture
def redaction() -> Redaction:
    return Redaction([Secret("tokens/a", SecretBytes(TOKEN)), Secret("urls/b", SecretBytes(URL))])


def test_results_errors_and_stderr_share_their_counts(redaction: Redaction) -> None:
    assert (
        redaction.message(b'{"error": {"message": "no tok-0123456789"}}') == b'{"error": {"message": "no [redacted]"}}'
    )
    assert redaction.text("refused tok-0123456789 at db.example") == "refused [redacted] at db.example"
    stderr = redaction.stderr()
    assert stderr.feed(URL + b"\n") + stderr.finish() == REPLACEMENT + b"\n"
    assert redaction.take_counts() == {"tokens/a": 2, "urls/b": 1}
    assert redaction.take_counts() == {}


def test_a_value_that_two_references_have_counts_for_both() -> None:
    tried = Redaction([Secret("a", SecretBytes(TOKEN)), Secret("b", SecretBytes(TOKEN))])
    assert tried.message(b'["tok-0123456789"]') == b'["[redacted]"]'
    assert tried.take_counts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("value", [TOKEN.decode(), "postgresql://app:long/enough@db.example/records", TOKEN.hex()])
def test_a_value_among_the_arguments_is_a_guess(redaction: Redaction, value: str) -> None:
    arguments = json.dumps({"name": "query", "arguments": {"sql": f"select '{value}'"}}).encode()
    found = redaction.examine(arguments)
    assert found == Guess(("urls/b",) if "postgres" in value else ("tokens/a",))
    # Looking is not replacing.
    assert redaction.take_counts() == {}


@pytest.mark.parametrize("arguments", [b"{}", b'{"x": "tok-012345678"}', b'{"host": "db.example", "user": "app"}', b""])
def test_other_arguments_are_none(redaction: Redaction, arguments: bytes) -> None:
    assert redaction.examine(arguments) == NoGuess()


def test_a_value_that_is_too_short_is_named_and_left_alone() -> None:
    tried = Redaction([Secret("short", SecretBytes(b"x" * (SHORTEST - 1))), Secret("fine", SecretBytes(TOKEN))])
    assert tried.unprotected == ("short",)
    assert tried.message(b'["xxxxxxx"]') == b'["xxxxxxx"]'


def test_a_value_of_64_kib_is_found_too() -> None:
    value = bytes(random.Random(5).choices(range(33, 127), k=64 * 1024))  # noqa: S311 - the same in each run
    tried = Redaction([Secret("large", SecretBytes(value))])
    for written in (json.dumps(value.decode()), json.dumps(value.hex()), json.dumps(b64encode(b"x" + value).decode())):
        assert tried.message(b"[" + written.encode() + b"]").count(REPLACEMENT) == 1
    assert tried.take_counts() == {"large": 3}


def test_without_values_everything_passes() -> None:
    tried = Redaction([])
    assert tried.message(b'{"a": 1}') == b'{"a": 1}'
    assert tried.examine(b"{}") == NoGuess()


def test_text_with_lone_surrogates_passes(redaction: Redaction) -> None:
    assert redaction.text("a\ud800b") == "a\ud800b"


def test_after_the_wipe_nothing_passes_unredacted() -> None:
    with Redaction([Secret("a", SecretBytes(TOKEN))]) as tried:
        late = tried.stderr()
        anchors = [anchor.literal for anchor in tried._json._anchors]
        assert late.feed(b"fine, tok-01") == b"fine, "
    for use in (
        lambda: late.feed(b"23456789"),
        late.finish,
        lambda: tried.message(b"{}"),
        lambda: tried.examine(b"{}"),
    ):
        with pytest.raises(ValueError, match="were wiped"):
            use()
    assert anchors
    assert not any(map(any, anchors))
    tried.wipe()


def test_nothing_shows_a_value(redaction: Redaction) -> None:
    patterns = redaction._json
    for shown in (redaction, redaction.results(), patterns, *patterns._writings, *patterns._anchors, patterns._sieve):
        assert "0123" not in repr(shown)
        assert "long" not in repr(shown)
    assert "0123" not in repr(Secret("a", SecretBytes(TOKEN)))


def test_the_callers_copy_stays_the_callers() -> None:
    value = SecretBytes(TOKEN)
    Redaction([Secret("a", value)]).wipe()
    assert value.matches(TOKEN)


def test_a_url_is_looked_for_by_its_password_only() -> None:
    """Or each harmless mention of the host would cost a search."""
    forms = [form for text in (URL, b"long/enough", b"long-enough") for form in writings("b", text, Medium.JSON)]
    literals = [bytes(anchor.literal) for anchor in anchors_of(forms)]
    assert min(map(len, literals)) >= len(b"enough")
    assert b"long-enough"[-LONGEST:] in literals
    assert not any(b"example" in one or b"records" in one or b"postgres" in one for one in literals)


@pytest.mark.parametrize(
    "text", ["!\"#$%&'()*+,/:;<=>?@", "пароль-密码", '""""""""', "\\\\\\\\\\\\\\\\", "a!b!c!d!", "😀😀😀😀😀😀😀😀"]
)
def test_where_no_stretch_has_only_one_way_there_are_few_anchors_all_the_same(text: str) -> None:
    forms = writings("a", text.encode(), Medium.TEXT)
    for form in forms:
        own = anchors_of([form])
        assert 0 < len(own) <= MOST_WAYS
        assert min(len(anchor.literal) for anchor in own) >= 2


def test_the_sieve_takes_any_bytes_and_any_number() -> None:
    literals = [bytes([high, low, 0, 255]) for high in range(40) for low in range(40)]
    assert len(literals) > 3 * MOST_IN_ONE
    sieve = Sieve(literals)
    for literal in literals[:: MOST_IN_ONE // 2]:
        assert sieve.holds_one(b"\xfe" * 100 + literal)
        assert not sieve.holds_one(b"\xfe" * 100 + literal[:-1])
    assert not Sieve([]).holds_one(b"anything")


def test_the_sieve_takes_what_means_something_in_a_pattern() -> None:
    for literal in (b".*+?", b"[a-z]", b"(?i)", b"a|b|", b"\\d\\x", b"^abc$", b"{2,3}", b"\n\r\t\x00"):
        assert Sieve([literal]).holds_one(b"<" + literal + b">")
        assert not Sieve([literal]).holds_one(b"aaaazzzz1111")
