"""What stands in `schemas/`, as a mapping from relative path to text. Pure: nothing is written here."""

from __future__ import annotations

import json
from typing import Any

from services.dev.contracts.examples import EXAMPLES
from services.dev.contracts.roles import ROLES, Contracts
from services.dev.contracts.variants import VARIANTS
from shared.events.contract import Contract
from shared.events.registry import CONTRACTS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def event_path(contract: type[Contract]) -> str:
    """`events/<type>/v1.json` for a CloudEvents type that ends in its version."""
    name, _, version = contract.TYPE.rpartition(".")
    return f"events/{name}/{version}.json"


def event_schema(contract: type[Contract]) -> dict[str, Any]:
    """JSON Schema (2020-12) of the payload, with the topic and the CloudEvents type that carry it."""
    schema = contract.model_json_schema(mode="serialization")
    return {
        "$schema": _DIALECT,
        "$id": f"https://keyfob.dev/schemas/{event_path(contract)}",
        "x-topic": contract.TOPIC,
        "x-cloudevents-type": contract.TYPE,
        **schema,
    }


def _messages(contracts: Contracts) -> dict[str, Any]:
    return {
        contract.TYPE: {
            "name": contract.TYPE,
            "contentType": "application/json",
            "payload": {"$ref": f"../{event_path(contract)}"},
            "headers": {
                "type": "object",
                "required": ["ce_specversion", "ce_id", "ce_type", "ce_source"],
                "properties": {"ce_type": {"const": contract.TYPE}},
            },
        }
        for contract in contracts
    }


def _operations(direction: str, contracts: Contracts) -> dict[str, Any]:
    operations = {}
    for topic in sorted({contract.TOPIC for contract in contracts}):
        types = [contract.TYPE for contract in contracts if topic == contract.TOPIC]
        operations[f"{direction}-{topic}"] = {
            "action": direction,
            "channel": {"$ref": f"#/channels/{topic}"},
            "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in types],
        }
    return operations


def asyncapi(service: str) -> dict[str, Any]:
    """AsyncAPI 3.0 of one service: channels are topics, operations say which way."""
    role = ROLES[service]
    contracts = (*role.reads, *role.writes)
    channels = {
        topic: {
            "address": topic,
            "messages": {
                contract.TYPE: {"$ref": f"#/components/messages/{contract.TYPE}"}
                for contract in contracts
                if topic == contract.TOPIC
            },
        }
        for topic in sorted({contract.TOPIC for contract in contracts})
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"Keyfob {service}", "version": "1", "description": role.summary},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations("receive", role.reads) | _operations("send", role.writes),
        "components": {"messages": _messages(contracts)},
    }


def event_files() -> dict[str, str]:
    """JSON Schemas and AsyncAPI documents and examples."""
    files = {event_path(contract): _text(event_schema(contract)) for contract in CONTRACTS}
    files |= {f"asyncapi/{service}.json": _text(asyncapi(service)) for service in ROLES}
    for name, example in ({example.TYPE: example for example in EXAMPLES} | VARIANTS).items():
        files[f"examples/{name}.json"] = _text(json.loads(example.to_json()))
    return files


def openapi_files() -> dict[str, str]:
    """OpenAPI of each service's HTTP side, from its routes."""
    from services.audit.app import openapi as audit  # noqa: PLC0415 - services are heavy; events alone need none
    from services.notifier.app import openapi as notifier  # noqa: PLC0415
    from services.policy.app import openapi as policy  # noqa: PLC0415
    from services.resolver.app import https_only_openapi  # noqa: PLC0415
    from services.resolver.app import openapi as resolver  # noqa: PLC0415
    from services.sync.app import openapi as sync  # noqa: PLC0415

    documents = {"audit": audit, "notifier": notifier, "policy": policy, "resolver": resolver, "sync": sync}
    documents["resolver-https"] = https_only_openapi
    return {f"openapi/{service}.json": _text(document()) for service, document in documents.items()}
