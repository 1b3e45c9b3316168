"""Requests are strict, refusals quote nothing, and a value is written by one function only."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from shared.crypto import SealingKey, SecretBytes, SigningKey
from shared.delivery import certify_sealing_key
from shared.delivery.messages import (
    LARGEST_BODY,
    EnrolRequest,
    Floor,
    ResolveAnswer,
    ResolvedField,
    ResolveRequest,
    decode_answer,
    encode_answer,
    parse_request,
)
from shared.errors import BadRequest, TooLarge

VALUE = b"postgres://u:hunter2hunter2@h/db\x00\xff"
LEASE = {
    "id": "lease/1",
    "reference_id": "reference/1",
    "version": 3,
    "expires_at": 1.5,
    "rests_on": ("grant/1", "binding/1"),
}


def answer(value: bytes = VALUE) -> ResolveAnswer:
    """Build an answer of which these tests look at the fields only."""
    field = ResolvedField.model_validate({"name": "DB_URL", "value": SecretBytes(value), "lease": LEASE})
    others: dict[str, Any] = {name: None for name in ResolveAnswer.model_fields if name != "fields"}
    return ResolveAnswer.model_construct(**others, fields=[field])


def test_a_request_is_read_with_its_defaults() -> None:
    request = parse_request(b'{"server":"patients-db"}', ResolveRequest)
    assert (request.server, request.context, request.floor, request.choices) == ("patients-db", None, Floor(), {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"server":"a"',
        b"{}",
        b'{"server":""}',
        b'{"server":7}',
        b'{"server":"a\\u0000b"}',
        b'{"server":"a\\nb"}',
        json.dumps({"server": "x" * 257}).encode(),
        b'{"server":"a","contxt":"b"}',
        b'{"server":"a","context":""}',
        b'{"server":"a","floor":{"policy":-1}}',
        b'{"server":"a","floor":{"policy":"1"}}',
        b'{"server":"a","floor":{"policy":true}}',
        b'{"server":"a","floor":{"police":1}}',
        b'{"server":"a","choices":{"f":1}}',
        b'{"server":"a","choices":[["f","r"]]}',
        json.dumps({"server": "a", "choices": {str(number): "r" for number in range(65)}}).encode(),
    ],
)
def test_a_malformed_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_request(body, ResolveRequest)


def test_a_request_over_the_limit_is_not_read() -> None:
    with pytest.raises(TooLarge):
        parse_request(b" " * (LARGEST_BODY + 1), ResolveRequest)


@pytest.mark.parametrize(
    "body",
    [
        {"server": "a", "S3CRET": 1},
        {"server": "a", "choices": {"S3CRET": 1}},
        {"server": "a", "context": ["S3CRET"]},
        {"server": ["S3CRET"]},
        {"S3CRET": {"S3CRET": "S3CRET"}},
    ],
)
def test_a_refusal_quotes_nothing_of_the_request(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_request(json.dumps(body).encode(), ResolveRequest)
    assert "S3CRET" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.binary(max_size=80))
def test_a_value_arrives_as_it_was_whatever_its_bytes(value: bytes) -> None:
    field = json.loads(encode_answer(answer(value)))["fields"][0]
    assert ResolvedField.model_validate(field).value.matches(value)


def test_only_encoding_for_the_seal_writes_a_value() -> None:
    shown = [repr(answer()), str(answer()), repr(answer().model_dump()), answer().fields[0].model_dump_json()]
    for leak in ("hunter2", "aHVudGVyM", "cG9zdGdyZXM"):
        assert all(leak not in text for text in shown)
    assert b"cG9zdGdyZXM" in encode_answer(answer())


def test_wiping_an_answer_wipes_every_value() -> None:
    told = answer()
    told.wipe()
    assert all(field.value.wiped for field in told.fields)


@pytest.mark.parametrize("value", ["YQ==", "YR", "a b", None, 7])
def test_a_value_has_one_spelling(value: object) -> None:
    with pytest.raises(ValueError, match="value"):
        ResolvedField.model_validate({"name": "F", "value": value, "lease": LEASE})


@pytest.mark.parametrize(
    "said",
    [{}, {"value": "YQ", "variable": "DB_URL"}, {"variable": ""}, {"variable": "A=B"}, {"variable": "A B"}],
    ids=str,
)
def test_a_field_has_a_value_or_a_variable_and_never_both(said: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"value|variable"):
        ResolvedField.model_validate({"name": "F", "lease": LEASE} | said)


def test_a_field_that_is_read_in_place_travels_without_a_value() -> None:
    field = ResolvedField.model_validate({"name": "F", "variable": "DB_URL", "lease": LEASE})
    told = answer()
    told.fields.append(field)
    sent = json.loads(encode_answer(told))["fields"]
    assert [sorted(one) for one in sent] == [["lease", "name", "value"], ["lease", "name", "variable"]]
    assert ResolvedField.model_validate(sent[1]) == field
    told.wipe()


def test_an_answer_that_is_not_understood_is_refused_without_being_quoted() -> None:
    with pytest.raises(BadRequest) as refused:
        decode_answer(b'{"fields":[{"value":"S3CRET"}]}')
    assert "S3CRET" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_reader_ignores_what_a_newer_resolver_adds() -> None:
    field = json.loads(encode_answer(answer()))["fields"][0]
    assert ResolvedField.model_validate(field | {"added_later": 1}).value.matches(VALUE)


def test_the_published_schema_of_an_answer_says_how_a_value_is_written() -> None:
    schema = ResolveAnswer.model_json_schema(mode="serialization")
    Draft202012Validator.check_schema(schema)
    value = schema["$defs"]["ResolvedField"]["properties"]["value"]
    assert (value["type"], value["contentEncoding"]) == ("string", "base64url")


class TestEnrolment:
    signing, sealing = SigningKey.generate(), SealingKey.generate()

    def body(self, **changes: object) -> bytes:
        sent = {
            "token": "single-use-S3CRET",
            "name": "gateway 1",
            "signing_key": self.signing.verify_key.to_base64(),
            "sealing_key": self.sealing.public.to_base64(),
            "sealing_key_signature": certify_sealing_key(self.signing, self.sealing.public),
        }
        return json.dumps(sent | changes).encode()

    def test_an_enrolment_is_read_and_does_not_show_its_token(self) -> None:
        request = parse_request(self.body(), EnrolRequest)
        assert request.token.get_secret_value() == "single-use-S3CRET"
        assert "S3CRET" not in repr(request) + str(request.model_dump()) + request.model_dump_json()

    @pytest.mark.parametrize(
        "change",
        [
            {"token": ""},
            {"token": "x" * 257},
            {"signing_key": "AAAA"},
            {"signing_key": "!" * 43},
            {"sealing_key": "A" * 42 + "B"},
            {"sealing_key_signature": ""},
            {"labels": {"site": "anywhere"}},
        ],
    )
    def test_a_malformed_enrolment_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(BadRequest):
            parse_request(self.body(**change), EnrolRequest)
