"""The published schemas describe what is really sent, and every contract has an example that they accept."""

import json

import pytest
from jsonschema import Draft202012Validator

from services.dev.contracts.examples import EXAMPLES
from services.dev.contracts.generate import asyncapi, event_schema
from services.dev.contracts.released import incompatibilities
from services.dev.contracts.roles import ROLES
from services.dev.contracts.variants import VARIANTS
from shared.events.contract import Contract
from shared.events.registry import CONTRACTS


def _name(contract: type[Contract] | Contract) -> str:
    return contract.TYPE


def test_every_contract_has_exactly_one_example() -> None:
    assert sorted(_name(example) for example in EXAMPLES) == sorted(_name(contract) for contract in CONTRACTS)


def test_every_variant_is_a_shape_of_its_own_of_a_contract_that_has_an_example() -> None:
    plain = {example.TYPE: example for example in EXAMPLES}
    for name, variant in VARIANTS.items():
        assert name.startswith(variant.TYPE + ".")
        assert variant != plain[variant.TYPE]


@pytest.mark.parametrize("example", [*EXAMPLES, *VARIANTS.values()], ids=_name)
def test_an_example_satisfies_its_published_schema(example: Contract) -> None:
    Draft202012Validator(event_schema(type(example))).validate(json.loads(example.to_json()))


@pytest.mark.parametrize("example", [*EXAMPLES, *VARIANTS.values()], ids=_name)
def test_an_example_reads_back_as_what_was_written(example: Contract) -> None:
    assert type(example).model_validate_json(example.to_json()) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_a_reader_ignores_what_a_newer_writer_adds(example: Contract) -> None:
    newer = json.loads(example.to_json()) | {"added_in_a_later_version": 1}
    assert type(example).model_validate(newer) is not None


@pytest.mark.parametrize("service", ROLES)
def test_a_service_names_only_contracts_that_exist(service: str) -> None:
    document = asyncapi(service)
    known = {contract.TYPE for contract in CONTRACTS}
    assert set(document["components"]["messages"]) <= known


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        ({"properties": {}, "required": []}, "property a is gone"),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, "property a has another type"),
        ({"properties": {"a": {"type": "string"}}, "required": []}, "property a is no longer always there"),
    ],
)
def test_a_change_that_breaks_readers_is_named(after: dict[str, object], complaint: str) -> None:
    before = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert incompatibilities(before, after) == [complaint]


def test_a_new_optional_property_breaks_nobody() -> None:
    before = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    after = {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    assert incompatibilities(before, after) == []
